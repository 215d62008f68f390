//! Errors that are made here, in the place of the packet that they are about.

use crate::{
    csum,
    family::Family,
    icmp::Messages,
    net::Be16,
    outcome::Packed,
    packet::Packet,
    parse::Parsed,
    reason::Reason,
    wire::{Chunk, ETH_LEN, EthHeader, IcmpHeader},
};

/// Whether an error may be sent about the packet at all, as far as its addresses tell (B42; RFC 1122 section 3.2.2,
/// RFC 4443 section 2.4).
#[inline(always)]
pub fn is_answerable<F: Family>(pkt: &mut impl Packet, src: &F::Addr) -> bool {
    let [first, ..] = pkt.header_mut::<EthHeader>(0).map(|eth| eth.dst.0).unwrap_or([1; 6]);
    first & 1 == 0 && F::Messages::is_host(src)
}

/// Turns the packet into the answer that it is too long for `mtu`: from the address that its sender used, quoting it as
/// it was sent, to where it came from (B41).
///
/// # Errors
/// [`Reason::Malformed`] if the kernel does not give the room: the packet has to end here.
#[inline(always)]
pub fn too_big<F: Family, P: Packet>(pkt: &mut P, parsed: &Parsed<F::Addr>, mtu: u16) -> Result<Packed, Reason> {
    let own = pkt.ifindex();
    let header = F::Messages::HEADER + size_of::<IcmpHeader>();
    let chunks = parsed.len_bytes.min(F::Messages::QUOTE) / Chunk::LEN;
    let quote = (chunks * Chunk::LEN) as usize;
    pkt.set_len(ETH_LEN + quote)?;
    pkt.open_gap(header)?;
    pkt.pull(ETH_LEN + header + quote)?;

    let eth = *pkt.header_mut::<EthHeader>(0)?;
    pkt.set_macs(eth.src, eth.dst)?;
    let len = (size_of::<IcmpHeader>() + quote) as u32;
    let pseudo = F::Messages::put_header(pkt, &parsed.tuple.dst, &parsed.tuple.src, len)?;
    let quoted = sum_chunks::<F, P>(pkt, ETH_LEN + header, chunks)?;

    let (kind, code) = F::Messages::TOO_BIG;
    let [high, low] = mtu.to_be_bytes();
    let icmp = pkt.header_mut::<IcmpHeader>(ETH_LEN + F::Messages::HEADER)?;
    *icmp = IcmpHeader { kind, code, rest: [0, 0, high, low], ..IcmpHeader::default() };
    let words = u32::from(icmp.kind_word().raw()) + u32::from(u16::from_ne_bytes([high, low]));
    icmp.checksum = Be16::from_raw(!csum::fold(pseudo + quoted + words));
    Ok(Packed::to_device(Packed::SEND, own))
}

/// The sum of so many chunks from `start` on, unfolded: less than 2^26.
#[inline(always)]
fn sum_chunks<F: Family, P: Packet>(pkt: &mut P, start: usize, chunks: u32) -> Result<u32, Reason> {
    let mut sum = 0;
    for index in 0..F::Messages::QUOTE / Chunk::LEN {
        if index >= chunks {
            break;
        }
        sum += pkt.header_mut::<Chunk>(start + (index * Chunk::LEN) as usize)?.sum();
    }
    Ok(sum)
}
