//! Makes a history that fails as short as it can be, and tells it.

use std::fmt::Write as _;

use super::{dice::Dice, story::Story};
use crate::oracle::Oracle;

/// Trials before what is left is taken as short enough.
const TRIALS: usize = 2_000;

/// Runs these steps with whole comparisons after each; the number of steps until a difference.
fn fails(oracle: &mut Oracle, steps: &[u64]) -> Option<usize> {
    let mut story = Story::begin(oracle);
    let failed = steps
        .iter()
        .position(|seed| story.step(oracle, &mut Dice::Seed(*seed)).is_err() || oracle.difference().is_some());
    failed.map(|at| at + 1)
}

/// The shortest history found that still fails, told step by step; what it was about if it does not fail again.
pub(super) fn shrunk(oracle: &mut Oracle, steps: &[u64], first: &str) -> String {
    let Some(len) = fails(oracle, steps) else {
        return format!("{first}\n(and not again: something outside of the history took part)");
    };
    let mut steps = steps[..len].to_vec();
    let mut trials = 0;
    let mut chunk = steps.len() / 2;
    while chunk > 0 && trials < TRIALS {
        let mut at = 0;
        // The last step is the one that shows it.
        while at + 1 < steps.len() && trials < TRIALS {
            let mut shorter = steps.clone();
            shorter.drain(at..(at + chunk).min(steps.len() - 1));
            trials += 1;
            match fails(oracle, &shorter) {
                Some(len) => {
                    shorter.truncate(len);
                    steps = shorter;
                }
                None => at += chunk,
            }
        }
        chunk /= 2;
    }
    told(oracle, &steps)
}

fn told(oracle: &mut Oracle, steps: &[u64]) -> String {
    let mut text = String::new();
    let mut story = Story::begin(oracle);
    for (at, seed) in steps.iter().enumerate() {
        let action = story.choose(oracle, &mut Dice::Seed(*seed));
        let _ = writeln!(text, "{:>3}. {action}", at + 1);
        let result = story.perform(oracle, &action);
        if let Ok(Some(run)) = &result {
            let _ = writeln!(text, "     {:?}", run.outcome);
        }
        if let Some(difference) = result.err().or_else(|| oracle.difference()) {
            let _ = writeln!(text, "DIFFERENT: {difference}");
            break;
        }
    }
    text
}
