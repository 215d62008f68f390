//! One value per round.

use serde_json::{Value, json};

/// What was measured of one thing, in the order of the rounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds the value of the next round.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    /// The middle value; not a number without any.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Lowest and highest value.
    pub fn spread(&self) -> (f64, f64) {
        let sorted = self.sorted();
        (sorted.first().copied().unwrap_or(f64::NAN), sorted.last().copied().unwrap_or(f64::NAN))
    }

    /// Each value in another unit.
    #[must_use]
    pub fn map(&self, of: impl Fn(f64) -> f64) -> Self {
        Self(self.0.iter().map(|&value| of(value)).collect())
    }

    /// Round by round: what was measured next to each other is compared with each other.
    #[must_use]
    pub fn with(&self, other: &Self, of: impl Fn(f64, f64) -> f64) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(&a, &b)| of(a, b)).collect())
    }

    /// How often `base` goes into it, round by round.
    #[must_use]
    pub fn over(&self, base: &Self) -> Self {
        self.with(base, |a, b| a / b)
    }

    /// Median, spread and all rounds.
    pub fn to_json(&self) -> Value {
        let (lowest, highest) = self.spread();
        json!({ "median": self.median(), "lowest": lowest, "highest": highest, "rounds": self.0 })
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_spread_do_not_depend_on_the_order() {
        let samples = Samples::from_iter([3.0, 1.0, 2.0]);
        assert_eq!(samples.median(), 2.0);
        assert_eq!(samples.spread(), (1.0, 3.0));
        assert!(Samples::default().median().is_nan());
    }

    #[test]
    fn ratios_are_those_of_one_round() {
        let (slow, fast) = (Samples::from_iter([2.0, 40.0, 9.0]), Samples::from_iter([1.0, 20.0, 3.0]));
        assert_eq!(slow.over(&fast), Samples::from_iter([2.0, 2.0, 3.0]));
    }
}
