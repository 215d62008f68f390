//! Every map: key, value, name, default capacity and layout version.
//!
//! This is the contract between the kernel programs and the agent. Integers without a wire type are in host order.
//! A layout version rises only when old bytes cannot be read any more: a raise forgets what the map held.
#![expect(unsafe_code, reason = "map types are plain bytes; `map_types!` checks what that needs")]

mod connection;
mod event;
mod fragment;
mod node;
mod service;
mod socket;
pub mod spec;
mod sweep;

pub use connection::{Clock, Flow, Scratch, Tuple, flow_flags, flow_state};
pub use event::{EVENT_WORDS, Event, EventFlow, EventsSent, EventsWanted, MAX_EVENTS, event_hook, event_kind};
pub use fragment::{Datagram, DatagramKey, HELD_BYTES, Held, HeldKey, datagram_state};
pub use node::{
    Answers, Cidr, Cidrs, Config, Device, MAX_CIDRS, NewFlows, PORT_WORDS, ServiceCounters, device_class, device_flags,
    encapsulation,
};
pub use service::{
    Affinity, AffinityKey, Backend, Frontend, FrontendKey, RangeKey, SLOTS_PER_ROW, Selection, SlotRow, backend_flags,
    frontend_flags,
};
pub use socket::{Peer, Socket, SocketConfig, SocketKey, SocketNat, peer_side, socket_scope};
pub use spec::{MapSpec, Writer};
pub use sweep::{SWEEP_FLOWS, SWEEP_KEYS, SWEEP_KEYS_FLAT, SWEEP_TIMEOUTS, Timeouts};

/// Plain data that may be copied to and from a map as bytes.
///
/// # Safety
/// `repr(C)`, no padding, any bit pattern valid. `map_types!` checks the size; the fields are chosen so.
pub unsafe trait MapType: Copy + 'static {
    /// The value as bytes.
    fn bytes(&self) -> &[u8] {
        // SAFETY: no padding (trait contract), so every byte is initialised.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }

    /// Reads a value from exactly its size in bytes, at any alignment.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: the length was checked, any bit pattern is valid (trait contract), and the read is unaligned.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

// SAFETY: integers.
unsafe impl MapType for u64 {}
// SAFETY: as above.
unsafe impl MapType for u8 {}

macro_rules! map_types {
    ($($type:ty: $size:literal),* $(,)?) => {
        $(
            const _: () = assert!(size_of::<$type>() == $size);
            // SAFETY: `repr(C)`, integers and byte arrays only; the size is the sum of the fields (tested below).
            unsafe impl MapType for $type {}
            #[cfg(feature = "user")]
            // SAFETY: as above.
            unsafe impl aya::Pod for $type {}
        )*
    };
}

map_types!(
    Tuple<[u8; 4]>: 16, Tuple<[u8; 16]>: 40,
    FrontendKey<[u8; 4]>: 8, FrontendKey<[u8; 16]>: 20,
    Frontend: 20,
    Selection: 8,
    SlotRow: 64,
    Backend<[u8; 4]>: 12, Backend<[u8; 16]>: 24,
    AffinityKey<[u8; 4]>: 12, AffinityKey<[u8; 16]>: 24,
    Affinity: 8,
    RangeKey<[u8; 4]>: 8, RangeKey<[u8; 16]>: 20,
    Cidrs<[u8; 4]>: 32, Cidrs<[u8; 16]>: 128,
    Flow<[u8; 4]>: 64, Flow<[u8; 16]>: 88,
    Device: 32,
    Config: 16,
    Answers: 8,
    NewFlows: 12,
    Timeouts: 32,
    EventsWanted: 8,
    EventsSent: 12,
    Event: 104,
    EventFlow: 80,
    ServiceCounters: 40,
    SocketKey: 32,
    SocketNat: 52,
    Socket: 32,
    SocketConfig: 32,
    DatagramKey<[u8; 4]>: 16, DatagramKey<[u8; 16]>: 40,
    Datagram: 12,
    HeldKey<[u8; 4]>: 24, HeldKey<[u8; 16]>: 48,
    Held: 2048,
    Scratch<[u8; 4]>: 200, Scratch<[u8; 16]>: 296,
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Be16;

    #[test]
    fn names_fit_the_kernels_limit() {
        for map in spec::ALL {
            assert!(map.name.len() <= 15, "{}", map.name);
        }
    }

    #[test]
    fn a_map_type_survives_the_way_through_bytes() {
        let tuple = Tuple {
            src: [10, 0, 0, 1],
            dst: [10, 96, 0, 1],
            sport: Be16::from_host(40_000),
            dport: Be16::from_host(80),
            proto: 6,
            pad: [0; 3],
        };
        assert_eq!(tuple.bytes(), [10, 0, 0, 1, 10, 96, 0, 1, 0x9c, 0x40, 0, 80, 6, 0, 0, 0]);
        assert_eq!(Tuple::from_bytes(tuple.bytes()), Some(tuple));
        assert_eq!(Tuple::<[u8; 4]>::from_bytes(&[0; 15]), None);
        assert_eq!(tuple.reverse().reverse(), tuple);
    }

    #[test]
    fn a_selection_is_one_word() {
        let selection = Selection::new(4096, 1009);
        assert_eq!((selection.offset(), selection.len(), selection.is_empty()), (4096, 1009, false));
        assert!(Selection::REJECT.is_empty() && Selection::DROP.is_empty());
        assert_eq!(Selection::default(), Selection::REJECT);
    }
}
