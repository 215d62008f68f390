//! The search for a source port that no other connection to the same backend uses.

use crate::{
    env::{Env, InsertError, Table},
    family::Family,
    flow,
    maps::Scratch,
    net::Be16,
    reason::Reason,
};

/// Ports that are tried before a connection is refused (B29).
pub const MAX_TRIES: u32 = 32;

/// Records the reverse flow of `scratch.flow` if its key is free in both tables.
///
/// The half-open table comes first: a connection is promoted by an insertion into the established table and then a
/// removal from the half-open one, so a key that moves between the two look-ups is still seen.
///
/// Not inlined: it is called from several places, each of which would need its part of the stack.
///
/// # Errors
/// Those of [`Env::insert_flow`].
#[cfg_attr(feature = "flat", inline(always))]
#[cfg_attr(not(feature = "flat"), inline(never))]
pub fn claim<F: Family, E: Env<F>>(env: &mut E, scratch: &mut Scratch<F::Addr>) -> Result<(), InsertError> {
    let Scratch { parsed, flow, partner, partner_key, .. } = scratch;
    flow::init_partner::<F>(partner, partner_key, &parsed.tuple, flow);
    env.insert_flow(Table::Embryo, partner_key, partner)?;
    if env.lookup_flow(Table::Established, partner_key).is_some() {
        env.remove_flow(Table::Embryo, partner_key);
        return Err(InsertError::Exists);
    }
    Ok(())
}

/// Makes room at `scratch.partner_key`, which is taken; true if something was removed.
///
/// A remnant of the very same connection always gives way. So does, if `finished` says so, a connection that has ended
/// and waits only for its time-out; its other direction goes with it.
#[cfg_attr(feature = "flat", inline(always))]
#[cfg_attr(not(feature = "flat"), inline(never))]
pub fn make_way<F: Family, E: Env<F>>(env: &mut E, scratch: &mut Scratch<F::Addr>, finished: bool) -> bool {
    let Scratch { parsed, partner, partner_key, .. } = scratch;
    let key = &parsed.tuple;
    let mut table = Table::Established;
    if env.lookup_flow(table, partner_key).is_none() {
        table = Table::Embryo;
    }
    match env.lookup_flow(table, partner_key) {
        Some(stored) => *partner = *stored,
        None => return false,
    }
    let same =
        partner.src == key.dst && partner.dst == key.src && partner.sport == key.dport && partner.dport == key.sport;
    let gives_way = same || (finished && flow::is_finished(partner.state));
    if !gives_way {
        return false;
    }
    env.remove_flow(table, partner_key);
    if !same {
        *partner_key = flow::partner_key(partner, key.proto);
        env.remove_flow(table, partner_key);
    }
    true
}

/// Whether answers to the source of `scratch.flow` would be taken from a socket of this node, or one that listens there
/// from its clients (B30).
///
/// Not inlined, as [`claim`].
#[cfg_attr(feature = "flat", inline(always))]
#[cfg_attr(not(feature = "flat"), inline(never))]
fn is_local<F: Family, E: Env<F>>(env: &mut E, scratch: &mut Scratch<F::Addr>) -> bool {
    let Scratch { parsed, flow, partner_key, .. } = scratch;
    *partner_key = flow::partner_key(flow, parsed.tuple.proto);
    env.has_socket(partner_key)
}

/// Finds a source port within the configured range for `scratch.flow` and records the reverse flow.
///
/// The client's own port is kept if it lies in the range and is free; otherwise the search starts where `hash` says. Ports
/// of this node's sockets are left out.
/// Its second half also takes the ports of connections that have ended.
///
/// # Errors
/// [`Reason::NoSourcePort`] after [`MAX_TRIES`], [`Reason::FlowTableFull`] if the flow cannot be recorded.
#[inline(always)]
pub fn search<F: Family, E: Env<F>>(env: &mut E, scratch: &mut Scratch<F::Addr>, hash: u32) -> Result<(), Reason> {
    let (min, max) = (scratch.config.snat_port_min, scratch.config.snat_port_max);
    let own = scratch.parsed.tuple.sport.to_host();
    let span = u32::from(max.saturating_sub(min)) + 1;
    let mut offset = if min <= own && own <= max {
        u32::from(own.wrapping_sub(min))
    } else {
        ((u64::from(hash) * u64::from(span)) >> 32) as u32
    };
    let mut tries = 0;
    while tries < MAX_TRIES {
        let port = Be16::from_host(min.wrapping_add(offset as u16));
        flow::set_source_port(&mut scratch.flow, &scratch.parsed.tuple, port);
        tries += 1;
        if !is_local(env, scratch) {
            match claim(env, scratch) {
                Ok(()) => return Ok(()),
                Err(InsertError::Full) => return Err(Reason::FlowTableFull),
                Err(InsertError::Exists) => {}
            }
            if make_way(env, scratch, tries > MAX_TRIES / 2) {
                continue;
            }
        }
        offset += 1;
        if offset >= span {
            offset = 0;
        }
    }
    Err(Reason::NoSourcePort)
}
