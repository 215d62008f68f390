//! Packets that the ordinary path does not read: fragments, extension headers, other transport protocols.
//!
//! SCTP is not read here: its checksum is about all fragments of a packet, so that the first one's cannot follow a change of
//! the ports. In fragments, and behind extension headers, it passes untouched, counted.

pub mod extension;
pub mod fragment;

use crate::{
    env::Env,
    family::Family,
    outcome::{Outcome, Packed},
    packet::Packet,
    parse::{self, Parsed, Unparsed},
    pipeline,
    reason::Reason,
    stage::Stage,
    wire::ETH_LEN,
};

/// The bits of every offset at which a header may begin; behind the last one begins no header that is read.
pub const OFFSETS: u32 = 0x1ff;

/// Which part of a datagram a packet is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Identification of the datagram.
    pub id: u32,
    /// Offset in units of 8 bytes.
    pub offset: u16,
    /// Whether others follow: zero or one.
    pub more: u8,
    /// The protocol by which the family tells datagrams apart; zero in IPv6, which does not.
    pub proto: u8,
}

impl Piece {
    /// The piece that begins at `offset`.
    #[inline(always)]
    pub const fn new(id: u32, proto: u8, offset: u16, more: bool) -> Self {
        Self { id, offset, more: more as u8, proto }
    }

    /// Whether it is all of the datagram.
    #[inline(always)]
    pub const fn is_whole(&self) -> bool {
        self.offset == 0 && self.more == 0
    }
}

/// Value of `RARE_V4` and `RARE_V6`: what the stage has read. In a map, so that the verifier looks at what follows once, not
/// once for each chain of headers that leads there. Valid for one packet only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Located<A> {
    /// What the headers say.
    pub parsed: Parsed<A>,
    /// Which part of a datagram they are of.
    pub piece: Piece,
    /// What became of the packet, where something is left to do with it.
    pub packed: Packed,
}

/// Reads the packet, and leaves it to [`go_on`].
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E) -> Packed {
    let Some(mut located) = env.located() else {
        return Packed::PASS;
    };
    *located = Located::default();
    let Located { parsed, piece, .. } = &mut *located;
    let read = read::<F>(pkt, parsed, piece);
    if !piece.is_whole() {
        let packed = fragment::prepare::<F, P, E>(pkt, env, &mut located, read);
        if packed != Packed::UNDECIDED {
            return packed;
        }
    } else if let Err(unparsed) = read {
        return Packed::pass::<P>(unparsed.reason());
    }
    env.keep_located(located);
    Packed::to_stage(Stage::Read)
}

/// Does with a packet that was read what the pipeline does: a stage of its own, since verifiers before 6.2 look at all of it once
/// for each of the many ways in which headers are read.
#[inline(always)]
pub fn go_on<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E) -> Packed {
    let Some(located) = env.located() else {
        return Packed::PASS;
    };
    let packed = pipeline::process::<F, P, E, false, true>(pkt, env, &located.parsed, 0);
    // No answer is made to a later piece of a datagram (B42).
    match packed.outcome() {
        Outcome::Continue(Stage::Reject) if located.piece.offset != 0 => Packed::drop(Reason::Unanswered),
        _ => packed,
    }
}

/// Reads all headers; of a later piece of a datagram there are none but those of IP.
///
/// # Errors
/// What keeps the packet from being translated.
#[inline(always)]
pub fn read<F: Family>(pkt: &mut impl Packet, parsed: &mut Parsed<F::Addr>, piece: &mut Piece) -> Result<(), Unparsed> {
    let proto = F::locate(pkt, parsed, piece)?;
    if piece.offset != 0 {
        parsed.tuple.proto = proto;
        parsed.len_bytes = parsed.l4_len + parsed.l4 - ETH_LEN as u32;
        return Ok(());
    }
    let l4 = parsed.l4 & OFFSETS;
    parse::transport::<F>(pkt, parsed, proto, l4)
}
