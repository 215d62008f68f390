//! What a benchmark found: tables, and which goals are met.

use std::fmt;

use serde_json::{Value, json};

use super::{Samples, Table};

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "<= {limit}"),
            Self::AtLeast(limit) => write!(f, ">= {limit}"),
        }
    }
}

/// What should be, and what is.
#[derive(Clone, Debug)]
pub struct Goal {
    /// What is bounded, with its unit.
    pub what: String,
    /// The limit.
    pub bound: Bound,
    /// What was measured.
    pub measured: Samples,
}

impl Goal {
    /// Whether the median is within the limit; a goal that was not measured is missed.
    pub fn is_met(&self) -> bool {
        self.bound.holds(self.measured.median())
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((low, high), median) = (self.measured.spread(), self.measured.median());
        let verdict = if self.is_met() { "met" } else { "MISSED" };
        write!(f, "{verdict:<6}  {}: {median:.2} ({low:.2}-{high:.2}), goal {}", self.what, self.bound)
    }
}

/// The result of a benchmark.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The name of the benchmark.
    pub name: String,
    /// What was measured.
    pub tables: Vec<Table>,
    /// What it should be.
    pub goals: Vec<Goal>,
    /// What the reader has to know besides the figures.
    pub notes: Vec<String>,
}

impl Report {
    /// An empty one.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Adds a goal.
    pub fn goal(&mut self, what: impl Into<String>, bound: Bound, measured: Samples) {
        self.goals.push(Goal { what: what.into(), bound, measured });
    }

    /// All of it.
    pub fn to_json(&self) -> Value {
        let goals: Vec<_> = self.goals.iter().map(goal_to_json).collect();
        let tables: Vec<_> = self.tables.iter().map(Table::to_json).collect();
        json!({ "benchmark": self.name, "tables": tables, "goals": goals, "notes": self.notes })
    }
}

fn goal_to_json(goal: &Goal) -> Value {
    json!({
        "what": goal.what, "goal": goal.bound.to_string(), "measured": goal.measured.to_json(), "met": goal.is_met(),
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "== {}\n", self.name)?;
        for table in &self.tables {
            writeln!(f, "{table}")?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        for goal in &self.goals {
            writeln!(f, "{goal}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_that_was_not_measured_is_missed() {
        let goal =
            |bound, values: &[f64]| Goal { what: "x".to_owned(), bound, measured: values.iter().copied().collect() };
        assert!(goal(Bound::AtMost(1.3), &[1.4, 1.3, 1.2]).is_met());
        assert!(!goal(Bound::AtMost(1.3), &[1.4, 1.31, 1.2]).is_met());
        assert!(goal(Bound::AtLeast(1.1), &[1.1]).is_met());
        assert!(!goal(Bound::AtLeast(1.1), &[]).is_met());
        assert_eq!(goal(Bound::AtLeast(1.1), &[1.0]).to_string(), "MISSED  x: 1.00 (1.00-1.00), goal >= 1.1");
    }
}
