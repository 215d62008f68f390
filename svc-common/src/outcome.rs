//! What becomes of a packet.

use crate::{reason::Reason, stage::Stage};

/// What the pipeline decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Untouched; whoever is next has it.
    Pass,
    /// Translated; the stack goes on.
    Deliver,
    /// Translated, next hop's addresses written: send it out of this device.
    Send(u32),
    /// Translated: send it out of this device, whose neighbour the kernel finds.
    Resolve(u32),
    /// Translated, the pod's addresses written: put it into the other end of this device.
    Peer(u32),
    /// For us, but it ends here; counted.
    Drop(Reason),
    /// Untouched so far: the stage goes on with it.
    Continue(Stage),
}

/// An [`Outcome`] in one word.
///
/// The fields of an enum that its variant does not have are undefined; the compiler may compute with them as long as
/// it does not look, which the verifier does not let pass. So programs carry outcomes like this to the hook.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed(u64);

impl Packed {
    pub(crate) const PASS: Self = Self(0);
    pub(crate) const DELIVER: Self = Self(1);
    /// Not an outcome yet: a part of a stage leaves the packet to the next.
    pub(crate) const UNDECIDED: Self = Self(u64::MAX);
    pub(crate) const SEND: u64 = 2;
    pub(crate) const RESOLVE: u64 = 3;
    const DROP: u64 = 4;
    const CONTINUE: u64 = 5;
    pub(crate) const PEER: u64 = 6;

    #[inline(always)]
    pub(crate) const fn to_stage(stage: Stage) -> Self {
        Self(Self::CONTINUE | ((stage as u64) << 8))
    }

    #[inline(always)]
    pub(crate) const fn drop(reason: Reason) -> Self {
        Self(Self::DROP | ((reason as u64) << 8))
    }

    #[inline(always)]
    pub(crate) const fn to_device(kind: u64, ifindex: u32) -> Self {
        Self(kind | ((ifindex as u64) << 8))
    }

    /// The outcome.
    #[inline(always)]
    pub const fn outcome(self) -> Outcome {
        let value = (self.0 >> 8) as u32;
        match self.0 & 0xff {
            1 => Outcome::Deliver,
            Self::SEND => Outcome::Send(value),
            Self::RESOLVE => Outcome::Resolve(value),
            Self::PEER => Outcome::Peer(value),
            Self::DROP => Outcome::Drop(Reason::from_index(value as u8)),
            Self::CONTINUE => Outcome::Continue(match value {
                0 => Stage::Rare,
                1 => Stage::Icmp,
                2 => Stage::Reject,
                3 => Stage::TooBig,
                4 => Stage::Decap,
                _ => Stage::Sctp,
            }),
            _ => Outcome::Pass,
        }
    }
}
