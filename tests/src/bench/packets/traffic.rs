//! Which frames the driver makes, and what the tables have to hold for them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use svc_common::net::proto;

use crate::packet::Frame;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Version {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// As tables call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The address whose last 32 bits these are; IPv6 has one network for all of them.
    pub fn addr(self, low: u32) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::from_bits(low)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8_000b << 80) | u128::from(low))),
        }
    }
}

/// The lowest of the VIPs: service `n` has the address behind this one by `n`.
pub const VIP: u32 = u32::from_be_bytes([10, 96, 0, 1]);
/// The port of every service.
pub const VIP_PORT: u16 = 80;
/// The port of every backend.
pub const BACKEND_PORT: u16 = 8080;
/// The lowest address of a backend; far from this node.
pub const BACKEND: u32 = u32::from_be_bytes([10, 244, 128, 1]);
/// Connections of one client, whose ports begin at [`CLIENT_PORT`].
const PORTS: u32 = 1 << 14;
const CLIENT_PORT: u16 = 1024;

/// Packets of many connections.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Their family.
    pub version: Version,
    /// TCP or UDP.
    pub proto: u8,
    /// Whether TCP opens connections.
    pub syn: bool,
    /// Whether the other end is the source.
    pub answers: bool,
    /// The lowest client address.
    pub client: u32,
    /// The lowest address of the other end, its number of addresses, its port.
    pub other: (u32, u32, u16),
}

impl Traffic {
    /// TCP from clients to so many services.
    pub const fn tcp(version: Version, client: u32, services: u32) -> Self {
        let other = (VIP, services, VIP_PORT);
        Self { version, proto: proto::TCP, syn: false, answers: false, client, other }
    }

    /// The client and the other end of a connection.
    pub fn ends(&self, flow: u32) -> (SocketAddr, SocketAddr) {
        let (lowest, count, port) = self.other;
        let other = lowest + ((u64::from(flow.wrapping_mul(SPREAD)) * u64::from(count)) >> 32) as u32;
        let client_port = CLIENT_PORT + (flow % PORTS) as u16;
        (
            SocketAddr::new(self.version.addr(self.client + flow / PORTS), client_port),
            SocketAddr::new(self.version.addr(other), port),
        )
    }

    /// Source and destination of its packets.
    pub fn tuple(&self, flow: u32) -> (SocketAddr, SocketAddr) {
        let (client, other) = self.ends(flow);
        if self.answers { (other, client) } else { (client, other) }
    }

    /// A packet: 60 bytes with IPv4 and 80 with IPv6; a SYN has nothing behind its headers.
    pub fn frame(&self) -> Vec<u8> {
        let (src, dst) = self.tuple(0);
        let (src, dst) = (src.to_string(), dst.to_string());
        match (self.proto, self.syn) {
            (proto::UDP, _) => Frame::udp(&src, &dst).payload(b"eighteen bytes of!").build(),
            (_, true) => Frame::syn(&src, &dst).build(),
            (_, false) => Frame::tcp(&src, &dst).payload(b"6bytes").build(),
        }
    }

    /// What the driver needs for `flows` connections, a power of two, the first frame being number `next`.
    pub fn drive(&self, flows: u32, next: u64) -> Drive {
        let frame = self.frame();
        let (mask, bits) = (flows - 1, flows.trailing_zeros());
        // Source, destination and ports behind the Ethernet header; the last word of each address.
        let (src, dst, ports) = match self.version {
            Version::V4 => (3, 4, 5),
            Version::V6 => (5, 9, 10),
        };
        let (client, other) = if self.answers { (dst, src) } else { (src, dst) };
        let (lowest, count, port) = self.other;
        // In memory the source port comes first, in the low half of a little-endian word.
        let (client_shift, other_shift) = if self.answers { (16, 0) } else { (0, 16) };
        let mut words = vec![next as u32, (next >> 32) as u32, mask, (bits / 2).max(1), frame.len() as u32];
        words.extend([client, self.client, other, lowest, count]);
        words.extend([ports, u32::from(port.to_be()) << other_shift, client_shift, u32::from(CLIENT_PORT)]);
        let (head, rest) = frame.split_at(14);
        words.extend(self::words(&head[..12]));
        words.push(u32::from(u16::from_ne_bytes([head[12], head[13]])));
        words.extend(self::words(rest).take(16));
        let mut drive = [0; DRIVE_WORDS];
        drive[..words.len()].copy_from_slice(&words);
        drive
    }
}

/// Spreads flows over services; the driver has the same.
const SPREAD: u32 = 0x9e37_79b1;

/// Words of the driver's settings.
pub const DRIVE_WORDS: usize = 34;

/// `struct Drive` of the driver (tests/ebpf/src/drive.rs).
pub type Drive = [u32; DRIVE_WORDS];

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks(4).map(|chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        u32::from_ne_bytes(word)
    })
}

/// The least that the limit programs have to remember: new destination and checksum differences. The values do not matter
/// for the time they take.
pub fn limit_rewrite() -> ([u32; 3], [u32; 6]) {
    let end = [u32::from(BACKEND_PORT.to_be()) | 0x0101 << 16, 0x0202_0303];
    let dst = BACKEND.to_be();
    ([dst, end[0], end[1]], [dst, dst, dst, dst, end[0], end[1]])
}
