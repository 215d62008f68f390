//! The search for a source port that no other connection to the same backend uses.

use crate::{
    csum,
    env::{Env, InsertError, Table},
    family::Family,
    flow,
    maps::{Config, Scratch, Tuple},
    net::Be16,
    reason::Reason,
};

/// Ports that are tried before a connection is refused (B29).
pub const MAX_TRIES: u32 = 32;

/// Records the reverse flow of `scratch.flow`, whose key is `key`, if its own key is free in both tables.
///
/// The half-open table comes first: a connection is promoted by an insertion into the established table and then a
/// removal from the half-open one, so a key that moves between the two look-ups is still seen.
///
/// Not inlined: it is called from several places, each of which would need its part of the stack.
///
/// # Errors
/// Those of [`Env::insert_flow`].
#[inline(never)]
pub fn claim<F: Family, E: Env<F>>(
    env: &mut E,
    scratch: &mut Scratch<F::Addr>,
    key: &Tuple<F::Addr>,
) -> Result<(), InsertError> {
    flow::init_partner::<F>(&mut scratch.partner, &mut scratch.partner_key, key, &scratch.flow);
    env.insert_flow(Table::Embryo, &scratch.partner_key, &scratch.partner)?;
    if env.lookup_flow(Table::Established, &scratch.partner_key).is_some() {
        env.remove_flow(Table::Embryo, &scratch.partner_key);
        return Err(InsertError::Exists);
    }
    Ok(())
}

/// Finds a source port within the configured range for `scratch.flow` and records the reverse flow.
///
/// The client's own port is kept if it lies in the range and is free; otherwise the search starts where `hash` says.
///
/// # Errors
/// [`Reason::NoSourcePort`] after [`MAX_TRIES`], [`Reason::FlowTableFull`] if the flow cannot be recorded.
#[inline(always)]
pub fn search<F: Family, E: Env<F>>(
    env: &mut E,
    scratch: &mut Scratch<F::Addr>,
    key: &Tuple<F::Addr>,
    hash: u32,
    config: &Config,
) -> Result<(), Reason> {
    let (min, max) = (config.snat_port_min, config.snat_port_max);
    let own = key.sport.to_host();
    let span = u32::from(max.saturating_sub(min)) + 1;
    let mut offset = ((u64::from(hash) * u64::from(span)) >> 32) as u32;
    let mut port = if min <= own && own <= max { own } else { min.wrapping_add(offset as u16) };
    let mut tries = 0;
    while tries < MAX_TRIES {
        scratch.flow.sport = Be16::from_host(port);
        let ports = csum::word_delta(key.sport, scratch.flow.sport) + csum::word_delta(key.dport, scratch.flow.dport);
        scratch.flow.port_delta = csum::fold(ports);
        match claim(env, scratch, key) {
            Ok(()) => return Ok(()),
            Err(InsertError::Full) => return Err(Reason::FlowTableFull),
            Err(InsertError::Exists) => {}
        }
        offset += 1;
        if offset >= span {
            offset = 0;
        }
        port = min.wrapping_add(offset as u16);
        tries += 1;
    }
    Err(Reason::NoSourcePort)
}
