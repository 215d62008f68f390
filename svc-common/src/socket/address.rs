//! Addresses as sockets have them: IPv4 as such, or mapped into IPv6.

use crate::{
    family::{Family, V4, V6},
    maps::{Peer, SocketConfig},
    net::Be16,
};

/// The beginning of mapped addresses (RFC 4291 2.5.5.2), in memory order.
const MAPPED: u64 = 0;
const MAPPED_LOW: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// What differs between the families for sockets.
pub trait Mapped: Family {
    /// The address as [`Peer`] has it.
    fn widen(addr: &Self::Addr) -> [u8; 16];

    /// The inverse of [`Self::widen`].
    fn narrow(addr: &[u8; 16]) -> Self::Addr;

    /// The node's address that stands for loopback addresses; the default if there is none.
    fn stand_in(config: &SocketConfig) -> Self::Addr;

    /// What a network namespace is called as a client: an address that nobody has, as which its sockets will have is not
    /// known before they are routed.
    fn client(netns: u64) -> Self::Addr;
}

impl Mapped for V4 {
    #[inline(always)]
    fn widen(addr: &[u8; 4]) -> [u8; 16] {
        let [a, b, c, d] = *addr;
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
    }

    #[inline(always)]
    fn narrow(addr: &[u8; 16]) -> [u8; 4] {
        let [.., a, b, c, d] = *addr;
        [a, b, c, d]
    }

    #[inline(always)]
    fn stand_in(config: &SocketConfig) -> [u8; 4] {
        config.v4
    }

    #[inline(always)]
    fn client(netns: u64) -> [u8; 4] {
        // "This network" (RFC 1122 3.2.1.3); cookies count up from one.
        (netns as u32 & 0x00ff_ffff).to_be_bytes()
    }
}

impl Mapped for V6 {
    #[inline(always)]
    fn widen(addr: &[u8; 16]) -> [u8; 16] {
        *addr
    }

    #[inline(always)]
    fn narrow(addr: &[u8; 16]) -> [u8; 16] {
        *addr
    }

    #[inline(always)]
    fn stand_in(config: &SocketConfig) -> [u8; 16] {
        config.v6
    }

    #[inline(always)]
    fn client(netns: u64) -> [u8; 16] {
        // Below the unspecified address's own prefix.
        zerocopy::transmute!([0_u64, netns.to_be()])
    }
}

impl Peer {
    /// A peer on one side.
    #[inline(always)]
    pub const fn new(addr: [u8; 16], port: Be16, side: u8) -> Self {
        Self { addr, port, side, pad: 0 }
    }

    /// The same address and port on another side.
    #[inline(always)]
    pub const fn on(mut self, side: u8) -> Self {
        self.side = side;
        self
    }

    /// Whether the address is of IPv4.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        let [first, second]: [u64; 2] = zerocopy::transmute!(self.addr);
        // The first half of the second word, as it lies in memory.
        let [low, _]: [u32; 2] = zerocopy::transmute!(second);
        first == MAPPED && low == MAPPED_LOW
    }

    /// Whether there is a peer.
    #[inline(always)]
    pub fn is_some(&self) -> bool {
        self.port != Be16::default()
    }
}
