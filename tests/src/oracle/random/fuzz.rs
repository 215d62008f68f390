//! One input of a fuzzer: a frame as it is, or a history whose every choice is made by the bytes.

use std::{cell::RefCell, fs, path::Path};

use svc_common::packet::Hook;

use super::{
    action::Action,
    dice::Dice,
    story::{Story, is_refused},
};
use crate::oracle::{Oracle, Setup, UPLINK, WORKLOAD};

/// Steps of one input: what comes after says nothing new.
const STEPS: usize = 200;
/// Where a frame may come in.
const HOOKS: [Hook; 3] = [Hook::Ingress, Hook::Xdp, Hook::Egress];

/// Runs an input. If its first byte is even, the second one says where the rest comes in, as a frame; otherwise the rest makes a
/// history.
///
/// # Errors
/// The first broken rule or, where there is a kernel, difference.
pub fn input(oracle: &mut Oracle, data: &[u8]) -> Result<(), String> {
    let mut story = Story::begin(oracle);
    match data {
        [] | [_] => {}
        [mode, place, bytes @ ..] if mode % 2 == 0 => {
            let hook = HOOKS[usize::from(place & 0x7f) % HOOKS.len()];
            let hook = if is_refused(bytes) { Hook::Xdp } else { hook };
            let ifindex = oracle.ifindex(if place & 0x80 == 0 { UPLINK } else { WORKLOAD });
            // The kernel runs no frame shorter than an Ethernet header, and none longer than a page takes.
            if (14..3_500).contains(&bytes.len()) {
                let frame = Action::Frame { hook, ifindex, bytes: bytes.to_vec(), segment_payload: 0 };
                story.perform(oracle, &frame)?;
            }
        }
        [_, bytes @ ..] => {
            let mut dice = Dice::Bytes(bytes);
            for _ in 0..STEPS {
                if dice.is_used_up() {
                    break;
                }
                story.step(oracle, &mut dice)?;
            }
        }
    }
    oracle.difference().map_or(Ok(()), Err)
}

/// The inputs that are run again in every test, one in a line, in hexadecimal digits.
pub const CORPUS: &str = include_str!("../../../../fuzz/corpus.txt");

/// The bytes of the corpus' inputs.
///
/// # Panics
/// If a line is not hexadecimal.
pub fn corpus() -> impl Iterator<Item = Vec<u8>> {
    let lines = CORPUS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let byte = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap_or_else(|_| panic!("not hex: {line}"));
        (0..line.len()).step_by(2).map(byte).collect()
    })
}

/// Inputs to begin with: histories, and the frames that the generator makes in some of them, each as an input of its own.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut dice = Dice::Seed(3);
    let mut seeds: Vec<_> = (0..200).map(|n| [vec![1], dice.bytes(40 + 4 * n)].concat()).collect();
    let mut oracle = Oracle::host_only();
    for _ in 0..20 {
        let mut story = Story::begin(&mut oracle);
        for _ in 0..50 {
            let action = story.choose(&oracle, &mut Dice::Seed(dice.word()));
            if let Action::Frame { hook, ifindex, bytes, .. } = &action {
                let place = HOOKS.iter().position(|at| at == hook).unwrap_or_default() as u8;
                let device = if *ifindex == oracle.ifindex(WORKLOAD) { 0x80 } else { 0 };
                seeds.push([&[0, place + device], &bytes[..]].concat());
            }
            // What breaks a rule is for the fuzzer to tell.
            let _broken = story.perform(&mut oracle, &action);
        }
    }
    seeds
}

/// Writes the corpus and the [`seeds`] into the directory `SVC_FUZZ_SEEDS`, if there is one.
///
/// # Panics
/// If they cannot be written.
pub fn plant() {
    let Some(dir) = std::env::var_os("SVC_FUZZ_SEEDS") else { return };
    for (number, input) in corpus().chain(seeds()).enumerate() {
        let file = Path::new(&dir).join(format!("seed-{number:04}"));
        fs::write(&file, input).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

thread_local! {
    static ORACLE: RefCell<Oracle> = RefCell::new(match std::env::var_os("SVC_FUZZ_KERNEL") {
        Some(_) => Oracle::in_this_thread(Setup::default()).expect("SVC_FUZZ_KERNEL needs root and the kernel programs"),
        None => Oracle::host_only(),
    });
}

/// Runs an input on the host compilation, and on the loaded programs if `SVC_FUZZ_KERNEL` is set.
///
/// # Panics
/// At the first broken rule: a fuzzer takes that for a find.
pub fn run(data: &[u8]) {
    ORACLE.with_borrow_mut(|oracle| input(oracle, data).unwrap_or_else(|fault| panic!("{fault}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_an_input() {
        let mut seeds = Dice::Seed(7);
        for _ in 0..3_000 {
            let len = seeds.below(400);
            run(&seeds.bytes(len));
        }
    }

    #[test]
    fn inputs_of_the_corpus_break_no_rule() {
        corpus().for_each(|input| run(&input));
        assert!(corpus().count() > 50);
    }

    #[test]
    fn inputs_to_begin_with_are_histories_and_frames_of_the_generator() {
        let seeds = seeds();
        for mode in [0, 1] {
            assert!(seeds.iter().filter(|seed| seed[0] == mode).count() >= 200, "mode {mode}");
        }
        seeds.iter().for_each(|input| run(input));
    }
}
