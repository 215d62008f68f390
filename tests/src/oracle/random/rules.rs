//! What must hold of a frame before and after, whatever it is: computed here without a line of the code under test.
//!
//! Checksums of random frames are seldom right. What a translation must keep is how wrong they are: the sum over all that a
//! checksum covers, itself included, is the same before and after. What the programs make themselves has to be right.

use std::fmt;

use svc_common::net::proto;

/// What the checksums of a frame say; equal means equally right or wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Sums {
    /// IPv4's header, 0xffff if it is right.
    header: u16,
    /// TCP, UDP, ICMP: 0xffff if it is right. SCTP: zero if it is right. Nothing where there is none.
    transport: Option<Transport>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Sum(u16),
    Crc(u32),
}

impl fmt::Debug for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "header {:#06x}, ", self.header)?;
        match self.transport {
            Some(Transport::Sum(sum)) => write!(f, "transport {sum:#06x}"),
            Some(Transport::Crc(crc)) => write!(f, "transport {crc:#010x}"),
            None => write!(f, "no transport"),
        }
    }
}

impl Sums {
    /// Those of a frame without VLAN tags that is no later piece of a datagram, or of the packet that it carries; nothing if it is
    /// cut short or not IP.
    pub(super) fn of(frame: &[u8]) -> Option<Self> {
        match frame.get(12..14)? {
            [0x08, 0x00] => Self::of_v4(frame.get(14..)?),
            [0x86, 0xdd] => Self::of_v6(frame.get(14..)?),
            _ => None,
        }
    }

    /// Whether they may have become `after` by translation, or by an answer in the frame's place.
    pub(super) fn may_become(&self, after: &Self) -> bool {
        let header = self.header == after.header || after.header == RIGHT;
        let transport = match (self.transport, after.transport) {
            (_, None | Some(Transport::Sum(RIGHT) | Transport::Crc(0))) => true,
            (before, after) => before == after,
        };
        header && transport
    }

    fn of_v4(packet: &[u8]) -> Option<Self> {
        let header_len = usize::from(packet.first()? & 15) * 4;
        let len = usize::from(u16::from_be_bytes(*packet.get(2..)?.first_chunk()?));
        if packet[0] >> 4 != 4 || header_len < 20 || len < header_len {
            return None;
        }
        let (header, body) = (packet.get(..header_len)?, packet.get(header_len..len)?);
        if header[6] & 0x1f != 0 || header[7] != 0 {
            return None;
        }
        if header[9] == proto::IPIP {
            return Self::of_v4(body);
        }
        if header[9] == proto::UDP && is_geneve(body, [0x08, 0x00]) {
            return Self::of_v4(&body[GENEVE..]);
        }
        Some(Self { header: sum(header, 0), transport: transport(header[9], &header[12..20], body) })
    }

    fn of_v6(packet: &[u8]) -> Option<Self> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const AUTHENTICATION: u8 = 51;
        const DESTINATION: u8 = 60;
        let len = 40 + usize::from(u16::from_be_bytes(*packet.get(4..)?.first_chunk()?));
        let (mut next, mut at) = (*packet.get(6)?, 40);
        let packet = packet.get(..len)?;
        while [HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION].contains(&next) {
            let header = packet.get(at..at + 8)?;
            at += match next {
                FRAGMENT if header[2] != 0 || header[3] & 0xf8 != 0 => return None,
                // Another destination may be ahead, which the checksum counts.
                ROUTING => return None,
                FRAGMENT => 8,
                AUTHENTICATION => 4 * (usize::from(header[1]) + 2),
                _ => 8 * (usize::from(header[1]) + 1),
            };
            next = header[0];
        }
        let body = packet.get(at..)?;
        if next == proto::IPV6 {
            return Self::of_v6(body);
        }
        if next == proto::UDP && is_geneve(body, [0x86, 0xdd]) {
            return Self::of_v6(&body[GENEVE..]);
        }
        Some(Self { header: RIGHT, transport: transport(next, &packet[8..40], packet.get(at..)?) })
    }
}

/// Bytes of UDP and Geneve in front of a packet.
const GENEVE: usize = 16;

/// Whether UDP carries a packet with this ether type in Geneve without options, of network zero (RFC 8926 section 3.4).
fn is_geneve(body: &[u8], [high, low]: [u8; 2]) -> bool {
    matches!(body, [_, _, 0x17, 0xc1, _, _, _, _, 0, 0, a, b, ..] if (*a, *b) == (high, low)) && body.len() >= GENEVE
}

/// What the bytes that a right checksum covers add up to.
const RIGHT: u16 = 0xffff;

fn transport(protocol: u8, addresses: &[u8], body: &[u8]) -> Option<Transport> {
    let pseudo = || u32::from(sum(addresses, 0)) + u32::from(protocol) + body.len() as u32;
    match protocol {
        proto::TCP => body.get(16..18).map(|_| Transport::Sum(sum(body, pseudo()))),
        // Zero: there is none.
        proto::UDP => body.get(6..8).filter(|sum| *sum != [0, 0]).map(|_| Transport::Sum(sum(body, pseudo()))),
        proto::ICMP => body.get(2..4).map(|_| Transport::Sum(sum(body, 0))),
        proto::ICMPV6 => body.get(2..4).map(|_| Transport::Sum(sum(body, pseudo()))),
        proto::SCTP => {
            // Zero: there is none (RFC 9653).
            let found = Some(u32::from_le_bytes(*body.get(8..)?.first_chunk()?)).filter(|found| *found != 0)?;
            let zeroed = body[..8].iter().chain(&[0; 4]).chain(&body[12..]);
            Some(Transport::Crc(crc32c(zeroed.copied()) ^ found))
        }
        _ => None,
    }
}

/// The Internet checksum's sum (RFC 1071); zero and 0xffff are the same number.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |low| u64::from(*low)));
    let total = u64::from(start) + words.sum::<u64>();
    match (total % 0xffff) as u16 {
        0 => RIGHT,
        rest => rest,
    }
}

/// CRC32c, a bit at a time (RFC 9260, appendix A).
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x82f6_3b78 };
    !bytes.fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Frame;

    #[test]
    fn frames_of_the_builder_are_right_and_any_changed_byte_shows() {
        for frame in [
            Frame::tcp("198.51.100.7:40000", "10.96.0.10:80"),
            Frame::udp("198.51.100.7:40000", "10.96.0.10:80"),
            Frame::tcp("[2001:db8::7]:40000", "[fd00:96::10]:80"),
            Frame::udp("[2001:db8::7]:40000", "[fd00:96::10]:80"),
        ] {
            let frame = frame.payload(b"seven b").build();
            let right = Sums::of(&frame).unwrap();
            assert!(right.header == RIGHT && right.transport == Some(Transport::Sum(RIGHT)), "{right:?}");
            let v4 = frame[12] == 0x08;
            // Lengths and protocol decide what is covered; flow label and hop limit are not.
            for at in (if v4 { 26 } else { 22 })..frame.len() {
                let mut wrong = frame.clone();
                wrong[at] ^= 0x10;
                let wrong = Sums::of(&wrong);
                assert!(wrong.is_none_or(|wrong| !right.may_become(&wrong)), "byte {at}: {wrong:?}");
            }
        }
    }

    #[test]
    fn the_crc_is_that_of_the_standard() {
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
    }
}
