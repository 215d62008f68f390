//! Frames for tests, built by `etherparse`, never by the code under test: what goes in, and what has to come out.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader,
};

/// A description of a frame; [`Frame::build`] makes the bytes.
#[derive(Clone, Debug)]
pub struct Frame {
    src_mac: [u8; 6],
    dst_mac: [u8; 6],
    src: SocketAddr,
    dst: SocketAddr,
    ttl: u8,
    plain: bool,
    options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    transport: Transport,
    payload: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Transport {
    Tcp(TcpHeader),
    Udp { checksum: UdpChecksum },
    Sctp { chunk: u8 },
}

/// What a UDP frame carries as its checksum.
#[derive(Clone, Copy, Debug)]
enum UdpChecksum {
    Full,
    Zero,
}

/// An address in a test's table: `"10.96.0.1:80"` or `"[fd00::1]:80"`.
pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is not an address and port"))
}

impl Frame {
    fn new(src: &str, dst: &str, transport: Transport) -> Self {
        let (src, dst) = (addr(src), addr(dst));
        assert_eq!(src.is_ipv4(), dst.is_ipv4(), "one frame has one family");
        Self {
            src_mac: [2, 0, 0, 0, 0, 1],
            dst_mac: [2, 0, 0, 0, 0, 2],
            src,
            dst,
            ttl: 64,
            plain: false,
            options: Vec::new(),
            extensions: Vec::new(),
            transport,
            payload: b"the payload of a frame".to_vec(),
        }
    }

    /// A TCP segment with ACK set.
    pub fn tcp(src: &str, dst: &str) -> Self {
        let mut header = TcpHeader::new(0, 0, 0x1234_5678, 0xffff);
        header.ack = true;
        header.acknowledgment_number = 0x9abc_def0;
        Self::new(src, dst, Transport::Tcp(header))
    }

    /// The first segment of a TCP connection.
    pub fn syn(src: &str, dst: &str) -> Self {
        Self::tcp(src, dst).flags("S").payload(b"")
    }

    /// A UDP datagram.
    pub fn udp(src: &str, dst: &str) -> Self {
        Self::new(src, dst, Transport::Udp { checksum: UdpChecksum::Full })
    }

    /// An SCTP packet with one chunk of this kind.
    pub fn sctp(src: &str, dst: &str, chunk: u8) -> Self {
        Self::new(src, dst, Transport::Sctp { chunk })
    }

    /// TCP flags as tcpdump prints them: any of `S` SYN, `.` ACK, `F` FIN, `R` RST, `P` PSH.
    pub fn flags(mut self, flags: &str) -> Self {
        let Transport::Tcp(header) = &mut self.transport else { panic!("only TCP has flags") };
        header.syn = flags.contains('S');
        header.ack = flags.contains('.');
        header.fin = flags.contains('F');
        header.rst = flags.contains('R');
        header.psh = flags.contains('P');
        self
    }

    /// Sequence number, acknowledgement number, window.
    pub fn numbers(mut self, seq: u32, ack: u32, window: u16) -> Self {
        let Transport::Tcp(header) = &mut self.transport else { panic!("only TCP has numbers") };
        (header.sequence_number, header.acknowledgment_number, header.window_size) = (seq, ack, window);
        self
    }

    /// An IP header as a host makes it that sends no fragments: no identification, DF, no flow label.
    pub fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    /// No UDP checksum.
    pub fn zero_checksum(mut self) -> Self {
        self.transport = Transport::Udp { checksum: UdpChecksum::Zero };
        self
    }

    /// Another source.
    pub fn from(mut self, src: &str) -> Self {
        self.src = addr(src);
        self
    }

    /// Another destination.
    pub fn to(mut self, dst: &str) -> Self {
        self.dst = addr(dst);
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

    /// IPv6 extension headers: type, and the bytes behind the next header's type.
    pub fn extensions(mut self, extensions: &[(u8, Vec<u8>)]) -> Self {
        self.extensions = extensions.to_vec();
        self
    }

    /// What the transport carries.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The bytes, with all checksums complete.
    pub fn build(&self) -> Vec<u8> {
        let proto = match self.transport {
            Transport::Tcp(_) => IpNumber::TCP,
            Transport::Udp { .. } => IpNumber::UDP,
            Transport::Sctp { .. } => IpNumber::SCTP,
        };
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut bytes = self.ethernet(EtherType::IPV4);
                let transport = self.transport_bytes(|tcp, udp, payload| match (tcp, udp) {
                    (Some(tcp), _) => tcp.calc_checksum_ipv4_raw(src.octets(), dst.octets(), payload).unwrap(),
                    (_, Some(udp)) => udp.calc_checksum_ipv4_raw(src.octets(), dst.octets(), payload).unwrap(),
                    _ => unreachable!(),
                });
                let mut ip =
                    Ipv4Header::new(transport.len() as u16, self.ttl, proto, src.octets(), dst.octets()).unwrap();
                ip.identification = if self.plain { 0 } else { 0x4242 };
                ip.options = Ipv4Options::try_from(self.options.as_slice()).unwrap();
                ip.total_len = (ip.header_len() + transport.len()) as u16;
                ip.header_checksum = ip.calc_header_checksum();
                ip.write(&mut bytes).unwrap();
                bytes.extend(transport);
                bytes
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut bytes = self.ethernet(EtherType::IPV6);
                let transport = self.transport_bytes(|tcp, udp, payload| match (tcp, udp) {
                    (Some(tcp), _) => tcp.calc_checksum_ipv6_raw(src.octets(), dst.octets(), payload).unwrap(),
                    (_, Some(udp)) => udp.calc_checksum_ipv6_raw(src.octets(), dst.octets(), payload).unwrap(),
                    _ => unreachable!(),
                });
                let mut next_header = proto;
                let mut extensions = Vec::new();
                for (kind, body) in self.extensions.iter().rev() {
                    extensions.splice(..0, [next_header.0].into_iter().chain(body.iter().copied()));
                    next_header = IpNumber(*kind);
                }
                let ip = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::try_new(if self.plain { 0 } else { 0x5_4321 }).unwrap(),
                    payload_length: (extensions.len() + transport.len()) as u16,
                    next_header,
                    hop_limit: self.ttl,
                    source: src.octets(),
                    destination: dst.octets(),
                };
                ip.write(&mut bytes).unwrap();
                bytes.extend(extensions);
                bytes.extend(transport);
                bytes
            }
            _ => panic!("one frame has one family"),
        }
    }

    /// Leaves only the pseudo-header's sum in the checksum field of a frame without options, as a local socket with
    /// transmit offload does.
    pub fn make_checksum_partial(frame: &mut [u8]) {
        let (addresses, l4) = if frame[12] == 0x08 { (26..34, 34) } else { (22..54, 54) };
        let proto = if frame[12] == 0x08 { frame[23] } else { frame[20] };
        let field = if proto == 6 { l4 + 16 } else { l4 + 6 };
        let words = frame[addresses].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let mut sum = words.sum::<u32>() + u32::from(proto) + (frame.len() - l4) as u32;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        frame[field..field + 2].copy_from_slice(&(sum as u16).to_be_bytes());
    }

    /// Common header, chunk header, payload (RFC 9260 section 3).
    fn sctp_bytes(&self, chunk: u8) -> Vec<u8> {
        let mut bytes = [self.src.port().to_be_bytes(), self.dst.port().to_be_bytes()].concat();
        bytes.extend([0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0, chunk, 3]);
        bytes.extend((4 + self.payload.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let checksum = crc32c(&bytes).to_le_bytes();
        bytes[8..12].copy_from_slice(&checksum);
        bytes
    }

    fn ethernet(&self, ether_type: EtherType) -> Vec<u8> {
        let mut bytes = Vec::new();
        Ethernet2Header { source: self.src_mac, destination: self.dst_mac, ether_type }.write(&mut bytes).unwrap();
        bytes
    }

    fn transport_bytes(&self, checksum: impl Fn(Option<&TcpHeader>, Option<&UdpHeader>, &[u8]) -> u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        match &self.transport {
            Transport::Tcp(header) => {
                let mut header = header.clone();
                header.source_port = self.src.port();
                header.destination_port = self.dst.port();
                header.checksum = checksum(Some(&header), None, &self.payload);
                header.write(&mut bytes).unwrap();
            }
            Transport::Udp { checksum: kind } => {
                let mut header = UdpHeader {
                    source_port: self.src.port(),
                    destination_port: self.dst.port(),
                    length: (8 + self.payload.len()) as u16,
                    checksum: 0,
                };
                if matches!(kind, UdpChecksum::Full) {
                    header.checksum = checksum(None, Some(&header), &self.payload);
                }
                bytes.extend(header.to_bytes());
            }
            Transport::Sctp { chunk } => return self.sctp_bytes(*chunk),
        }
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// The IP packet of a frame inside of another one from `src` to `dst`, as a tunnel between nodes carries it.
pub fn inside(frame: &[u8], src: &str, dst: &str) -> Vec<u8> {
    let (ethernet, packet) = frame.split_at(14);
    let inner = if frame[12] == 0x08 { IpNumber::IPV4 } else { IpNumber::IPV6 };
    behind(ethernet, packet, inner, src, dst)
}

/// The IP packet of a frame inside of Geneve (RFC 8926) from `src` to `dst`: UDP without a checksum, no options, network zero.
pub fn inside_geneve(frame: &[u8], src: &str, dst: &str, sport: u16) -> Vec<u8> {
    let (ethernet, packet) = frame.split_at(14);
    let length = packet.len() as u16 + 16;
    let mut bytes = Vec::new();
    UdpHeader { source_port: sport, destination_port: 6081, length, checksum: 0 }.write(&mut bytes).unwrap();
    bytes.extend([0, 0, frame[12], frame[13], 0, 0, 0, 0]);
    bytes.extend_from_slice(packet);
    behind(ethernet, &bytes, IpNumber::UDP, src, dst)
}

/// A frame whose IP header has the traffic class and flow label of the packet that `content` ends with.
fn behind(ethernet: &[u8], content: &[u8], protocol: IpNumber, src: &str, dst: &str) -> Vec<u8> {
    let mut bytes = ethernet.to_vec();
    let packet = if protocol == IpNumber::UDP { &content[16..] } else { content };
    let len = content.len() as u16;
    match (src.parse().unwrap(), dst.parse().unwrap()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let (inner, _) = Ipv4Header::from_slice(packet).unwrap();
            let mut outer = Ipv4Header::new(len, 64, protocol, src.octets(), dst.octets()).unwrap();
            (outer.dscp, outer.ecn, outer.dont_fragment) = (inner.dscp, inner.ecn, true);
            outer.header_checksum = outer.calc_header_checksum();
            outer.write(&mut bytes).unwrap();
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let (inner, _) = Ipv6Header::from_slice(packet).unwrap();
            let outer = Ipv6Header {
                payload_length: len,
                next_header: protocol,
                hop_limit: 64,
                source: src.octets(),
                destination: dst.octets(),
                ..inner
            };
            outer.write(&mut bytes).unwrap();
        }
        _ => panic!("one tunnel has one family"),
    }
    bytes.extend_from_slice(content);
    bytes
}

/// CRC32c, bit by bit (RFC 9260 appendix A).
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0x82f6_3b78 })
    })
}

/// Asserts that two frames are the same, and shows where they differ.
#[track_caller]
pub fn assert_frames_eq(found: &[u8], expected: &[u8]) {
    if found != expected {
        let at = found.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
        panic!("the frames differ from byte {at} on\n   found: {}\nexpected: {}", hex(found), hex(expected));
    }
}

/// Bytes as two digits each.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
