//! SCTP (RFC 9260).

use super::Ports;

/// An SCTP common header.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SctpHeader {
    /// Both ports.
    pub ports: Ports,
    /// Verification tag.
    pub tag: [u8; 4],
    /// CRC32c of the packet with this field zero, least significant byte first. All zero where the sender's NIC computes
    /// it, or where the association goes without (RFC 9653).
    pub checksum: [u8; 4],
}

/// The beginning of a chunk.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SctpChunk {
    /// One of [`sctp_chunk`], or another.
    pub kind: u8,
    /// Flags of its own.
    pub flags: u8,
    /// Bytes, these included.
    pub len: [u8; 2],
}

/// Values of [`SctpChunk::kind`].
pub mod sctp_chunk {
    /// Opens an association.
    pub const INIT: u8 = 1;
    /// Answers that.
    pub const INIT_ACK: u8 = 2;
    /// Ends the association at once.
    pub const ABORT: u8 = 6;
    /// No more data from the sender.
    pub const SHUTDOWN: u8 = 7;
    /// Answers that.
    pub const SHUTDOWN_ACK: u8 = 8;
    /// Answers that.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}
