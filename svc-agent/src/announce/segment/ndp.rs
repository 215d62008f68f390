//! Neighbour solicitations and advertisements (RFC 4861), duplicate address detection with them (RFC 4862). Pure.

use std::net::Ipv6Addr;

use svc_common::{
    csum,
    net::{Be16, Mac, proto},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::arp::is_host;
use crate::sys::packet::Instruction;

/// The protocol in Ethernet headers.
pub const ETHER_TYPE: u16 = 0x86dd;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// No router has sent it on (RFC 4861, 7.1.1).
const HOPS: u8 = 255;
const SOURCE_MAC: u8 = 1;
const TARGET_MAC: u8 = 2;
/// It answers a question.
const SOLICITED: u8 = 0x40;
/// What was known before is to be forgotten.
const OVERRIDE: u8 = 0x20;

/// Lets solicitations and advertisements without extension headers through, and nothing else.
pub const FILTER: &[Instruction] = &[
    instruction(LOAD_BYTE, 0, 0, 6),
    instruction(JUMP_IF, 0, 4, proto::ICMPV6 as u32),
    instruction(LOAD_BYTE, 0, 0, 40),
    instruction(JUMP_IF, 1, 0, SOLICITATION as u32),
    instruction(JUMP_IF, 0, 1, ADVERTISEMENT as u32),
    instruction(RETURN, 0, 0, u32::MAX),
    instruction(RETURN, 0, 0, 0),
];

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const JUMP_IF: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code: code as u16, jt, jf, k }
}

/// The headers of both messages, 64 bytes; options follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
struct Message {
    version: [u8; 4],
    payload_len: Be16,
    next: u8,
    hops: u8,
    source: [u8; 16],
    destination: [u8; 16],
    kind: u8,
    code: u8,
    checksum: [u8; 2],
    flags: u8,
    reserved: [u8; 3],
    target: [u8; 16],
}

/// An option with a hardware address of Ethernet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
struct LinkAddress {
    kind: u8,
    len: u8,
    mac: Mac,
}

/// What a message means to somebody who answers for addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Who has this address?
    Asked {
        /// The address.
        target: Ipv6Addr,
        /// Who wants to know; nobody if it is about to take the address itself.
        by: Option<(Ipv6Addr, Mac)>,
    },
    /// Somebody says to have this address.
    Claimed {
        /// The address.
        addr: Ipv6Addr,
        /// Who.
        by: Mac,
    },
}

/// What an IPv6 packet means; `source` is who sent it by its Ethernet header. `None` for what RFC 4861 says to discard
/// (7.1.1, 7.1.2), and for what is neither of the two messages.
pub fn heard(bytes: &[u8], source: Mac) -> Option<Heard> {
    let (message, _) = Message::read_from_prefix(bytes).ok()?;
    let whole = bytes.get(..size_of::<Message>() - 24 + usize::from(message.payload_len.to_host()))?;
    let (message, options) = Message::read_from_prefix(whole).ok()?;
    let [version, ..] = message.version;
    let (from, to) = (Ipv6Addr::from(message.source), Ipv6Addr::from(message.destination));
    let target = Ipv6Addr::from(message.target);
    let fits = version >> 4 == 6
        && (message.next, message.hops, message.code) == (proto::ICMPV6, HOPS, 0)
        && !target.is_multicast()
        && !from.is_multicast()
        && sum(whole) == 0xffff;
    if !fits || !is_host(source) {
        return None;
    }
    match message.kind {
        SOLICITATION => {
            let told = link_address(options, SOURCE_MAC)?;
            if from.is_unspecified() {
                return (to == group(target) && told.is_none()).then_some(Heard::Asked { target, by: None });
            }
            let mac = told.unwrap_or(source);
            (is_host(mac) && (to == group(target) || to == target))
                .then_some(Heard::Asked { target, by: Some((from, mac)) })
        }
        ADVERTISEMENT => {
            let by = link_address(options, TARGET_MAC)?.unwrap_or(source);
            Some(Heard::Claimed { addr: target, by })
        }
        _ => None,
    }
}

/// The answer that `own` has the target, and where it goes. Who is about to take the address is told with everybody.
pub fn answer(target: Ipv6Addr, by: Option<(Ipv6Addr, Mac)>, own: Mac) -> (Mac, Vec<u8>) {
    match by {
        Some((asker, mac)) => (mac, advertisement(target, asker, SOLICITED | OVERRIDE, own)),
        None => announcement(target, own),
    }
}

/// Tells everybody that `own` has the address.
pub fn announcement(addr: Ipv6Addr, own: Mac) -> (Mac, Vec<u8>) {
    (Mac([0x33, 0x33, 0, 0, 0, 1]), advertisement(addr, ALL_NODES, OVERRIDE, own))
}

/// The group that solicitations for an address are sent to.
pub fn group(addr: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = addr.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// Its source is the address that it is about, as the kernel does it.
fn advertisement(target: Ipv6Addr, to: Ipv6Addr, flags: u8, own: Mac) -> Vec<u8> {
    let mut message = Message {
        version: [0x60, 0, 0, 0],
        payload_len: Be16::from_host(32),
        next: proto::ICMPV6,
        hops: HOPS,
        source: target.octets(),
        destination: to.octets(),
        kind: ADVERTISEMENT,
        code: 0,
        checksum: [0; 2],
        flags,
        reserved: [0; 3],
        target: target.octets(),
    };
    let option = LinkAddress { kind: TARGET_MAC, len: 1, mac: own };
    let bytes = |message: &Message| [message.as_bytes(), option.as_bytes()].concat();
    message.checksum = (!sum(&bytes(&message))).to_be_bytes();
    bytes(&message)
}

/// The hardware address in the options, if it is there; `None` if they are not well formed.
fn link_address(mut options: &[u8], kind: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while !options.is_empty() {
        let len = usize::from(*options.get(1)?) * 8;
        let option = options.get(..len).filter(|option| !option.is_empty())?;
        if let Ok(link) = LinkAddress::read_from_bytes(option)
            && link.kind == kind
        {
            found.get_or_insert(link.mac);
        }
        options = options.get(len..)?;
    }
    Some(found)
}

/// The sum over an IPv6 packet that is ICMPv6 from its 40th byte on, with its pseudo-header: 0xffff if it holds.
fn sum(packet: &[u8]) -> u16 {
    let message = packet.get(40..).unwrap_or_default();
    let words = packet.get(8..40).unwrap_or_default().chunks(2).chain(message.chunks(2));
    let word = |word: &[u8]| match word {
        [high, low, ..] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        [] => 0,
    };
    // At most 65535 bytes, so that it cannot run over.
    csum::fold(words.map(word).sum::<u32>() + message.len() as u32 + u32::from(proto::ICMPV6))
}
