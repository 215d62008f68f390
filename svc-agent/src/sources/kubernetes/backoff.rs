//! Pauses between attempts: they double, and chance spreads them so that nodes do not come all at once.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The shortest and the longest pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// After the first failure.
    pub min: Duration,
    /// After many.
    pub max: Duration,
}

/// How long to wait after failures in a row.
#[derive(Debug)]
pub struct Backoff {
    limits: Limits,
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, failures: 0 }
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The pause after one more failure.
    pub fn pause(&mut self) -> Duration {
        let pause = self.limits.min.saturating_mul(1 << self.failures.min(16)).min(self.limits.max);
        self.failures = self.failures.saturating_add(1);
        jitter(pause)
    }
}

/// Between half and all of a duration.
pub fn jitter(full: Duration) -> Duration {
    // Every RandomState has keys of its own.
    let chance = RandomState::new().hash_one(0_u8) % 1024;
    full / 2 + full.mul_f64(chance as f64 / 2048.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_begin_anew_after_success() {
        let limits = Limits { min: Duration::from_millis(100), max: Duration::from_secs(2) };
        let mut backoff = Backoff::new(limits);
        for full_ms in [100, 200, 400, 800, 1600, 2000, 2000] {
            let (pause, full) = (backoff.pause(), Duration::from_millis(full_ms));
            assert!(full / 2 <= pause && pause <= full, "{pause:?} of {full:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= limits.min);
    }

    #[test]
    fn two_nodes_do_not_wait_equally_long() {
        let pauses: std::collections::BTreeSet<_> = (0..20).map(|_| jitter(Duration::from_secs(10))).collect();
        assert!(pauses.len() > 5, "{pauses:?}");
    }
}
