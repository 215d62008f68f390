//! One frame's way through the hooks of the node.

use std::fmt;

use svc_common::env::{Env, Route};
use svc_common::family::{V4, V6};
use svc_common::host::{Memory, run_frame};
use svc_common::maps::device_class;
use svc_common::outcome::Outcome;
use svc_common::packet::Hook;
use svc_common::reason::Reason;

use super::FirstHook;

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journey {
    /// The hooks that saw it, and what each decided.
    pub steps: Vec<(Hook, Outcome)>,
    /// The sum of it.
    pub fate: Fate,
    /// The frame as it would go on; `None` if it ends here.
    pub frame: Option<Vec<u8>>,
    /// What was counted on the way.
    pub reasons: Vec<Reason>,
}

/// The sum of a journey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Nobody touched it.
    Passed,
    /// Translated; the stack goes on with it.
    Translated,
    /// Translated or made by the programs, and sent by them.
    Sent,
    /// It ended here.
    Dropped(Reason),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed untouched"),
            Self::Translated => f.write_str("translated, left to the stack"),
            Self::Sent => f.write_str("sent by the programs"),
            Self::Dropped(reason) => write!(f, "dropped: {}", reason.code()),
        }
    }
}

/// What a hook leaves to do.
enum Next {
    /// The next hook on the way into the node.
    GoOn,
    /// Out of a device.
    Out(u32),
    /// Nothing.
    End,
}

/// Sends a frame that comes in through `ifindex` on its way.
pub(super) fn run(memory: &mut Memory, first: FirstHook, ifindex: u32, bytes: &[u8]) -> Journey {
    let mut journey =
        Journey { steps: Vec::new(), fate: Fate::Passed, frame: Some(bytes.to_vec()), reasons: Vec::new() };
    let uplink = memory.devices.get(&ifindex).is_some_and(|device| device.class == device_class::UPLINK);
    let mut next = Next::GoOn;
    if first == FirstHook::Xdp && uplink {
        next = journey.step(memory, Hook::Xdp, ifindex);
        if let Next::Out(_) = next {
            // What XDP sends meets no other hook.
            next = Next::End;
        }
    }
    if let Next::GoOn = next {
        next = journey.step(memory, Hook::Ingress, ifindex);
    }
    if let Next::GoOn = next
        && let Some(Route::Via(hop)) = journey.frame.as_deref().and_then(|frame| route(memory, frame, ifindex))
    {
        next = Next::Out(hop.ifindex);
    }
    if let Next::Out(egress) = next {
        journey.step(memory, Hook::Egress, egress);
    }
    journey.reasons.clone_from(&memory.touched.reasons);
    journey
}

impl Journey {
    fn step(&mut self, memory: &mut Memory, hook: Hook, ifindex: u32) -> Next {
        let Some(frame) = self.frame.take() else { return Next::End };
        let (outcome, bytes) = run_frame(memory, hook, &frame, ifindex, 0);
        self.steps.push((hook, outcome));
        self.frame = Some(bytes);
        match outcome {
            Outcome::Pass => Next::GoOn,
            Outcome::Deliver => {
                self.fate = self.fate.max(Fate::Translated);
                Next::GoOn
            }
            Outcome::Send(egress) | Outcome::Resolve(egress) => {
                self.fate = Fate::Sent;
                Next::Out(egress)
            }
            // The pod has it: no other hook of the node sees it.
            Outcome::Peer(_) => {
                self.fate = Fate::Sent;
                Next::End
            }
            Outcome::Drop(reason) => {
                self.fate = Fate::Dropped(reason);
                self.frame = None;
                Next::End
            }
            // `run_frame` runs every stage.
            Outcome::Continue(_) => Next::End,
        }
    }
}

/// The way that the stack would send a frame, by its destination.
fn route(memory: &mut Memory, frame: &[u8], ifindex: u32) -> Option<Route> {
    match frame.get(12..14)? {
        [0x08, 0x00] => {
            let addr = |at: usize| frame.get(at..)?.first_chunk::<4>();
            Some(Env::<V4>::route(memory, addr(26)?, addr(30)?, 0, ifindex))
        }
        [0x86, 0xdd] => {
            let addr = |at: usize| frame.get(at..)?.first_chunk::<16>();
            Some(Env::<V6>::route(memory, addr(22)?, addr(38)?, 0, ifindex))
        }
        _ => None,
    }
}
