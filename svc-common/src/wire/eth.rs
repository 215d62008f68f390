//! Ethernet II (IEEE 802.3 clause 3).

use crate::net::{Be16, Mac};

/// Bytes of an Ethernet header without tags.
pub const ETH_LEN: usize = 14;

/// An Ethernet header.
#[repr(C, align(2))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EthHeader {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
    /// Ether type.
    pub ether_type: Be16,
}

/// The addresses of an Ethernet header alone, loaded and stored as three words.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MacPair {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
}
