//! ARP over Ethernet (RFC 826), and how addresses are announced and probed by it (RFC 5227). Pure.

use std::net::Ipv4Addr;

use svc_common::net::{Be16, Mac};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The protocol in Ethernet headers.
pub const ETHER_TYPE: u16 = 0x0806;

/// Every host on the segment.
pub const BROADCAST: Mac = Mac([0xff; 6]);

const ETHERNET: Be16 = Be16::from_host(1);
const IPV4: Be16 = Be16::from_host(0x0800);
const REQUEST: Be16 = Be16::from_host(1);
const REPLY: Be16 = Be16::from_host(2);

/// A message, 28 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Arp {
    hardware: Be16,
    protocol: Be16,
    hardware_len: u8,
    protocol_len: u8,
    operation: Be16,
    sender_mac: Mac,
    sender: [u8; 4],
    target_mac: Mac,
    target: [u8; 4],
}

/// What a message means to somebody who answers for addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Who has this address?
    Asked {
        /// The address.
        target: Ipv4Addr,
    },
    /// Somebody says to have this address.
    Claimed {
        /// The address.
        addr: Ipv4Addr,
        /// Who.
        by: Mac,
    },
}

impl Arp {
    /// A message without its Ethernet header, which may be followed by padding; `None` if it is none between hosts of an
    /// Ethernet, or cannot have been sent by one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (arp, _padding) = Self::read_from_prefix(bytes).ok()?;
        let shape = (arp.hardware, arp.protocol, arp.hardware_len, arp.protocol_len);
        (shape == (ETHERNET, IPV4, 6, 4) && is_host(arp.sender_mac)).then_some(arp)
    }

    /// What it means. A request that names the sender itself is an announcement.
    pub fn heard(&self) -> Option<Heard> {
        let (sender, target) = (Ipv4Addr::from(self.sender), Ipv4Addr::from(self.target));
        match self.operation {
            REQUEST if sender == target => Some(Heard::Claimed { addr: sender, by: self.sender_mac }),
            REQUEST => Some(Heard::Asked { target }),
            REPLY => Some(Heard::Claimed { addr: sender, by: self.sender_mac }),
            _ => None,
        }
    }

    /// The answer to a request: `own` has the address. It goes to whoever asked, and to nobody else.
    pub fn answer(&self, own: Mac) -> (Mac, Self) {
        let answer = Self {
            operation: REPLY,
            sender_mac: own,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
            ..*self
        };
        (self.sender_mac, answer)
    }

    /// Tells everybody that `own` has the address, in the two forms that are around: some listen to one of them only.
    pub fn announcements(addr: Ipv4Addr, own: Mac) -> [Self; 2] {
        let form = |operation, target_mac| Self {
            hardware: ETHERNET,
            protocol: IPV4,
            hardware_len: 6,
            protocol_len: 4,
            operation,
            sender_mac: own,
            sender: addr.octets(),
            target_mac,
            target: addr.octets(),
        };
        [form(REQUEST, Mac::default()), form(REPLY, own)]
    }
}

/// Whether a host can have this hardware address: neither a group nor nobody.
pub fn is_host(mac: Mac) -> bool {
    let [first, ..] = mac.0;
    first & 1 == 0 && mac != Mac::default()
}

#[cfg(test)]
mod tests {
    use etherparse::{ArpEthIpv4Packet, ArpOperation, ArpPacket};

    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const HOST: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);

    fn made(operation: ArpOperation, mac: Mac, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        ArpPacket::from(ArpEthIpv4Packet {
            operation,
            sender_mac: mac.0,
            sender_ipv4: sender,
            target_mac: [0; 6],
            target_ipv4: target,
        })
        .to_bytes()
        .to_vec()
    }

    #[test]
    fn a_request_is_answered_to_whoever_asked() {
        for sender in [[192, 0, 2, 9], [0; 4]] {
            let mut bytes = made(ArpOperation::REQUEST, HOST, sender, VIP.octets());
            bytes.extend([0; 18]);
            let arp = Arp::parse(&bytes).unwrap();
            assert_eq!(arp.heard(), Some(Heard::Asked { target: VIP }));
            let (to, answer) = arp.answer(OWN);
            assert_eq!(to, HOST);
            let expected = ArpPacket::from(ArpEthIpv4Packet {
                operation: ArpOperation::REPLY,
                sender_mac: OWN.0,
                sender_ipv4: VIP.octets(),
                target_mac: HOST.0,
                target_ipv4: sender,
            });
            assert_eq!(answer.as_bytes(), expected.to_bytes().as_slice());
        }
    }

    #[test]
    fn what_says_to_have_an_address_is_no_question() {
        let claim = Some(Heard::Claimed { addr: VIP, by: HOST });
        for (operation, target) in [
            (ArpOperation::REQUEST, VIP.octets()),
            (ArpOperation::REPLY, [192, 0, 2, 9]),
            (ArpOperation::REPLY, VIP.octets()),
        ] {
            assert_eq!(Arp::parse(&made(operation, HOST, VIP.octets(), target)).unwrap().heard(), claim);
        }
        for arp in Arp::announcements(VIP, OWN) {
            assert_eq!(arp.heard(), Some(Heard::Claimed { addr: VIP, by: OWN }));
        }
        assert_eq!(Arp::parse(&made(ArpOperation(3), HOST, [0; 4], VIP.octets())).unwrap().heard(), None);
    }

    #[test]
    fn what_no_host_sends_is_not_looked_at() {
        let good = made(ArpOperation::REQUEST, HOST, [192, 0, 2, 9], VIP.octets());
        assert!(Arp::parse(&good).is_some());
        for len in 0..28 {
            assert_eq!(Arp::parse(&good[..len]), None, "{len} bytes");
        }
        // Other hardware, another protocol, other lengths.
        for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(Arp::parse(&bad), None, "byte {at}");
        }
        for mac in [BROADCAST, Mac::default(), Mac([0x33, 0x33, 0, 0, 0, 1]), Mac([1, 0, 0x5e, 0, 0, 1])] {
            assert_eq!(Arp::parse(&made(ArpOperation::REQUEST, mac, [192, 0, 2, 9], VIP.octets())), None, "{mac}");
        }
    }
}
