//! How long something took: how often at most so long.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A histogram with these bounds, in seconds, rising.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Mutex<Counts>,
}

/// What was observed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// For each bound, how often it was not exceeded.
    pub within: Vec<u64>,
    /// How often in all.
    pub count: u64,
    /// All together, in seconds.
    pub sum_s: f64,
}

impl Histogram {
    /// Nothing was observed yet.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = Counts { within: vec![0; bounds.len()], ..Counts::default() };
        Self { bounds, counts: Mutex::new(counts) }
    }

    /// Observes one.
    pub fn observe(&self, took: Duration) {
        let took_s = took.as_secs_f64();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (bound, within) in self.bounds.iter().zip(&mut counts.within) {
            *within += u64::from(took_s <= *bound);
        }
        counts.count += 1;
        counts.sum_s += took_s;
    }

    /// The bounds.
    pub fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// What was observed.
    pub fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_counts_what_does_not_exceed_it() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        [250, 500, 750, 2000].into_iter().map(Duration::from_millis).for_each(|took| histogram.observe(took));
        assert_eq!(histogram.counts(), Counts { within: vec![2, 3], count: 4, sum_s: 3.5 });
    }
}
