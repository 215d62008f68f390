//! Who talks to whom: addresses that mean something in the oracle's world, and what a frame says of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use svc_common::net::proto;

use super::dice::Dice;

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(a: u16, b: u16, c: u16, d: u16, h: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, h))
}

/// Clients outside, pods here and elsewhere, one of them a backend (hairpin).
const CLIENTS: [&[IpAddr]; 2] = [
    &[v4(198, 51, 100, 7), v4(198, 51, 100, 8), v4(10, 244, 1, 5), v4(10, 244, 2, 5), v4(192, 0, 2, 10)],
    &[
        v6(0x2001, 0xdb8, 7, 0, 7),
        v6(0x2001, 0xdb8, 7, 0, 8),
        v6(0xfd00, 0x244, 1, 0, 5),
        v6(0xfd00, 0x244, 2, 0, 5),
        v6(0x2001, 0xdb8, 0, 0, 0x10),
    ],
];

/// Sources that no client has.
const ODD: [&[IpAddr]; 2] = [&[v4(127, 0, 0, 1), v4(127, 255, 0, 9)], &[v6(0, 0, 0, 0, 1)]];

/// Addresses of these networks that no service has.
const UNASSIGNED: [IpAddr; 2] = [v4(10, 96, 0, 99), v6(0xfd00, 0x96, 0, 0, 0x99)];

/// Where ClusterIPs are taken from: address and mask of each family.
pub(super) const NETWORK_V4: ([u8; 4], [u8; 4]) = ([10, 96, 0, 0], [255, 255, 0, 0]);
pub(super) const NETWORK_V6: ([u8; 16], [u8; 16]) = (
    [0xfd, 0, 0, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0],
);

/// Networks that a load balancer's address may serve, and how many bits of each count.
pub(super) const RANGES: [&[(IpAddr, u8)]; 2] = [
    &[(v4(198, 51, 100, 7), 32), (v4(198, 51, 100, 0), 24), (v4(198, 51, 96, 0), 21), (v4(0, 0, 0, 0), 0)],
    &[
        (v6(0x2001, 0xdb8, 7, 0, 7), 128),
        (v6(0x2001, 0xdb8, 7, 0, 0), 64),
        (v6(0x2001, 0xdb8, 0, 0, 0), 31),
        (v6(0, 0, 0, 0, 0), 0),
    ],
];

/// ClusterIP, node address, ClusterIP, address of a load balancer.
pub(super) const VIPS: [&[IpAddr]; 2] = [
    &[v4(10, 96, 0, 10), v4(192, 0, 2, 10), v4(10, 96, 0, 20), v4(203, 0, 113, 5)],
    &[
        v6(0xfd00, 0x96, 0, 0, 0x10),
        v6(0x2001, 0xdb8, 0, 0, 0x10),
        v6(0xfd00, 0x96, 0, 0, 0x20),
        v6(0x2001, 0xdb8, 0x113, 0, 5),
    ],
];

/// Endpoints: on this node, on others, and behind a router that the kernel does not know at first.
pub(super) const BACKENDS: [&[(IpAddr, u16)]; 2] = [
    &[
        (v4(10, 244, 1, 5), 8080),
        (v4(10, 244, 2, 5), 8080),
        (v4(10, 244, 2, 6), 8081),
        (v4(10, 244, 3, 5), 80),
        (v4(192, 0, 2, 10), 9000),
    ],
    &[
        (v6(0xfd00, 0x244, 1, 0, 5), 8080),
        (v6(0xfd00, 0x244, 2, 0, 5), 8080),
        (v6(0xfd00, 0x244, 2, 0, 6), 8081),
        (v6(0xfd00, 0x244, 3, 0, 5), 80),
        (v6(0x2001, 0xdb8, 0, 0, 0x10), 9000),
    ],
];

/// The port of every frontend.
pub(super) const PORT: u16 = 80;

/// Two ends and what they speak.
#[derive(Clone, Copy, Debug)]
pub(super) struct Talk {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) sport: u16,
    pub(super) dport: u16,
    pub(super) proto: u8,
}

impl Talk {
    /// A client towards a frontend, mostly.
    pub(super) fn new(dice: &mut Dice<'_>) -> Self {
        let family = dice.below(2);
        let backend = dice.pick(BACKENDS[family]);
        let src = if dice.one_in(40) { dice.pick(ODD[family]) } else { dice.pick(CLIENTS[family]) };
        let (dst, dport) = match dice.below(16) {
            0 => backend,
            1 => (dice.pick(CLIENTS[family]), PORT),
            2 => (dice.pick(VIPS[family]), dice.pick(&[81, 8080, 443])),
            3 if dice.one_in(4) => (UNASSIGNED[family], PORT),
            _ => (dice.pick(VIPS[family]), PORT),
        };
        let sport = match dice.below(24) {
            0 => dice.pick(&[0, 1, 80, 1024, 8080, 29_999, 30_000, 0xffff]),
            _ => 20_000 + dice.below(8) as u16,
        };
        let icmp = if family == 0 { proto::ICMP } else { proto::ICMPV6 };
        let proto = match dice.below(20) {
            0..8 => proto::TCP,
            8..14 => proto::UDP,
            14..17 => proto::SCTP,
            17..19 => icmp,
            _ => dice.pick(&[proto::ICMP, proto::ICMPV6, 4, 41, 47, 50, 136, 255]),
        };
        Self { src, dst, sport, dport, proto }
    }

    /// What a frame without IPv6 extension headers says.
    pub(super) fn of(frame: &[u8]) -> Option<Self> {
        let (src, dst, proto, l4) = match frame.get(12..14)? {
            [0x08, 0x00] => {
                let address = |at: usize| Some(IpAddr::from(*frame.get(at..)?.first_chunk::<4>()?));
                let header_len = usize::from(frame.get(14)? & 15) * 4;
                (address(26)?, address(30)?, *frame.get(23)?, 14 + header_len)
            }
            [0x86, 0xdd] => {
                let address = |at: usize| Some(IpAddr::from(*frame.get(at..)?.first_chunk::<16>()?));
                (address(22)?, address(38)?, *frame.get(20)?, 54)
            }
            _ => return None,
        };
        let ports = frame.get(l4..)?.first_chunk::<4>()?;
        let [sport, dport] = [[ports[0], ports[1]], [ports[2], ports[3]]].map(u16::from_be_bytes);
        Some(Self { src, dst, sport, dport, proto })
    }

    /// The other way round.
    pub(super) fn reverse(self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, proto: self.proto }
    }
}
