//! Bytes to [`Parsed`]: the tuple and what else the pipeline asks of a packet.

use crate::{
    csum,
    family::Family,
    maps::Tuple,
    net::{self, Be16},
    packet::Packet,
    reason::Reason,
    stage::Stage,
    wire::{ETH_LEN, TcpHeader, UdpHeader, tcp_flags},
};

/// What the headers of a packet say.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsed<A> {
    /// Key of its flow.
    pub tuple: Tuple<A>,
    /// Where the transport header starts, in bytes from the start of the frame.
    pub l4: u32,
    /// Bytes of transport header and payload.
    pub l4_len: u32,
    /// Bytes of the IP packet.
    pub len_bytes: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TCP flags; zero for UDP.
    pub tcp_flags: u8,
    /// The transport checksum field.
    pub checksum: Be16,
}

impl<A> Parsed<A> {
    /// Whether the packet opens a TCP connection.
    #[inline(always)]
    pub const fn is_syn(&self) -> bool {
        self.tcp_flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN
    }
}

/// What keeps the ordinary path from reading a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unparsed {
    /// Header fields contradict each other, or the frame ends too early.
    Malformed,
    /// A part of a datagram.
    Fragment,
    /// An IPv6 extension header precedes the transport header.
    ExtensionHeader,
    /// The family's ICMP.
    Icmp,
    /// A packet of the family inside of this one.
    Tunnel,
    /// SCTP.
    Sctp,
    /// Another transport protocol.
    Protocol,
}

impl Unparsed {
    /// The stage that goes on with the packet.
    #[inline(always)]
    pub const fn stage(self) -> Stage {
        match self {
            Self::Malformed | Self::Fragment | Self::ExtensionHeader | Self::Protocol => Stage::Rare,
            Self::Icmp => Stage::Icmp,
            Self::Tunnel => Stage::Decap,
            Self::Sctp => Stage::Sctp,
        }
    }

    /// What to count where nobody goes on.
    #[inline(always)]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Malformed => Reason::Malformed,
            Self::Fragment => Reason::Fragment,
            Self::ExtensionHeader => Reason::ExtensionHeader,
            Self::Icmp | Self::Tunnel | Self::Sctp | Self::Protocol => Reason::UnknownProtocol,
        }
    }
}

impl From<Reason> for Unparsed {
    /// A header that the frame does not hold.
    #[inline(always)]
    fn from(_: Reason) -> Self {
        Self::Malformed
    }
}

/// Reads the headers.
///
/// # Errors
/// Those of [`Family::parse`]; [`Unparsed::Icmp`] and [`Unparsed::Protocol`] for anything but TCP and UDP;
/// [`Unparsed::Malformed`] if the transport header is cut short.
#[inline(always)]
pub fn parse<F: Family>(pkt: &mut impl Packet, parsed: &mut Parsed<F::Addr>) -> Result<(), Unparsed> {
    let proto = F::parse(pkt, parsed)?;
    let l4 = parsed.l4;
    transport::<F>(pkt, parsed, proto, l4)
}

/// Reads the transport header at `l4`, the same as `parsed.l4`, and completes `parsed`.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn transport<F: Family>(
    pkt: &mut impl Packet,
    parsed: &mut Parsed<F::Addr>,
    proto: u8,
    l4: u32,
) -> Result<(), Unparsed> {
    let l4 = l4 as usize;
    if proto == net::proto::TCP {
        if parsed.l4_len < size_of::<TcpHeader>() as u32 {
            return Err(Unparsed::Malformed);
        }
        let tcp = pkt.header_mut::<TcpHeader>(l4)?;
        parsed.tuple.set_ports_and_proto(tcp.ports, proto);
        parsed.tcp_flags = tcp.flags;
        parsed.checksum = tcp.checksum;
    } else if proto == net::proto::UDP {
        if parsed.l4_len < size_of::<UdpHeader>() as u32 {
            return Err(Unparsed::Malformed);
        }
        let udp = pkt.header_mut::<UdpHeader>(l4)?;
        parsed.tuple.set_ports_and_proto(udp.ports, proto);
        parsed.tcp_flags = 0;
        parsed.checksum = udp.checksum;
    } else {
        return Err(if proto == F::ICMP {
            Unparsed::Icmp
        } else if proto == F::TUNNEL {
            Unparsed::Tunnel
        } else if proto == net::proto::SCTP {
            Unparsed::Sctp
        } else {
            Unparsed::Protocol
        });
    }
    parsed.len_bytes = parsed.l4_len + parsed.l4 - ETH_LEN as u32;
    Ok(())
}

/// Whether the checksum field holds the pseudo-header's sum only, as a local socket with transmit offload leaves it
/// (B05). One complete checksum in 65,536 looks the same: harmless, as tc, which is told, takes the packet then.
#[inline(always)]
pub fn is_partial<F: Family>(parsed: &Parsed<F::Addr>) -> bool {
    let tuple = &parsed.tuple;
    let rest = u32::from(Be16::from_host(u16::from(tuple.proto)).raw())
        + u32::from(Be16::from_host(parsed.l4_len as u16).raw());
    csum::fold(F::sum(&tuple.src) + F::sum(&tuple.dst) + rest) == parsed.checksum.raw()
}
