//! The epoch: raised whenever anything a flow was derived from may have changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use svc_common::maps::{Config, MapType as _, spec};

use super::arrays::{map_array, words};
use crate::attach::maps::Maps;
use crate::sys::mmap::MappedArray;

/// `CONFIG`, whose epoch is raised by several parts of the agent.
#[derive(Clone, Debug)]
pub struct Epoch(Arc<MappedArray>);

impl Epoch {
    /// Maps `CONFIG` and writes the settings. The epoch of a new map starts with theirs, so that no flow that is older than
    /// the map looks current; an old map keeps its own.
    ///
    /// # Errors
    /// If the map cannot be mapped.
    pub fn new(maps: &Maps, settings: &Config) -> anyhow::Result<Self> {
        let array = map_array::<Config>(maps, &spec::CONFIG)?;
        // Both ports are one word: no packet sees the first of one range and the last of another.
        for (at, value) in words(settings.bytes()).enumerate().skip(1) {
            array.word(0, at).context("`CONFIG` is empty")?.store(value, Ordering::Relaxed);
        }
        let epoch_word = array.word(0, 0).context("`CONFIG` is empty")?;
        // Zero means that the map is new; anything else is an epoch that flows may carry.
        let epoch = settings.epoch.max(1);
        let _adopted = epoch_word.compare_exchange(0, epoch, Ordering::Release, Ordering::Relaxed);
        Ok(Self(array))
    }

    /// Makes every flow check itself with its next packet.
    pub fn raise(&self) {
        if let Some(epoch) = self.0.word(0, 0) {
            // Release: what was written before is seen by whoever sees the new epoch.
            let _before = epoch.fetch_update(Ordering::Release, Ordering::Relaxed, |now| Some(next_epoch(now)));
        }
    }

    /// The epoch.
    pub fn current(&self) -> u32 {
        self.0.word(0, 0).map_or(0, |epoch| epoch.load(Ordering::Relaxed))
    }
}

/// Zero means "never checked" in a flow, so it is no epoch.
const fn next_epoch(now: u32) -> u32 {
    if now == u32::MAX { 1 } else { now + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_never_zero() {
        assert_eq!([1, 41, u32::MAX].map(next_epoch), [2, 42, 1]);
    }
}
