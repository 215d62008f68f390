//! Frames of every kind: as they should be, and as nobody should send them.
//!
//! Built by hand, byte by byte: no library makes the wrong ones. Checksums are anything, as translation has to carry their
//! difference along whatever they are.

use std::net::IpAddr;

use svc_common::net::proto;

use super::{dice::Dice, talk::Talk};
use crate::{
    oracle::{ROUTER_MAC, UPLINK_MAC},
    pieces,
};

/// A frame of a conversation.
pub(super) fn frame(dice: &mut Dice<'_>, talk: &Talk) -> Vec<u8> {
    let transport = transport(dice, talk);
    let packet = packet(dice, talk.src, talk.dst, talk.proto, &transport);
    let mut frame = ethernet(dice, talk.src, &packet);
    disturb(dice, &mut frame);
    frame
}

/// A frame of a conversation inside of another one, as a node sends it to a backend on another one.
pub(super) fn tunnelled(dice: &mut Dice<'_>, talk: &Talk, backend: IpAddr) -> Vec<u8> {
    let (other, proto, ether_type) = match talk.src {
        IpAddr::V4(_) => (IpAddr::from([192, 0, 2, 20]), proto::IPIP, [0x08, 0x00]),
        IpAddr::V6(_) => (IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x20]), proto::IPV6, [0x86, 0xdd]),
    };
    // A nodePort of the other node, sometimes.
    let talk = &if dice.one_in(3) { Talk { dst: other, ..*talk } } else { *talk };
    let transport = transport(dice, talk);
    let inner = packet(dice, talk.src, talk.dst, talk.proto, &transport);
    let outer = if dice.one_in(2) {
        packet(dice, other, backend, proto, &inner)
    } else {
        let mut geneve = dice.short().to_be_bytes().to_vec();
        geneve.extend(6081_u16.to_be_bytes());
        geneve.extend((inner.len() as u16 + 16).to_be_bytes());
        geneve.extend([0, 0]);
        // Options, flags or another network, which nobody sends here.
        let odd = dice.one_in(8);
        geneve.extend(if odd { [dice.byte(), dice.byte()] } else { [0, 0] });
        geneve.extend(ether_type);
        geneve.extend([0, 0, if odd { dice.byte() } else { 0 }, 0]);
        geneve.extend(inner);
        packet(dice, other, backend, proto::UDP, &geneve)
    };
    let mut frame = ethernet(dice, talk.src, &outer);
    disturb(dice, &mut frame);
    frame
}

/// A piece of one of a few datagrams, whose other pieces come at other times, in any order.
pub(super) fn piece(dice: &mut Dice<'_>) -> Vec<u8> {
    const DATAGRAMS: usize = 24;
    let which = dice.below(DATAGRAMS);
    let pieces = pieces(&mut Dice::Seed(which as u64), which as u32);
    dice.pick(&pieces.iter().map(Vec::as_slice).collect::<Vec<_>>()).to_vec()
}

fn pieces(dice: &mut Dice<'_>, id: u32) -> Vec<Vec<u8>> {
    let talk = &Talk::new(dice);
    let transport = transport(dice, talk);
    let mut whole = [UPLINK_MAC, ROUTER_MAC].concat();
    let len = transport.len() as u16;
    match (talk.src, talk.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            whole.extend([0x08, 0x00, 0x45, 0]);
            whole.extend((20 + len).to_be_bytes());
            whole.extend([0, 0, 0, 0, 64, talk.proto, 0, 0]);
            whole.extend(src.octets());
            whole.extend(dst.octets());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            whole.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            whole.extend(len.to_be_bytes());
            whole.extend([talk.proto, 64]);
            whole.extend(src.octets());
            whole.extend(dst.octets());
        }
        _ => {}
    }
    whole.extend(transport);
    let size = dice.pick(&[8, 16, 24, 520, 1_280]);
    let mut pieces = pieces::pieces(&whole, size, id);
    // Those behind a few are like these.
    pieces.truncate(5);
    pieces
}

/// An ICMP error about a frame, from somebody on its way or from where it went.
pub(super) fn error(dice: &mut Dice<'_>, about: &[u8]) -> Option<Vec<u8>> {
    let talk = Talk::of(about)?;
    let packet_len = about.len().saturating_sub(14);
    let quoted = match dice.below(4) {
        0 => packet_len,
        1 => dice.below(packet_len + 1),
        // The header and 8 bytes (RFC 792), the least.
        _ => packet_len.min(if talk.src.is_ipv4() { 28 } else { 48 }),
    };
    let (router, proto, kind, code) = match talk.src {
        IpAddr::V4(_) => (
            IpAddr::from([192, 0, 2, 20]),
            proto::ICMP,
            dice.pick(&[3, 3, 3, 11, 12, 4, 5, 0]),
            dice.pick(&[4, 4, 1, 3, 0, 13]),
        ),
        IpAddr::V6(_) => (
            IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x20]),
            proto::ICMPV6,
            dice.pick(&[2, 2, 1, 3, 4, 0, 137]),
            dice.pick(&[0, 0, 4, 1, 3]),
        ),
    };
    let sender = if dice.one_in(3) { talk.dst } else { router };
    let mut message = vec![kind, code];
    message.extend(dice.short().to_be_bytes());
    message.extend([0, 0]);
    message.extend(dice.pick(&[1300_u16, 1280, 576, 68, 0, 0xffff]).to_be_bytes());
    message.extend(about.get(14..14 + quoted)?);
    let packet = packet(dice, sender, talk.src, proto, &message);
    let mut frame = ethernet(dice, talk.src, &packet);
    disturb(dice, &mut frame);
    Some(frame)
}

/// The transport header and payload.
fn transport(dice: &mut Dice<'_>, talk: &Talk) -> Vec<u8> {
    let payload = match dice.below(16) {
        0 => 0,
        1 => 1_400 + dice.below(200),
        2 => dice.below(1_400),
        _ => dice.below(40),
    };
    let mut bytes = Vec::new();
    match talk.proto {
        proto::TCP => {
            ports(&mut bytes, talk);
            bytes.extend(dice.word().to_be_bytes());
            let words = if dice.one_in(8) { dice.below(16) as u8 } else { 5 };
            let flags = match dice.below(12) {
                0..3 => 0x02,
                3 => 0x12,
                4 => 0x11,
                5 => 0x04,
                6 => dice.byte(),
                _ => 0x10,
            };
            bytes.extend([words << 4, flags, 0xff, 0xff]);
            checksum(dice, &mut bytes);
            bytes.extend([0, 0]);
            bytes.resize(bytes.len().max(usize::from(words) * 4), 1);
        }
        proto::UDP => {
            ports(&mut bytes, talk);
            let len = if dice.one_in(16) { dice.short() } else { 8 + payload as u16 };
            bytes.extend(len.to_be_bytes());
            checksum(dice, &mut bytes);
        }
        proto::SCTP => {
            ports(&mut bytes, talk);
            bytes.extend(dice.word().to_be_bytes());
            // A chunk: INIT, INIT ACK, ABORT, SHUTDOWN COMPLETE, DATA, or anything.
            let kind = dice.pick(&[1, 2, 6, 14, 0, 10, 11]);
            bytes.extend([kind, dice.byte() & 1]);
            bytes.extend((4 + payload as u16).to_be_bytes());
        }
        proto::ICMP | proto::ICMPV6 => {
            let echo: &[u8] = if talk.proto == proto::ICMP { &[8, 8, 0, 13, 17] } else { &[128, 128, 129, 135, 136] };
            bytes.extend([dice.pick(echo), if dice.one_in(8) { dice.byte() } else { 0 }]);
            checksum(dice, &mut bytes);
            bytes.extend(talk.sport.to_be_bytes());
            bytes.extend([0, 1]);
        }
        _ => bytes.extend(dice.bytes(8)),
    }
    let start = bytes.len();
    bytes.resize(start + payload, 0);
    for (at, byte) in bytes[start..].iter_mut().enumerate() {
        *byte = at as u8;
    }
    bytes
}

fn ports(bytes: &mut Vec<u8>, talk: &Talk) {
    bytes.extend(talk.sport.to_be_bytes());
    bytes.extend(talk.dport.to_be_bytes());
}

fn checksum(dice: &mut Dice<'_>, bytes: &mut Vec<u8>) {
    let checksum = match dice.below(8) {
        0 => 0,
        1 => 0xffff,
        _ => dice.short(),
    };
    bytes.extend(checksum.to_be_bytes());
}

fn ttl(dice: &mut Dice<'_>) -> u8 {
    if dice.one_in(16) { dice.below(3) as u8 } else { 64 }
}

/// The IP header, with options or extension headers, and the transport.
fn packet(dice: &mut Dice<'_>, src: IpAddr, dst: IpAddr, proto: u8, transport: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let options = if dice.one_in(10) { dice.below(11) * 4 } else { 0 };
            let len = 20 + options + transport.len();
            let len = if dice.one_in(24) { dice.below(len + 20) } else { len };
            let mut bytes = vec![0x45 + (options / 4) as u8, 0];
            bytes.extend((len as u16).to_be_bytes());
            bytes.extend([0x42, dice.below(4) as u8]);
            let fragment: u16 = match dice.below(24) {
                0 => 0x2000,
                1 => 0x2001 + dice.below(4) as u16,
                2 => 1 + dice.below(4) as u16,
                3 => dice.short(),
                4..12 => 0,
                _ => 0x4000,
            };
            bytes.extend(fragment.to_be_bytes());
            bytes.extend([ttl(dice), proto]);
            bytes.extend(dice.short().to_be_bytes());
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
            bytes.extend(dice.bytes(options));
            bytes.extend(transport);
            bytes
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let (first, extensions) = extensions(dice, proto);
            let len = extensions.len() + transport.len();
            let len = if dice.one_in(24) { dice.below(len + 20) } else { len };
            let mut bytes = vec![0x60, 0, dice.byte(), dice.byte()];
            bytes.extend((len as u16).to_be_bytes());
            bytes.extend([first, ttl(dice)]);
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
            bytes.extend(extensions);
            bytes.extend(transport);
            bytes
        }
        // A fuzzer's bytes may ask for it.
        _ => Vec::new(),
    }
}

/// Extension headers in front of `proto`, and the number of the first.
fn extensions(dice: &mut Dice<'_>, proto: u8) -> (u8, Vec<u8>) {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;
    if !dice.one_in(5) {
        return (proto, Vec::new());
    }
    let most = if dice.one_in(8) { 12 } else { 3 };
    let kinds: Vec<u8> = (0..1 + dice.below(most))
        .map(|_| dice.pick(&[FRAGMENT, FRAGMENT, HOP_BY_HOP, DESTINATION, ROUTING, AUTHENTICATION]))
        .collect();
    let mut bytes = Vec::new();
    for (at, kind) in kinds.iter().enumerate() {
        bytes.push(kinds.get(at + 1).copied().unwrap_or(proto));
        let units = if dice.one_in(6) { dice.below(4) as u8 } else { 0 };
        match *kind {
            FRAGMENT => {
                bytes.push(0);
                let offset: u16 = dice.pick(&[1, 1, 0, 8, 9, 16, 0xfff8]);
                bytes.extend(offset.to_be_bytes());
                bytes.extend([0, 0, 0, dice.below(4) as u8]);
            }
            AUTHENTICATION => {
                // In words of 4 bytes, less two.
                bytes.push(units + 1);
                bytes.extend(dice.bytes(4 * (usize::from(units) + 3) - 2));
            }
            _ => {
                bytes.push(units);
                bytes.extend(vec![dice.pick(&[0, 0, 4]); 8 * (usize::from(units) + 1) - 2]);
            }
        }
    }
    (kinds[0], bytes)
}

fn ethernet(dice: &mut Dice<'_>, src: IpAddr, packet: &[u8]) -> Vec<u8> {
    let mut frame = [UPLINK_MAC, ROUTER_MAC].concat();
    if dice.one_in(40) {
        let tags = 1 + dice.below(3);
        for _ in 0..tags {
            frame.extend(dice.pick(&[[0x81, 0x00], [0x88, 0xa8]]));
            frame.extend([0, dice.below(3) as u8]);
        }
    }
    frame.extend(if src.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
    frame.extend(packet);
    if dice.one_in(16) {
        // What Ethernet adds to reach its least length.
        frame.resize(frame.len().max(60), 0);
    }
    frame
}

/// Cuts, prolongs and flips, rarely. The addresses stay: the host knows routes to these alone.
fn disturb(dice: &mut Dice<'_>, frame: &mut Vec<u8>) {
    if dice.one_in(24) {
        let len = dice.below(frame.len() + 1);
        frame.truncate(len.max(14));
    }
    if dice.one_in(40) {
        let more = dice.below(40);
        frame.extend(dice.bytes(more));
    }
    if dice.one_in(10) {
        let addresses = if frame.get(12) == Some(&0x08) { 26..34 } else { 22..54 };
        for _ in 0..1 + dice.below(3) {
            let at = 12 + dice.below(frame.len().min(120) - 11);
            if let (Some(byte), false) = (frame.get_mut(at), addresses.contains(&at)) {
                *byte = if dice.one_in(2) { *byte ^ (1 << dice.below(8)) } else { dice.byte() };
            }
        }
    }
}
