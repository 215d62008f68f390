//! Datagrams in pieces: all get the translation of the first one, which alone has the ports.
//!
//! Pieces that come before the first are held: their frames are copied into a map, and when the first one comes it sends
//! them again to where they were seen. Nothing waits in the kernel meanwhile, and nothing is put together: overlaps
//! within a datagram are the receiver's to find, as all that is read is the first piece's transport header.

use core::ops::DerefMut;

use super::{Located, Piece};
use crate::{
    env::{Env, InsertError, Route},
    family::Family,
    maps::{Clock, Datagram, DatagramKey, FrontendKey, Held, HeldKey, Tuple, datagram_state, device_class},
    net::proto,
    outcome::Packed,
    packet::{Hook, Packet},
    parse::{Parsed, Unparsed},
    reason::{Note, Reason},
    wire::ipv6_next,
};

/// Pieces of one datagram that are held: all but one of the longest datagram in pieces of 1500 bytes.
pub const MAX_HELD: u32 = 45;

/// Places that are tried for a piece when other CPUs hold pieces of the same datagram.
const MAX_TRIES: u32 = 4;

/// What fragments need of the world.
pub trait Fragments<F: Family> {
    /// Owner of the memory that [`Fragments::located`] lends.
    type Located: DerefMut<Target = Located<F::Addr>>;
    /// Owner of the memory that [`Fragments::held_scratch`] lends.
    type Held: DerefMut<Target = Held>;

    /// Memory for what the headers say, contents undefined unless a stage before kept it. Not to be asked for twice.
    fn located(&mut self) -> Option<Self::Located>;

    /// Gives it back for the stage that comes next.
    fn keep_located(&mut self, located: Self::Located);

    /// Memory for one frame, contents undefined. Not to be asked for twice.
    fn held_scratch(&mut self) -> Option<Self::Held>;

    /// Looks a datagram up. What is written through the reference is in the table at once.
    fn lookup_datagram(&mut self, key: &DatagramKey<F::Addr>) -> Option<&mut Datagram>;

    /// Records a datagram unless its key is taken. If that fails, its later pieces are lost.
    fn insert_datagram(&mut self, key: &DatagramKey<F::Addr>, datagram: &Datagram);

    /// Looks a held piece up.
    fn lookup_held(&mut self, key: &HeldKey<F::Addr>) -> Option<&Held>;

    /// Holds a piece.
    ///
    /// # Errors
    /// [`InsertError`]; nothing is held.
    fn insert_held(&mut self, key: &HeldKey<F::Addr>, held: &Held) -> Result<(), InsertError>;

    /// Removes a held piece; whether it was there, and nobody else removed it.
    fn remove_held(&mut self, key: &HeldKey<F::Addr>) -> bool;
}

/// Prepares `parsed` of a packet that is not the whole of its datagram for what every packet goes through. `read` says how
/// reading its headers ended. What becomes of it, `Packed::UNDECIDED` if it goes on.
///
/// Not inlined, for a frame of its own on the stack.
#[cfg_attr(feature = "flat", inline(always))]
#[cfg_attr(not(feature = "flat"), inline(never))]
pub fn prepare<F: Family, P: Packet, E: Env<F>>(
    pkt: &mut P,
    env: &mut E,
    located: &mut Located<F::Addr>,
    read: Result<(), Unparsed>,
) -> Packed {
    let key = key_of(&located.parsed, &located.piece);
    let result = if located.piece.offset == 0 {
        first::<F, P, E>(pkt, env, located, &key, read)
    } else {
        later(pkt, env, &mut located.parsed, &key)
    };
    match result {
        Ok(()) => Packed::UNDECIDED,
        Err(packed) => packed,
    }
}

/// Completes `parsed` for another stage, which runs after this one: a later piece gets the ports of the first. Whether
/// they are known.
#[inline(always)]
pub fn complete<F: Family, E: Env<F>>(env: &mut E, parsed: &mut Parsed<F::Addr>, piece: &Piece) -> bool {
    if piece.offset == 0 {
        return true;
    }
    match env.lookup_datagram(&key_of(parsed, piece)) {
        Some(datagram) if datagram.state == datagram_state::KNOWN => {
            take_ports(parsed, *datagram);
            true
        }
        _ => false,
    }
}

/// Makes `parsed` that of a later piece, which has no transport header.
#[inline(always)]
fn take_ports<A: Copy>(parsed: &mut Parsed<A>, datagram: Datagram) {
    parsed.tuple.set_ports_and_proto(datagram.ports, datagram.proto);
    parsed.l4 = 0;
}

/// The datagram of a piece.
#[inline(always)]
fn key_of<A: Copy>(parsed: &Parsed<A>, piece: &Piece) -> DatagramKey<A> {
    let tuple = &parsed.tuple;
    DatagramKey { src: tuple.src, dst: tuple.dst, id: piece.id, proto: piece.proto, pad: [0; 3] }
}

/// Records what the first piece says, and sends those again that came before it.
#[inline(always)]
fn first<F: Family, P: Packet, E: Env<F>>(
    pkt: &mut P,
    env: &mut E,
    located: &mut Located<F::Addr>,
    key: &DatagramKey<F::Addr>,
    read: Result<(), Unparsed>,
) -> Result<(), Packed> {
    let now = env.now();
    let Tuple { proto, .. } = located.parsed.tuple;
    let ports = located.parsed.tuple.ports();
    let mut datagram = Datagram { ports, since_s: now, proto, state: datagram_state::KNOWN, held: 0 };
    if let Err(unparsed) = read {
        // Without the whole transport header it cannot be translated, and what it goes to must not see it otherwise
        // (RFC 1858, RFC 7112).
        let tiny = unparsed == Unparsed::Malformed && is_vip::<F, E>(env, key);
        datagram.state = if tiny { datagram_state::REFUSED } else { datagram_state::FOREIGN };
    }
    let mut waiting = false;
    match env.lookup_datagram(key) {
        Some(stored) => {
            let fresh = is_fresh::<F>(stored.since_s, now);
            if fresh && F::REFUSES_OVERLAPS {
                // Two beginnings overlap, so the datagram is void (RFC 5722).
                let other = stored.state == datagram_state::KNOWN
                    && (stored.ports != datagram.ports || stored.proto != datagram.proto);
                if other || stored.state == datagram_state::REFUSED {
                    datagram.state = datagram_state::REFUSED;
                }
            }
            waiting = fresh && stored.held != 0;
            if waiting && matches!(P::HOOK, Hook::Xdp) {
                // Only tc can send the held ones.
                return Err(Packed::PASS);
            }
            *stored = datagram;
        }
        None => env.insert_datagram(key, &datagram),
    }
    if waiting && !matches!(P::HOOK, Hook::Xdp) {
        // At egress the held pieces come by at once, and use the same memory.
        let own = *located;
        let released = release::<F, P, E>(pkt, env, key, now);
        *located = own;
        if !released {
            return Err(Packed::drop(Reason::Malformed));
        }
    }
    match (datagram.state, read) {
        (datagram_state::REFUSED, _) => Err(Packed::drop(Reason::FragmentRefused)),
        (_, Err(unparsed)) => Err(Packed::pass::<P>(unparsed.reason())),
        (_, Ok(())) => Ok(()),
    }
}

/// Finds out what the first piece said; until it comes, a later one is held.
#[inline(always)]
fn later<F: Family, P: Packet, E: Env<F>>(
    pkt: &mut P,
    env: &mut E,
    parsed: &mut Parsed<F::Addr>,
    key: &DatagramKey<F::Addr>,
) -> Result<(), Packed> {
    let now = env.now();
    let mut datagram = match env.lookup_datagram(key) {
        Some(stored) if is_fresh::<F>(stored.since_s, now) => *stored,
        _ => Datagram::default(),
    };
    if datagram.state == datagram_state::WAITING {
        if matches!(P::HOOK, Hook::Xdp) {
            return Err(Packed::PASS);
        }
        let proto = parsed.tuple.proto;
        if !may_have_ports(proto) || !ends_here::<F, P, E>(pkt, env, key, proto) {
            return Err(Packed::pass::<P>(Unparsed::Fragment.reason()));
        }
        datagram = hold::<F, P, E>(pkt, env, key, now)?;
    }
    match datagram.state {
        datagram_state::KNOWN => {
            take_ports(parsed, datagram);
            Ok(())
        }
        datagram_state::REFUSED => Err(Packed::drop(Reason::FragmentRefused)),
        _ => Err(Packed::pass::<P>(Unparsed::Fragment.reason())),
    }
}

/// Holds a piece; returns its datagram if the first piece came meanwhile, on another CPU.
///
/// Two CPUs at once may lose a count of held pieces, which whoever sends them does not rely on; and a first piece that
/// comes in the very moment may miss one, which costs the datagram as the loss of any piece does.
#[inline(always)]
fn hold<F: Family, P: Packet, E: Env<F>>(
    pkt: &mut P,
    env: &mut E,
    key: &DatagramKey<F::Addr>,
    now: Clock,
) -> Result<Datagram, Packed> {
    let waiting = Datagram { since_s: now, ..Datagram::default() };
    let first = match env.lookup_datagram(key) {
        Some(stored) => {
            if !is_fresh::<F>(stored.since_s, now) {
                *stored = waiting;
            }
            u32::from(stored.held)
        }
        None => {
            env.insert_datagram(key, &waiting);
            0
        }
    };
    let Some(mut held) = env.held_scratch() else {
        return Err(Packed::drop(Reason::FragmentLost));
    };
    if pkt.save(&mut held).is_err() {
        return Err(Packed::drop(Reason::FragmentLost));
    }
    held.since_s = now;
    let mut held_key = HeldKey { datagram: *key, index: first, pad: 0 };
    let mut tries = 0;
    while held_key.index >= MAX_HELD || env.insert_held(&held_key, &held).is_err() {
        tries += 1;
        if tries == MAX_TRIES || held_key.index >= MAX_HELD {
            return Err(Packed::drop(Reason::FragmentLost));
        }
        // Taken by a remnant of an earlier datagram, or by another CPU.
        let remnant = env.lookup_held(&held_key).is_some_and(|held| !is_fresh::<F>(held.since_s, now));
        if !(remnant && env.remove_held(&held_key)) {
            held_key.index += 1;
        }
    }
    if let Some(stored) = env.lookup_datagram(key) {
        let datagram = *stored;
        if datagram.state == datagram_state::WAITING {
            stored.held = stored.held.max(held_key.index as u16 + 1);
        } else if env.remove_held(&held_key) {
            return Ok(datagram);
        }
    }
    Err(Packed::drop(Reason::FragmentHeld))
}

/// Sends the held pieces of a datagram again; whether the packet at hand is as before.
///
/// Not inlined, for a frame of its own on the stack.
#[cfg_attr(feature = "flat", inline(always))]
#[cfg_attr(not(feature = "flat"), inline(never))]
fn release<F: Family, P: Packet, E: Env<F>>(pkt: &mut P, env: &mut E, key: &DatagramKey<F::Addr>, now: Clock) -> bool {
    // A copy can only be made of the packet at hand, so it becomes each of them in turn.
    let Some(mut own) = env.held_scratch() else {
        return true;
    };
    if pkt.save(&mut own).is_err() {
        return true;
    }
    let mut held_key = HeldKey { datagram: *key, index: 0, pad: 0 };
    while held_key.index < MAX_HELD {
        let Some(held) = env.lookup_held(&held_key) else { break };
        let ready = is_fresh::<F>(held.since_s, now) && pkt.restore(held).is_ok();
        if env.remove_held(&held_key) && ready && pkt.send_again().is_ok() {
            env.note(Note::FRAGMENT_RELEASED);
        }
        held_key.index += 1;
    }
    pkt.restore(&own).is_ok()
}

/// Whether the address is one that clients dial.
#[inline(always)]
fn is_vip<F: Family, E: Env<F>>(env: &mut E, key: &DatagramKey<F::Addr>) -> bool {
    env.lookup_frontend(&FrontendKey::of_address(key.dst)).is_some()
}

/// Whether a transport that is translated may come behind a header with this number.
#[inline(always)]
const fn may_have_ports(proto: u8) -> bool {
    matches!(
        proto,
        proto::TCP | proto::UDP | proto::SCTP | ipv6_next::ROUTING | ipv6_next::AUTHENTICATION | ipv6_next::DESTINATION
    )
}

/// Whether the datagram begins or ends here: at a VIP, at this node itself or in one of its pods. So all its pieces come
/// by, and holding one keeps nothing from anybody. What is only on its way through may have its first piece elsewhere.
#[inline(always)]
fn ends_here<F: Family, P: Packet, E: Env<F>>(pkt: &P, env: &mut E, key: &DatagramKey<F::Addr>, proto: u8) -> bool {
    let own = pkt.ifindex();
    is_vip::<F, E>(env, key)
        || is_attached::<F, E>(env, &key.src, &key.dst, proto, own)
        || is_attached::<F, E>(env, &key.dst, &key.src, proto, own)
}

/// Whether `dst` is this node, or one of its pods.
#[inline(always)]
fn is_attached<F: Family, E: Env<F>>(env: &mut E, src: &F::Addr, dst: &F::Addr, proto: u8, own: u32) -> bool {
    match env.route(src, dst, proto, own) {
        Route::Stack => true,
        Route::Via(hop) => env.lookup_device(hop.ifindex).is_some_and(|device| device.class == device_class::WORKLOAD),
    }
}

/// Whether what began at `since_s` still counts.
#[inline(always)]
const fn is_fresh<F: Family>(since_s: Clock, now: Clock) -> bool {
    now.wrapping_sub(since_s) <= F::REASSEMBLY_S
}
