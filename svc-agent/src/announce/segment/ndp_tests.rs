//! Neighbour discovery against another library's packets.

use std::net::Ipv6Addr;

use etherparse::{IcmpEchoHeader, Icmpv6Header, Icmpv6Type, IpNumber, Ipv6Header};
use svc_common::net::Mac;

use super::ndp::{FILTER, Heard, announcement, answer, group, heard};

const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const HOST: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn vip() -> Ipv6Addr {
    "2001:db8::12:3456".parse().unwrap()
}

fn host() -> Ipv6Addr {
    "fe80::9".parse().unwrap()
}

/// A packet that etherparse makes: an ICMPv6 message of a kind with this behind its first eight bytes.
fn packet(kind: u8, from: Ipv6Addr, to: Ipv6Addr, hops: u8, body: &[u8]) -> Vec<u8> {
    let message = Icmpv6Type::Unknown { type_u8: kind, code_u8: 0, bytes5to8: [0; 4] };
    let icmp = Icmpv6Header::with_checksum(message, from.octets(), to.octets(), body).unwrap();
    let ip = Ipv6Header {
        payload_length: (icmp.header_len() + body.len()) as u16,
        next_header: IpNumber::IPV6_ICMP,
        hop_limit: hops,
        source: from.octets(),
        destination: to.octets(),
        ..Ipv6Header::default()
    };
    let mut bytes = Vec::new();
    ip.write(&mut bytes).unwrap();
    icmp.write(&mut bytes).unwrap();
    bytes.extend(body);
    bytes
}

fn body(target: Ipv6Addr, options: &[&[u8]]) -> Vec<u8> {
    [&target.octets()[..], &options.concat()].concat()
}

fn link(kind: u8, mac: Mac) -> Vec<u8> {
    [&[kind, 1], &mac.0[..]].concat()
}

#[test]
fn a_solicitation_asks_for_whoever_sent_it() {
    let other = Mac([2, 0, 0, 0, 0, 7]);
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let asked = |options: &[&[u8]], to| heard(&packet(135, host(), to, 255, &body(vip(), options)), HOST);
    let by = |mac| Some(Heard::Asked { target: vip(), by: Some((host(), mac)) });
    assert_eq!(asked(&[&link(1, other)], group(vip())), by(other));
    assert_eq!(asked(&[&nonce, &link(1, other)], group(vip())), by(other));
    // Whether it still is there: to the address itself, often without an option.
    assert_eq!(asked(&[], vip()), by(HOST));
    // A target's address says nothing of the source.
    assert_eq!(asked(&[&link(2, other)], group(vip())), by(HOST));
}

#[test]
fn who_is_about_to_take_the_address_is_told_with_everybody() {
    let nobody = Ipv6Addr::UNSPECIFIED;
    let packet = packet(135, nobody, group(vip()), 255, &body(vip(), &[]));
    assert_eq!(heard(&packet, HOST), Some(Heard::Asked { target: vip(), by: None }));
    assert_eq!(answer(vip(), None, OWN), announcement(vip(), OWN));
}

#[test]
fn what_is_not_well_formed_is_discarded() {
    let good = |options: &[&[u8]]| packet(135, host(), group(vip()), 255, &body(vip(), options));
    let nobody = Ipv6Addr::UNSPECIFIED;
    let bad = [
        ("hop limit", packet(135, host(), group(vip()), 254, &body(vip(), &[]))),
        ("a group as the target", packet(135, host(), group(vip()), 255, &body("ff02::1".parse().unwrap(), &[]))),
        ("a group as the source", packet(135, "ff02::9".parse().unwrap(), group(vip()), 255, &body(vip(), &[]))),
        ("to another group", packet(135, host(), "ff02::1".parse().unwrap(), 255, &body(vip(), &[]))),
        ("nobody's link address", packet(135, nobody, group(vip()), 255, &body(vip(), &[&link(1, HOST)]))),
        ("nobody, to the address", packet(135, nobody, vip(), 255, &body(vip(), &[]))),
        ("an option of no length", good(&[&[1, 0, 2, 0, 0, 0, 0, 9]])),
        ("an option that ends too late", good(&[&[1, 2, 2, 0, 0, 0, 0, 9]])),
        ("half an option", good(&[&[1, 1, 2, 0]])),
        ("answers to a group", good(&[&link(1, Mac([0x33, 0x33, 0, 0, 0, 1]))])),
        ("another message", packet(128, host(), group(vip()), 255, &body(vip(), &[]))),
        ("IPv4", [&[0x45_u8][..], &good(&[])[1..]].concat()),
    ];
    for (what, packet) in bad {
        assert_eq!(heard(&packet, HOST), None, "{what}");
    }
    let packet = good(&[&link(1, HOST)]);
    assert!(heard(&packet, HOST).is_some());
    assert_eq!(heard(&packet, Mac([1, 0, 0, 0, 0, 1])), None, "sent by a group");
    for len in 0..packet.len() {
        assert_eq!(heard(&packet[..len], HOST), None, "{len} bytes");
    }
    for at in 8..packet.len() {
        let mut damaged = packet.clone();
        damaged[at] ^= 0x10;
        assert_eq!(heard(&damaged, HOST), None, "byte {at}");
    }
    assert_eq!(heard(&[&packet[..], &[0; 30]].concat(), HOST), heard(&packet, HOST), "padding");
}

#[test]
fn answers_are_those_of_another_library() {
    let option = link(2, OWN);
    let expected = |to: Ipv6Addr, flags: u8| {
        let message = Icmpv6Type::Unknown { type_u8: 136, code_u8: 0, bytes5to8: [flags, 0, 0, 0] };
        let body = body(vip(), &[&option]);
        let icmp = Icmpv6Header::with_checksum(message, vip().octets(), to.octets(), &body).unwrap();
        (packet(136, vip(), to, 255, &body), icmp.checksum)
    };
    for ((to, made), (mac, addr, flags)) in [
        (answer(vip(), Some((host(), HOST)), OWN), (HOST, host(), 0x60)),
        (announcement(vip(), OWN), (Mac([0x33, 0x33, 0, 0, 0, 1]), "ff02::1".parse().unwrap(), 0x20)),
    ] {
        let (mut bytes, checksum) = expected(addr, flags);
        bytes[42..45].copy_from_slice(&[checksum.to_be_bytes()[0], checksum.to_be_bytes()[1], flags]);
        assert_eq!((to, made.clone()), (mac, bytes));
        assert_eq!(heard(&made, OWN), Some(Heard::Claimed { addr: vip(), by: OWN }));
    }
    assert_eq!(group(vip()).to_string(), "ff02::1:ff12:3456");
}

/// The instructions as the kernel runs them.
fn passes(packet: &[u8]) -> bool {
    let (mut at, mut byte) = (0, 0);
    loop {
        let instruction = FILTER[at];
        at += 1;
        match u32::from(instruction.code) {
            0x30 => match packet.get(instruction.k as usize) {
                Some(found) => byte = u32::from(*found),
                None => return false,
            },
            0x15 if byte == instruction.k => at += usize::from(instruction.jt),
            0x15 => at += usize::from(instruction.jf),
            0x06 => return instruction.k != 0,
            code => panic!("{code:#x}"),
        }
    }
}

#[test]
fn the_filter_lets_two_kinds_through() {
    for kind in 0..=255 {
        let packet = packet(kind, host(), vip(), 255, &body(vip(), &[]));
        assert_eq!(passes(&packet), matches!(kind, 135 | 136), "{kind}");
    }
    let mut other = packet(135, host(), vip(), 255, &body(vip(), &[]));
    other[6] = 17;
    assert!(!passes(&other) && !passes(&other[..30]));
    let echo = Icmpv6Type::EchoRequest(IcmpEchoHeader { id: 1, seq: 1 });
    assert_eq!(echo.type_u8(), 128);
}
