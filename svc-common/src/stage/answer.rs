//! Answers that are made here, in the place of the packet that they are about.

use super::rare::OFFSETS;
use crate::{
    csum,
    family::Family,
    icmp::Messages,
    net::{Be16, proto},
    outcome::Packed,
    packet::Packet,
    parse::Parsed,
    reason::Reason,
    wire::{Chunk, ETH_LEN, EthHeader, IcmpHeader, MacPair, TcpHeader, Word, tcp_flags},
};

/// Whether an error may be sent about the packet at all, as far as its addresses tell (B42; RFC 1122 section 3.2.2,
/// RFC 4443 section 2.4).
#[inline(always)]
pub fn is_answerable<F: Family>(pkt: &mut impl Packet, src: &F::Addr) -> bool {
    let [first, ..] = pkt.header_mut::<EthHeader>(0).map(|eth| eth.dst.0).unwrap_or([1; 6]);
    first & 1 == 0 && F::Messages::is_host(src)
}

/// Turns the packet into the answer that it is too long for `mtu` (B41); see [`error`].
///
/// # Errors
/// Those of [`error`].
#[inline(always)]
pub fn too_big<F: Family, P: Packet>(pkt: &mut P, parsed: &Parsed<F::Addr>, mtu: u16) -> Result<Packed, Reason> {
    error::<F, P>(pkt, parsed, F::Messages::TOO_BIG, mtu)
}

/// Turns the packet into the ICMP error of this type and code: from the address that its sender used, quoting it as it
/// was sent, to where it came from. `mtu` is zero unless the error tells one.
///
/// # Errors
/// [`Reason::Malformed`] if the kernel does not give the room: the packet has to end here.
#[inline(always)]
pub fn error<F: Family, P: Packet>(
    pkt: &mut P,
    parsed: &Parsed<F::Addr>,
    error: (u8, u8),
    mtu: u16,
) -> Result<Packed, Reason> {
    put_error::<F, P>(pkt, parsed, error, mtu)?;
    send_back(pkt)
}

/// The same, but leaves it open where the packet goes.
///
/// # Errors
/// As [`error`].
#[inline(always)]
pub fn put_error<F: Family, P: Packet>(
    pkt: &mut P,
    parsed: &Parsed<F::Addr>,
    (kind, code): (u8, u8),
    mtu: u16,
) -> Result<(), Reason> {
    let header = F::Messages::HEADER + size_of::<IcmpHeader>();
    // Whole words, which leaves the ports and what follows them in.
    let quote = parsed.len_bytes.min(F::Messages::QUOTE) & !3;
    make_room(pkt, header, quote as usize)?;

    let len = size_of::<IcmpHeader>() as u32 + quote;
    let pseudo = F::Messages::put_header(pkt, &parsed.tuple.dst, &parsed.tuple.src, F::ICMP, len)?;
    let quoted = sum::<F, P>(pkt, ETH_LEN + header, quote)?;
    let [high, low] = mtu.to_be_bytes();
    let icmp = pkt.header_mut::<IcmpHeader>(ETH_LEN + F::Messages::HEADER)?;
    *icmp = IcmpHeader { kind, code, rest: [0, 0, high, low], ..IcmpHeader::default() };
    let words = u32::from(icmp.kind_word().raw()) + u32::from(u16::from_ne_bytes([high, low]));
    icmp.checksum = Be16::from_raw(!csum::fold(pseudo + quoted + words));
    Ok(())
}

/// Turns a TCP segment into the RST that answers it where there is no connection (RFC 9293 section 3.10.7.1, B65).
///
/// # Errors
/// [`Reason::Unanswered`] if it is an RST itself, [`Reason::Malformed`] if the kernel does not give the room.
#[inline(always)]
pub fn reset<F: Family, P: Packet>(pkt: &mut P, parsed: &Parsed<F::Addr>) -> Result<Packed, Reason> {
    const LEN: usize = size_of::<TcpHeader>();
    let segment = *pkt.header_mut::<TcpHeader>((parsed.l4 & OFFSETS) as usize)?;
    if segment.flags & tcp_flags::RST != 0 {
        return Err(Reason::Unanswered);
    }
    let mut answer = TcpHeader { data_offset: (LEN as u8 / 4) << 4, flags: tcp_flags::RST, ..TcpHeader::default() };
    (answer.ports.sport, answer.ports.dport) = (segment.ports.dport, segment.ports.sport);
    if segment.flags & tcp_flags::ACK != 0 {
        answer.seq = segment.ack;
    } else {
        let header = u32::from(segment.data_offset >> 4) * 4;
        let data = parsed.l4_len.saturating_sub(header);
        let marks = u32::from(segment.flags & tcp_flags::SYN != 0) + u32::from(segment.flags & tcp_flags::FIN != 0);
        let end = u32::from_be_bytes(segment.seq).wrapping_add(data).wrapping_add(marks);
        answer.ack = end.to_be_bytes();
        answer.flags |= tcp_flags::ACK;
    }
    make_room(pkt, 0, F::Messages::HEADER + LEN)?;

    let pseudo = F::Messages::put_header(pkt, &parsed.tuple.dst, &parsed.tuple.src, proto::TCP, LEN as u32)?;
    let words = [answer.ports.to_word(), u32::from_ne_bytes(answer.seq), u32::from_ne_bytes(answer.ack)];
    let marks = u32::from(u16::from_ne_bytes([answer.data_offset, answer.flags]));
    let sum = words.iter().fold(pseudo + marks, |sum, word| sum + Word(*word).sum());
    answer.checksum = Be16::from_raw(!csum::fold(sum));
    *pkt.header_mut(ETH_LEN + F::Messages::HEADER)? = answer;
    send_back(pkt)
}

/// Sends the frame to where it came from.
#[inline(always)]
fn send_back(pkt: &mut impl Packet) -> Result<Packed, Reason> {
    let own = pkt.ifindex();
    let eth = *pkt.header_mut::<EthHeader>(0)?;
    pkt.set_macs(MacPair { dst: eth.src, src: eth.dst })?;
    Ok(Packed::to_device(Packed::SEND, own))
}

/// Bytes behind the Ethernet header that [`make_room`] puts aside: more than any IPv4 header has.
const ASIDE: usize = 2 * Chunk::LEN as usize;

/// Cuts the IP packet to `keep` bytes and puts `header` bytes without meaning before it.
///
/// The frame then has the checksums that are written into it, and no others. A local sender leaves the transport checksum
/// to the device (`CHECKSUM_PARTIAL`), and the kernel would complete it later, somewhere inside of the answer. It gives that
/// up when the transport header lies before the beginning of the frame, so the beginning is taken off and put back. What
/// a NIC has summed it forgets when the length changes, which it does at the end.
///
/// # Errors
/// [`Reason::Malformed`] if the kernel does not give the room.
#[inline(always)]
fn make_room(pkt: &mut impl Packet, header: usize, keep: usize) -> Result<(), Reason> {
    // When the beginning is off, the kernel still wants to find an IP header.
    const LEAST: usize = ASIDE + 40;
    pkt.set_len(ETH_LEN + keep.max(LEAST) + 4)?;
    pkt.pull(ETH_LEN + ASIDE)?;
    let first = *pkt.header_mut::<Chunk>(ETH_LEN)?;
    let second = *pkt.header_mut::<Chunk>(ETH_LEN + ASIDE / 2)?;
    pkt.close_gap(ASIDE)?;
    pkt.open_gap(ASIDE + header)?;
    pkt.pull(ETH_LEN + header + ASIDE)?;
    *pkt.header_mut(ETH_LEN + header)? = first;
    *pkt.header_mut(ETH_LEN + header + ASIDE / 2)? = second;
    pkt.set_len(ETH_LEN + header + keep)?;
    pkt.pull(ETH_LEN + header + keep)
}

/// The sum of `len` bytes from `start` on, whole words, unfolded: less than 2^26.
#[inline(always)]
fn sum<F: Family, P: Packet>(pkt: &mut P, start: usize, len: u32) -> Result<u32, Reason> {
    let (chunks, words) = (len / Chunk::LEN, len % Chunk::LEN / 4);
    let mut sum = 0;
    for index in 0..F::Messages::QUOTE / Chunk::LEN {
        if index >= chunks {
            break;
        }
        sum += pkt.header_mut::<Chunk>(start + (index * Chunk::LEN) as usize)?.sum();
    }
    let rest = start + (chunks * Chunk::LEN) as usize;
    for index in 0..Chunk::LEN / 4 {
        if index >= words {
            break;
        }
        sum += pkt.header_mut::<Word>(rest + (index * 4) as usize)?.sum();
    }
    Ok(sum)
}
