//! Integers and addresses as they lie on the wire.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Two bytes in network order, alignment 1.
#[repr(transparent)]
#[derive(
    Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct Be16(pub [u8; 2]);

impl Be16 {
    /// Converts from host order.
    #[inline(always)]
    pub const fn from_host(value: u16) -> Self {
        Self(value.to_be_bytes())
    }

    /// Converts to host order.
    #[inline(always)]
    pub const fn to_host(self) -> u16 {
        u16::from_be_bytes(self.0)
    }

    /// The two bytes as they lie in memory, for checksums that are never swapped (RFC 1071).
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        u16::from_ne_bytes(self.0)
    }

    /// The inverse of [`Be16::raw`].
    #[inline(always)]
    pub const fn from_raw(value: u16) -> Self {
        Self(value.to_ne_bytes())
    }
}

impl core::fmt::Debug for Be16 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.to_host(), f)
    }
}

/// An Ethernet address, 6 bytes as on the wire; all zero means unknown.
#[repr(transparent)]
#[derive(
    Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct Mac(pub [u8; 6]);

impl core::fmt::Debug for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl core::fmt::Display for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self, f)
    }
}

/// IANA protocol numbers that the datapath knows.
pub mod proto {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// IPv4 inside of IPv4 (RFC 2003).
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 inside of IPv6 (RFC 2473).
    pub const IPV6: u8 = 41;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}
