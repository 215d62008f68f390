//! What becomes of a packet.

use crate::{
    packet::{Hook, Packet},
    reason::Reason,
    stage::Stage,
};

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

/// An [`Outcome`] in one word, with the [`Reason`] that it has, if any: whoever tells the outcome to the kernel counts it. So
/// a packet has one reason at most, the last that was found.
///
/// The fields of an enum that its variant does not have are undefined; the compiler may compute with them as long as
/// it does not look, which the verifier does not let pass. So programs carry outcomes like this to the hook.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed(u64);

/// Where the device or stage is.
const VALUE_SHIFT: u32 = 8;
/// Where the reason is: its number and one, or zero.
const REASON_SHIFT: u32 = 40;

impl Packed {
    /// The default, too.
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
        Self(Self::CONTINUE | ((stage as u64) << VALUE_SHIFT))
    }

    #[inline(always)]
    pub(crate) const fn drop(reason: Reason) -> Self {
        Self(Self::DROP).because(reason)
    }

    /// Leaves a packet alone for this reason, which is counted once, where the packet comes in.
    #[inline(always)]
    pub(crate) const fn pass<P: Packet>(reason: Reason) -> Self {
        if matches!(P::HOOK, Hook::Ingress) { Self::PASS.because(reason) } else { Self::PASS }
    }

    /// The same outcome for this reason, whatever it had before.
    #[inline(always)]
    pub(crate) const fn because(self, reason: Reason) -> Self {
        let outcome = self.0 & ((1 << REASON_SHIFT) - 1);
        Self(outcome | ((reason as u64 + 1) << REASON_SHIFT))
    }

    /// The same, of a packet that is not as it came.
    #[inline(always)]
    pub(crate) const fn delivered(self) -> Self {
        Self(self.0 | Self::DELIVER.0)
    }

    /// Whether the packet is left alone, for whatever reason.
    #[inline(always)]
    pub(crate) const fn is_pass(self) -> bool {
        self.0 & 0xff == Self::PASS.0
    }

    #[inline(always)]
    pub(crate) const fn to_device(kind: u64, ifindex: u32) -> Self {
        Self(kind | ((ifindex as u64) << VALUE_SHIFT))
    }

    /// Why, if there is more to say than the outcome.
    #[inline(always)]
    pub const fn reason(self) -> Option<Reason> {
        match self.0 >> REASON_SHIFT {
            0 => None,
            number => Some(Reason::from_index((number - 1) as u8)),
        }
    }

    /// The outcome.
    #[inline(always)]
    pub const fn outcome(self) -> Outcome {
        let value = (self.0 >> VALUE_SHIFT) as u32;
        match self.0 & 0xff {
            1 => Outcome::Deliver,
            Self::SEND => Outcome::Send(value),
            Self::RESOLVE => Outcome::Resolve(value),
            Self::PEER => Outcome::Peer(value),
            Self::DROP => Outcome::Drop(Reason::from_index((self.0 >> REASON_SHIFT).wrapping_sub(1) as u8)),
            Self::CONTINUE => Outcome::Continue(match value {
                0 => Stage::Rare,
                1 => Stage::Icmp,
                2 => Stage::Reject,
                3 => Stage::TooBig,
                4 => Stage::Decap,
                5 => Stage::Sctp,
                _ => Stage::Read,
            }),
            _ => Outcome::Pass,
        }
    }
}
