//! Makes a history that fails as short as it can be, and tells it.

use std::fmt::Write as _;

use super::{action::Action, dice::Dice, story::Story};
use crate::oracle::Oracle;

/// Trials before what is left is taken as short enough.
const TRIALS: usize = 2_000;

/// The shortest history found that still fails, told step by step; what it was about if it does not fail again.
pub(super) fn shrunk(oracle: &mut Oracle, steps: &[u64], first: &str) -> String {
    let actions = actions(oracle, steps);
    let mut all: Vec<&Action> = actions.iter().collect();
    if !fails(oracle, &all) {
        return format!("{first}\n(and not again: something outside of the history took part)");
    }
    let mut trials = 0;
    let mut chunk = all.len() / 2;
    while chunk > 0 && trials < TRIALS {
        let mut at = 0;
        // The last step is the one that shows it.
        while at + 1 < all.len() && trials < TRIALS {
            let mut fewer = all.clone();
            fewer.drain(at..(at + chunk).min(all.len() - 1));
            trials += 1;
            if fails(oracle, &fewer) {
                all = fewer;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    told(oracle, &all)
}

/// What the steps did, to the first whole comparison that fails. What a step does depends on those before; what was done does not.
fn actions(oracle: &mut Oracle, steps: &[u64]) -> Vec<Action> {
    let mut story = Story::begin(oracle);
    let mut actions = Vec::new();
    for seed in steps {
        let action = story.choose(oracle, &mut Dice::Seed(*seed));
        let failed = story.perform(oracle, &action).is_err() || oracle.difference().is_some();
        actions.push(action);
        if failed {
            break;
        }
    }
    actions
}

/// Whether the last of these actions shows a difference, and none before.
fn fails(oracle: &mut Oracle, actions: &[&Action]) -> bool {
    let mut story = Story::begin(oracle);
    let failed =
        actions.iter().position(|action| story.perform(oracle, action).is_err() || oracle.difference().is_some());
    failed.is_some_and(|at| at + 1 == actions.len())
}

fn told(oracle: &mut Oracle, actions: &[&Action]) -> String {
    let mut text = String::new();
    let mut story = Story::begin(oracle);
    for (at, action) in actions.iter().enumerate() {
        let _ = writeln!(text, "{:>3}. {action}", at + 1);
        let result = story.perform(oracle, action);
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
