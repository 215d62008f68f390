//! One input of a fuzzer: a frame as it is, or a history whose every choice is made by the bytes.

use std::cell::RefCell;

use svc_common::packet::Hook;

use super::{
    dice::Dice,
    story::{Action, Story, is_refused},
};
use crate::oracle::{Oracle, UPLINK, WORKLOAD};

/// Steps of one input: what comes after says nothing new.
const STEPS: usize = 200;

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
            let hook = match place % 3 {
                0 => Hook::Ingress,
                1 => Hook::Xdp,
                _ => Hook::Egress,
            };
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

thread_local! {
    static HOST: RefCell<Oracle> = RefCell::new(Oracle::host_only());
}

/// Runs an input on the host compilation alone.
///
/// # Panics
/// At the first broken rule: a fuzzer takes that for a find.
pub fn host(data: &[u8]) {
    HOST.with_borrow_mut(|oracle| input(oracle, data).unwrap_or_else(|fault| panic!("{fault}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_an_input() {
        let mut seeds = Dice::Seed(7);
        for _ in 0..3_000 {
            let len = seeds.below(400);
            host(&seeds.bytes(len));
        }
    }
}
