//! Which of a range of numbers is chosen for a name: the same one on every node that has the same input.
//!
//! Without Kubernetes every node has an agent of its own, and they do not talk to each other. So the name decides where the
//! search begins, and what is taken decides where it ends.

use crate::hash::{fnv1a, mix};

/// A range of numbers: addresses or ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    first: u128,
    last: u128,
    /// How many at the beginning are used last: operators who choose a value themselves choose a low one.
    band: u128,
}

impl Numbers {
    /// From `first` to `last`, both included; the first `band` of them are used last.
    pub fn new(first: u128, last: u128, band: u128) -> Self {
        Self { first, last, band: if band < last.saturating_sub(first) { band } else { 0 } }
    }

    /// Whether a number is one of these.
    pub fn contains(&self, number: u128) -> bool {
        (self.first..=self.last).contains(&number)
    }

    /// Chooses a free number; `taken` is how many may be taken at most. `None` if all are.
    pub fn choose(&self, seed: u64, taken: usize, is_taken: impl Fn(u128) -> bool) -> Option<u128> {
        let size = (self.last - self.first).saturating_add(1);
        let probe = |first: u128, size: u128| {
            // Of more numbers than are taken one is free.
            let tries = size.min(taken as u128 + 1);
            let start = u128::from(seed).checked_rem(size)?;
            (0..tries).map(|i| first + (start + i) % size).find(|number| !is_taken(*number))
        };
        probe(self.first + self.band, size - self.band).or_else(|| probe(self.first, self.band))
    }
}

/// A number for a text, the same on every machine and in every version (FNV-1a, then mixed so that all bits count).
pub fn seed(text: &str) -> u64 {
    let hash = mix(fnv1a(&[text.as_bytes()]), 33, 0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_number_is_found_the_low_ones_last() {
        let numbers = Numbers::new(100, 119, 4);
        for name in ["a", "b", "default/web"] {
            let mut taken = HashSet::new();
            while let Some(number) = numbers.choose(seed(name), taken.len(), |number| taken.contains(&number)) {
                assert!(numbers.contains(number) && taken.insert(number));
                assert_eq!(number < 104, taken.len() > 16, "{number} after {}", taken.len());
            }
            assert_eq!(taken.len(), 20);
        }
    }

    #[test]
    fn small_and_huge_ranges_work() {
        assert_eq!(Numbers::new(5, 5, 16).choose(77, 0, |_| false), Some(5));
        assert_eq!(Numbers::new(5, 5, 0).choose(77, 1, |number| number == 5), None);
        assert_eq!(Numbers::new(0, u128::MAX, 0).choose(77, 3, |_| false), Some(77));
        assert_eq!(Numbers::new(0, u128::MAX, 0).choose(77, 3, |number| number < 80), Some(80));
    }

    #[test]
    fn the_seed_of_a_name_never_changes() {
        // Other values would give every Service without a remembered address another one after an upgrade.
        assert_eq!([seed(""), seed("default/web")], [0xecba_3df2_c338_3c52, 0x94ba_5677_4a69_ff48]);
    }
}
