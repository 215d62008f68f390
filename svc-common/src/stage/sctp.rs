//! SCTP: its ports, what its chunks say of the association, and its checksum.

use core::hint::black_box;

use super::rare::{Located, OFFSETS};
use crate::{
    crc,
    env::Env,
    family::Family,
    net::proto,
    outcome::Packed,
    packet::Packet,
    parse::{self, Parsed, Unparsed},
    pipeline,
    reason::Reason,
    wire::{ETH_LEN, SctpChunk, SctpHeader, sctp_chunk, tcp_flags},
};

/// Runs the stage.
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E) -> Packed {
    let Some(mut located) = env.located() else {
        return Packed::PASS;
    };
    match process::<F, P, E>(pkt, env, &mut located, 0) {
        Ok(packed) => packed,
        Err(unparsed) => Packed::pass::<P>(unparsed.reason()),
    }
}

/// Reads a packet of any transport that is translated, and does with it what the pipeline does; see [`pipeline::run`] for
/// `chosen`.
///
/// # Errors
/// What keeps it from being read.
#[inline(always)]
pub fn process<F: Family, P: Packet, E: Env<F>>(
    pkt: &mut P,
    env: &mut E,
    located: &mut Located<F::Addr>,
    chosen: u32,
) -> Result<Packed, Unparsed> {
    *located = Located::default();
    let parsed = &mut located.parsed;
    let read = parse::parse::<F>(pkt, parsed);
    complete(pkt, parsed, read)?;
    let len_bytes = pkt.len_bytes();
    located.packed = pipeline::process::<F, P, E, false, true>(pkt, env, &located.parsed, chosen);
    // The outcome is indeed kept in the map, so that the verifier looks at what follows once, not for each outcome.
    let located = black_box(&*located);
    if located.parsed.tuple.proto == proto::SCTP && pkt.len_bytes() == len_bytes {
        // Whatever became of the packet: one that was not translated has the ports that it had, and so has one inside of
        // another, whose header is elsewhere. Parsing has found the header, so this cannot fail.
        let _updated = update_checksum(pkt, &located.parsed);
    }
    Ok(located.packed)
}

/// Goes on where [`parse::parse`] has found SCTP: reads its ports, and what kind the first chunk is, as those that open and
/// end an association come alone.
///
/// # Errors
/// What `read` says, if that is anything else; [`Unparsed::Malformed`] if the header is cut short.
#[inline(always)]
pub fn complete<A: Copy>(
    pkt: &mut impl Packet,
    parsed: &mut Parsed<A>,
    read: Result<(), Unparsed>,
) -> Result<(), Unparsed> {
    const HEADER: u32 = size_of::<SctpHeader>() as u32;
    if read != Err(Unparsed::Sctp) {
        return read;
    }
    let l4 = parsed.l4 & OFFSETS;
    if parsed.l4_len < HEADER {
        return Err(Unparsed::Malformed);
    }
    let ports = pkt.header_mut::<SctpHeader>(l4 as usize)?.ports;
    let mut kind = 0;
    if parsed.l4_len >= HEADER + size_of::<SctpChunk>() as u32 {
        kind = pkt.header_mut::<SctpChunk>((l4 + HEADER) as usize)?.kind;
    }
    parsed.tuple.set_ports_and_proto(ports, proto::SCTP);
    parsed.tcp_flags = as_tcp(kind);
    parsed.len_bytes = parsed.l4_len + parsed.l4 - ETH_LEN as u32;
    Ok(())
}

/// What a segment of TCP would say in place of a chunk, so that both have the same states.
#[inline(always)]
const fn as_tcp(kind: u8) -> u8 {
    match kind {
        sctp_chunk::INIT => tcp_flags::SYN,
        sctp_chunk::INIT_ACK => tcp_flags::SYN | tcp_flags::ACK,
        sctp_chunk::ABORT => tcp_flags::RST,
        sctp_chunk::SHUTDOWN | sctp_chunk::SHUTDOWN_ACK | sctp_chunk::SHUTDOWN_COMPLETE => tcp_flags::FIN,
        _ => tcp_flags::ACK,
    }
}

/// Lets the checksum follow once [`crate::rewrite::rewrite`] has changed the ports from those in `parsed`, if it has. There
/// is no pseudo-header: addresses do not change it. A field of zero stays zero.
///
/// # Errors
/// [`Reason::Malformed`] if the frame ends before the header, which parsing has excluded.
#[inline(always)]
pub fn update_checksum<A: Copy>(pkt: &mut impl Packet, parsed: &Parsed<A>) -> Result<(), Reason> {
    let header = pkt.header_mut::<SctpHeader>((parsed.l4 & OFFSETS) as usize)?;
    let difference = header.ports.to_word() ^ parsed.tuple.ports().to_word();
    if difference != 0 && header.checksum != [0; 4] {
        let delta = crc::delta(difference.to_ne_bytes(), parsed.l4_len as u16);
        header.checksum = (u32::from_le_bytes(header.checksum) ^ delta).to_le_bytes();
    }
    Ok(())
}
