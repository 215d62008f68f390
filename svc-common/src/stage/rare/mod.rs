//! Packets that the ordinary path does not read: fragments, extension headers, other transport protocols.

pub mod extension;

use crate::{
    env::Env,
    family::Family,
    outcome::Packed,
    packet::{Hook, Packet},
    parse::{self, Parsed, Unparsed},
    pipeline,
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
    /// Whether others follow.
    pub more: bool,
    /// The protocol by which the family tells datagrams apart; zero in IPv6, which does not.
    pub proto: u8,
}

impl Piece {
    /// The piece that begins at `offset`.
    #[inline(always)]
    pub const fn new(id: u32, proto: u8, offset: u16, more: bool) -> Self {
        Self { id, offset, more, proto }
    }

    /// Whether it is all of the datagram.
    #[inline(always)]
    pub const fn is_whole(&self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// Runs the stage.
#[inline(always)]
pub fn run<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E) -> Packed {
    let mut parsed = Parsed::default();
    let mut piece = Piece::default();
    match read::<F>(pkt, &mut parsed, &mut piece) {
        Ok(()) => pipeline::process_as::<F, P, E, false, true>(pkt, env, &parsed),
        Err(unparsed) => pass::<F, P, E>(env, unparsed),
    }
}

/// Reads all headers.
///
/// # Errors
/// What keeps the packet from being translated.
#[inline(always)]
pub fn read<F: Family>(pkt: &mut impl Packet, parsed: &mut Parsed<F::Addr>, piece: &mut Piece) -> Result<(), Unparsed> {
    let proto = F::locate(pkt, parsed, piece)?;
    if !piece.is_whole() {
        return Err(Unparsed::Fragment);
    }
    let l4 = parsed.l4 & OFFSETS;
    parse::transport::<F>(pkt, parsed, proto, l4)
}

/// Leaves a packet alone; counted once, where it comes in.
#[inline(always)]
fn pass<F: Family, P: Packet, E: Env<F>>(env: &mut E, unparsed: Unparsed) -> Packed {
    if matches!(P::HOOK, Hook::Ingress) {
        env.count(unparsed.reason());
    }
    Packed::PASS
}
