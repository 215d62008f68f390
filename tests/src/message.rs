//! ICMP and ICMPv6 messages for tests, built by `etherparse`.

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv4Options,
    Ipv6FlowLabel, Ipv6Header,
};

/// A description of a message; [`Message::build`] makes the frame.
#[derive(Clone, Debug)]
pub struct Message {
    src_mac: [u8; 6],
    dst_mac: [u8; 6],
    src: IpAddr,
    dst: IpAddr,
    ttl: u8,
    id: u16,
    dont_fragment: bool,
    flow_label: u32,
    options: Vec<u8>,
    kind: u8,
    code: u8,
    rest: [u8; 4],
    payload: Vec<u8>,
}

impl Message {
    /// A message of any type and code.
    pub fn new(src: &str, dst: &str, kind: u8, code: u8) -> Self {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap_or_else(|_| panic!("`{text}` is not an address"));
        let (src, dst) = (ip(src), ip(dst));
        assert_eq!(src.is_ipv4(), dst.is_ipv4(), "one frame has one family");
        Self {
            src_mac: [2, 0, 0, 0, 0, 1],
            dst_mac: [2, 0, 0, 0, 0, 2],
            src,
            dst,
            ttl: 64,
            id: 0x4242,
            dont_fragment: false,
            flow_label: 0x5_4321,
            options: Vec::new(),
            kind,
            code,
            rest: [0; 4],
            payload: Vec::new(),
        }
    }

    /// An error that quotes the first bytes of a frame's IP packet.
    pub fn error(src: &str, dst: &str, (kind, code): (u8, u8), frame: &[u8], quoted: usize) -> Self {
        Self::new(src, dst, kind, code).payload(&frame[14..(14 + quoted).min(frame.len())])
    }

    /// The four bytes behind the checksum.
    pub fn rest(mut self, rest: [u8; 4]) -> Self {
        self.rest = rest;
        self
    }

    /// What the message carries.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Source and destination Ethernet addresses.
    pub fn macs(mut self, src: [u8; 6], dst: [u8; 6]) -> Self {
        (self.src_mac, self.dst_mac) = (src, dst);
        self
    }

    /// TTL or hop limit.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// IPv4 options, a multiple of 4 bytes.
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// An IP header as a host makes it that sends no fragments: no identification, DF, no flow label.
    pub fn plain(mut self) -> Self {
        (self.id, self.dont_fragment, self.flow_label) = (0, true, 0);
        self
    }

    /// The frame, with all checksums complete.
    pub fn build(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ether_type = if self.src.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        Ethernet2Header { source: self.src_mac, destination: self.dst_mac, ether_type }.write(&mut bytes).unwrap();
        let (type_u8, code_u8, bytes5to8) = (self.kind, self.code, self.rest);
        let len = 8 + self.payload.len();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut ip = Ipv4Header::new(len as u16, self.ttl, IpNumber::ICMP, src.octets(), dst.octets()).unwrap();
                ip.identification = self.id;
                ip.dont_fragment = self.dont_fragment;
                ip.options = Ipv4Options::try_from(self.options.as_slice()).unwrap();
                ip.total_len = (ip.header_len() + len) as u16;
                ip.header_checksum = ip.calc_header_checksum();
                ip.write(&mut bytes).unwrap();
                let kind = Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8 };
                Icmpv4Header::with_checksum(kind, &self.payload).write(&mut bytes).unwrap();
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let ip = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::try_new(self.flow_label).unwrap(),
                    payload_length: len as u16,
                    next_header: IpNumber::IPV6_ICMP,
                    hop_limit: self.ttl,
                    source: src.octets(),
                    destination: dst.octets(),
                };
                ip.write(&mut bytes).unwrap();
                let kind = Icmpv6Type::Unknown { type_u8, code_u8, bytes5to8 };
                let header = Icmpv6Header::with_checksum(kind, src.octets(), dst.octets(), &self.payload).unwrap();
                header.write(&mut bytes).unwrap();
            }
            _ => unreachable!("both are of one family"),
        }
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}
