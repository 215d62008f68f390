//! What the programs tell the agent of single packets and connections, when it asks for that.

use super::Clock;
use crate::{net::Be16, reason::Reason};

/// The one value of `EVENTS_WANTED`: one of so many, zero for none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventsWanted {
    /// Packets that were dropped.
    pub drops: u32,
    /// Connections that began or ended.
    pub flows: u32,
}

/// Value of `EVENTS_SENT`, per CPU; the key is 0 for drops and 1 for connections.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventsSent {
    /// How many more are left out before the next one.
    pub skip: u32,
    /// The second that `sent` is about.
    pub second: Clock,
    /// Events of this second.
    pub sent: u32,
}

/// Events of each kind that one CPU tells within a second.
pub const MAX_EVENTS: u32 = 500;

impl EventsSent {
    /// Whether to tell of the next one, of which one in `wanted` is wanted.
    #[inline(always)]
    pub const fn admit(&mut self, wanted: u32, now: Clock) -> bool {
        if wanted == 0 {
            return false;
        }
        if self.skip > 0 && self.skip < wanted {
            self.skip -= 1;
            return false;
        }
        self.skip = wanted - 1;
        if self.second != now {
            self.second = now;
            self.sent = 0;
        }
        self.sent += 1;
        self.sent <= MAX_EVENTS
    }
}

/// What `EVENTS` carries.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// One of [`event_kind`].
    pub kind: u8,
    /// For drops, a [`Reason`].
    pub reason: u8,
    /// For drops, one of [`event_hook`].
    pub hook: u8,
    /// 4 or 6.
    pub family: u8,
    /// For drops, the device that the packet came in through, at egress the one that it was to leave by.
    pub ifindex: u32,
    /// For drops, bytes of the frame.
    pub len_bytes: u32,
    /// For drops, bytes of `data` that are from the frame.
    pub captured: u32,
    /// For connections, the service port.
    pub service: u32,
    /// For connections, the backend.
    pub backend: u32,
    /// For drops, the packet from its IP header on; for connections an [`EventFlow`].
    pub data: [u64; EVENT_WORDS],
}

/// Words of [`Event::data`].
pub const EVENT_WORDS: usize = 10;

/// Values of [`Event::kind`].
pub mod event_kind {
    /// A packet was dropped.
    pub const DROP: u8 = 0;
    /// A connection was recorded.
    pub const BEGIN: u8 = 1;
    /// A connection was removed because its tuple is used anew or its backend is gone.
    pub const END: u8 = 2;
}

/// Values of [`Event::hook`].
pub mod event_hook {
    /// XDP.
    pub const XDP: u8 = 0;
    /// tc ingress.
    pub const INGRESS: u8 = 1;
    /// tc egress.
    pub const EGRESS: u8 = 2;
}

/// One direction of a connection; addresses of 4 bytes stand at the beginning.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventFlow {
    /// Source of the packets.
    pub src: [u8; 16],
    /// Destination.
    pub dst: [u8; 16],
    /// Their new source.
    pub new_src: [u8; 16],
    /// Their new destination.
    pub new_dst: [u8; 16],
    /// Source and destination port, new source and new destination port.
    pub ports: [Be16; 4],
    /// IANA protocol number.
    pub proto: u8,
    /// Bits of [`super::flow_flags`].
    pub flags: u8,
    /// Bits of [`super::flow_state`].
    pub state: u8,
    /// Always zero.
    pub pad: [u8; 5],
}

const _: () = assert!(size_of::<EventFlow>() == EVENT_WORDS * 8);

impl Event {
    /// Why the packet was dropped.
    pub fn reason(&self) -> Reason {
        Reason::from_index(self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_sampled_and_limited() {
        let mut sent = EventsSent::default();
        let mut admitted = |wanted, now, of| (0..of).filter(|_| sent.admit(wanted, now)).count();
        assert_eq!(admitted(0, 0, 10), 0);
        assert_eq!(admitted(1, 0, 10), 10);
        assert_eq!(admitted(10, 1, 100), 10);
        assert_eq!(admitted(1, 1, 10), 10, "no longer sampled");
        assert_eq!(admitted(1, 2, 2_000), MAX_EVENTS as usize);
        assert_eq!(admitted(1, 3, 7), 7);
    }
}
