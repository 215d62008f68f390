//! Random histories: frames, most of them odd, and changes of the world between them, on both compilations.
//!
//! A history is a list of numbers, one for each step; each seeds the [`dice::Dice`] that choose what the step does, with an eye on
//! what came before. So any part of a history is a history, and one that fails is made as short as it can be.

mod action;
pub mod dice;
mod frames;
pub mod fuzz;
mod rules;
mod shrink;
mod story;
mod talk;
mod tour;

pub use story::Story;
pub use tour::{Plan, Summary, tour};

#[cfg(test)]
mod tests {
    use super::{Story, dice::Dice};
    use crate::oracle::Oracle;

    /// Without any privilege: nothing panics, what passes is untouched, what is dropped is counted.
    #[test]
    fn random_histories_break_no_rule_on_the_host_alone() {
        let mut oracle = Oracle::host_only();
        let mut seeds = Dice::Seed(1);
        for _ in 0..50 {
            let mut story = Story::begin(&mut oracle);
            for _ in 0..1_000 {
                let seed = seeds.word();
                if let Err(fault) = story.step(&mut oracle, &mut Dice::Seed(seed)) {
                    panic!("{fault}");
                }
            }
        }
    }
}
