//! What the agent hands to the program `svc_sweep`: a frame with time-outs and the keys of flows that may be over.

use super::Tuple;
use crate::wire::{ETH_LEN, Header};

/// Seconds of silence after which a connection is forgotten.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP or SCTP, the client has not confirmed an answer.
    pub half_open: u32,
    /// TCP established.
    pub established: u32,
    /// TCP, one side has sent FIN.
    pub half_closed: u32,
    /// TCP or SCTP, both sides have ended.
    pub closed: u32,
    /// TCP or SCTP, a reset was seen.
    pub reset: u32,
    /// UDP, no answer.
    pub udp: u32,
    /// UDP, answered.
    pub udp_answered: u32,
    /// SCTP established; its heartbeats come every 30 s.
    pub sctp: u32,
}

/// The values are those of RFC 5382 (established TCP not under 2 h 4 min), RFC 4787 (UDP not under 2 min) and what
/// Linux and kube-proxy use for the closing states (B16-B19). A reset does not end a connection at once: one with a
/// wrong sequence number must not cut a live connection (RFC 5961).
impl Default for Timeouts {
    fn default() -> Self {
        Self {
            half_open: 60,
            established: 8_000,
            half_closed: 3_600,
            closed: 120,
            reset: 40,
            udp: 30,
            udp_answered: 180,
            sctp: 210,
        }
    }
}

/// Keys in one frame: the program's result has one bit for each.
pub const SWEEP_KEYS: usize = 32;
/// The same for the programs without functions, which the verifier follows through every key.
pub const SWEEP_KEYS_FLAT: usize = 1;
/// Where the [`Timeouts`] lie in the frame, behind an Ethernet header whose ether type names the family.
pub const SWEEP_TIMEOUTS: usize = ETH_LEN;
/// Where the keys begin. One whose protocol is zero ends them.
pub const SWEEP_FLOWS: usize = ETH_LEN + size_of::<Timeouts>();

// SAFETY: `repr(C)`, integers only, size checked.
unsafe impl Header for Timeouts {}
// SAFETY: `repr(C)` and without padding, as for maps; aligned to 8 bytes.
unsafe impl Header for Tuple<[u8; 4]> {}
// SAFETY: as above.
unsafe impl Header for Tuple<[u8; 16]> {}
