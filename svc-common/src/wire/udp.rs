//! UDP (RFC 768).

use super::Ports;
use crate::net::Be16;

/// A UDP header.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpHeader {
    /// Both ports.
    pub ports: Ports,
    /// Bytes of header and payload.
    pub len: Be16,
    /// Checksum; zero means none.
    pub checksum: Be16,
}
