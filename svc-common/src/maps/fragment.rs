//! Datagrams that come in pieces: what their first piece said, and pieces that came before it.

use crate::wire::Ports;

/// Which datagram a fragment belongs to; the key of `FRAGMENTS_V4` and `FRAGMENTS_V6`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DatagramKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Identification.
    pub id: u32,
    /// IANA protocol number in IPv4; zero in IPv6, where later pieces need not know it.
    pub proto: u8,
    /// Keys are compared byte by byte: always zero.
    pub pad: [u8; 3],
}

/// Value of `FRAGMENTS_V4` and `FRAGMENTS_V6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Datagram {
    /// The ports, if `state` is [`datagram_state::KNOWN`].
    pub ports: Ports,
    /// [`crate::maps::Clock`] seconds when its first piece came, or before that the first of the held ones.
    pub since_s: u32,
    /// IANA protocol number of the transport, likewise.
    pub proto: u8,
    /// One of [`datagram_state`].
    pub state: u8,
    /// Pieces that are held.
    pub held: u16,
}

/// Values of [`Datagram::state`].
pub mod datagram_state {
    /// The first piece has not come yet.
    pub const WAITING: u8 = 0;
    /// The first piece said the ports.
    pub const KNOWN: u8 = 1;
    /// Not for us: every piece passes.
    pub const FOREIGN: u8 = 2;
    /// Every piece is dropped.
    pub const REFUSED: u8 = 3;
}

/// Key of `HELD_V4` and `HELD_V6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeldKey<A> {
    /// Its datagram.
    pub datagram: DatagramKey<A>,
    /// Counts the held pieces of a datagram from zero on.
    pub index: u32,
    /// Always zero.
    pub pad: u32,
}

/// Bytes of the longest frame that can be held.
pub const HELD_BYTES: usize = 2040;

/// Value of `HELD_V4` and `HELD_V6`: a frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its length in bytes.
    pub len: u32,
    /// [`crate::maps::Clock`] seconds when it came.
    pub since_s: u32,
    /// The frame, and behind it bytes without meaning.
    pub bytes: [u8; HELD_BYTES],
}

impl Default for Held {
    fn default() -> Self {
        Self { len: 0, since_s: 0, bytes: [0; HELD_BYTES] }
    }
}
