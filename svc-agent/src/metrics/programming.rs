//! From the change of an endpoint until it is at work, as Kubernetes measures it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::Histogram;
use crate::sorted::shares_all;
use crate::sources::Objects;

/// What is being brought to work.
#[derive(Debug)]
pub struct Programming {
    /// What happened before was not this agent's to do.
    since: Timestamp,
    pending: Vec<Timestamp>,
}

impl Default for Programming {
    fn default() -> Self {
        Self { since: Timestamp::now(), pending: Vec::new() }
    }
}

impl Programming {
    /// Objects have come: those that were not among the ones before may tell what made them. Of a node that is slow, or was
    /// away, only the first thousand count.
    pub fn changed(&mut self, before: &Objects, now: &Objects) {
        for change in now.slices.changes(&before.slices, |old, new| shares_all(old, new)) {
            let [known, slices] =
                [change.before, change.now].map(|slices| slices.map(Vec::as_slice).unwrap_or_default());
            let new = slices.iter().filter(|slice| !known.iter().any(|known| Arc::ptr_eq(slice, known)));
            let triggers = new.filter_map(|slice| slice.triggered).filter(|trigger| *trigger >= self.since);
            self.pending.extend(triggers.take(1000_usize.saturating_sub(self.pending.len())));
        }
    }

    /// Everything that had come is in the maps.
    pub fn done(&mut self, now: Timestamp, latencies: &Histogram) {
        for trigger in self.pending.drain(..) {
            // The clocks of two machines differ.
            latencies.observe(Duration::try_from(now.duration_since(trigger)).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EndpointSlice;
    use crate::resolve::fixtures::slice;

    #[test]
    fn each_change_counts_once_and_only_those_that_this_agent_saw() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let made = |name: &str, trigger: Option<&str>| -> Arc<EndpointSlice> {
            Arc::new(EndpointSlice { triggered: trigger.map(at), ..slice("web", name, Vec::new()) })
        };
        let objects = |slices: &[Arc<EndpointSlice>]| Objects {
            slices: [(slices[0].service.clone(), slices.to_vec())].into(),
            ..Objects::default()
        };
        let mut programming = Programming { since: at("2026-01-01T00:00:00Z"), pending: Vec::new() };
        let latencies = Histogram::new(&[1.0, 10.0]);
        let [old, untold, first] =
            [Some("2025-12-31T23:59:59Z"), None, Some("2026-01-01T00:00:10Z")].map(|trigger| made("a", trigger));
        let service = first.service.clone();
        let before = objects(&[old, untold, first]);
        programming.changed(&Objects::default(), &before);
        programming.done(at("2026-01-01T00:00:10.5Z"), &latencies);
        assert_eq!((latencies.counts().within, latencies.counts().count), (vec![1, 1], 1));
        // Nothing new; then one more, which waits for two passes.
        programming.changed(&before, &before);
        let mut more = before.clone();
        let slices = more.slices.get_mut(&service).unwrap();
        slices.push(made("b", Some("2026-01-01T00:01:00Z")));
        programming.changed(&before, &more);
        programming.changed(&more, &more);
        programming.done(at("2026-01-01T00:01:07Z"), &latencies);
        programming.done(at("2026-01-01T00:02:00Z"), &latencies);
        assert_eq!((latencies.counts().within, latencies.counts().count), (vec![1, 2], 2));
    }
}
