//! IPv6 extension headers (RFC 8200 section 4, RFC 4302).

use super::{OFFSETS, Piece};
use crate::{
    packet::Packet,
    parse::{Parsed, Unparsed},
    wire::{ExtensionHeader, ipv6_next},
};

/// Extension headers that are followed. Packets with more pass untouched, and so do those whose transport header would
/// begin behind byte [`OFFSETS`] of the frame.
pub const MAX_HEADERS: u32 = 12;

/// Follows the extension headers from `parsed.l4` on, of which `next` is the first, up to the transport header: its
/// protocol. In a later piece of a datagram nothing follows the Fragment header.
///
/// # Errors
/// [`Unparsed::Malformed`] if the packet ends before a header does. [`Unparsed::ExtensionHeader`] beyond the bounds, for a
/// second Fragment header, and for a Routing header with segments left: the destination is not yet the one that the
/// transport checksum is about (RFC 8200 section 8.1).
#[inline(always)]
pub fn walk<P: Packet>(
    pkt: &mut P,
    mut next: u8,
    parsed: &mut Parsed<[u8; 16]>,
    piece: &mut Piece,
) -> Result<u8, Unparsed> {
    let (mut offset, mut left) = (parsed.l4, parsed.l4_len);
    let mut fragment = false;
    for headers in 0..=MAX_HEADERS {
        match next {
            ipv6_next::HOP_BY_HOP
            | ipv6_next::ROUTING
            | ipv6_next::FRAGMENT
            | ipv6_next::AUTHENTICATION
            | ipv6_next::DESTINATION => {}
            _ => {
                parsed.l4 = offset;
                parsed.l4_len = left;
                return Ok(next);
            }
        }
        if headers == MAX_HEADERS {
            break;
        }
        let header = *pkt.header_mut::<ExtensionHeader>((offset & OFFSETS) as usize)?;
        let len = header.len_bytes(next);
        if left < len {
            return Err(Unparsed::Malformed);
        }
        (offset, left) = (offset + len, left - len);
        if offset > OFFSETS {
            return Err(Unparsed::ExtensionHeader);
        }
        let [high, low] = header.specific;
        if next == ipv6_next::ROUTING && low != 0 {
            return Err(Unparsed::ExtensionHeader);
        }
        if next == ipv6_next::FRAGMENT {
            if fragment {
                return Err(Unparsed::ExtensionHeader);
            }
            fragment = true;
            let bits = u16::from_be_bytes([high, low]);
            *piece = Piece::new(u32::from_be_bytes(header.id), 0, bits >> 3, bits & 1 != 0);
            if piece.offset != 0 {
                parsed.l4 = offset;
                parsed.l4_len = left;
                return Ok(header.next_header);
            }
        }
        next = header.next_header;
    }
    Err(Unparsed::ExtensionHeader)
}
