//! The map image of a service port: Maglev tables, ids, map values. Pure, given the ids that are free.

pub mod allocator;
pub mod ids;
pub mod image;
pub mod maglev;
pub mod rows;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use svc_common::maps::{self, Selection, backend_flags, frontend_flags};
use svc_common::net::proto;

use self::allocator::{Allocator, BackendId, Full};
use self::image::{Image, Table};
use crate::apply::{AnyBackend, AnyFrontendKey};
use crate::resolve::{AddressFamily, Backend, Choice, Frontend, FrontendKind, ResolvedPort};

/// Makes the image of `port`, with the ids and tables of `old`, what it has in the maps, as far as they fit.
///
/// # Errors
/// [`Full`] if there is not enough room for all of it. What was taken until then is for the caller to give back.
pub fn compile(port: &ResolvedPort, old: Option<&Image>, room: &mut Allocator) -> Result<Image, Full> {
    let service = old.map_or_else(|| room.service(), |old| Ok(old.service))?;
    let mut image = Image::new(port.key.family, service);

    let ids = backend_ids(port, old, room)?;
    for (index, backend) in port.backends.iter().enumerate() {
        if let Some(&id) = ids.get(&(backend.addr, backend.port)) {
            let flags = flags_of(backend) | sets_of(port, index);
            let value = AnyBackend::new(backend.addr, backend.port, flags, service);
            image.backends.entry(id).or_insert(value);
        }
    }

    let scopes = || port.frontends.iter().flat_map(|frontend| [frontend.external_local, frontend.internal_local]);
    if scopes().any(|local| !local) {
        let index = index(old.and_then(|old| old.cluster), old, room)?;
        image.tables.insert(index, table(members(port, &port.cluster, &ids), index, old, room)?);
        image.cluster = Some(index);
    }
    if scopes().any(|local| local) {
        let index = index(old.and_then(|old| old.local), old, room)?;
        image.tables.insert(index, table(members(port, &port.local, &ids), index, old, room)?);
        image.local = Some(index);
    }

    let affinity = affinity(port, old);
    for frontend in port.frontends.iter().filter(|frontend| in_family(frontend.addr, port.key.family)) {
        // Another node does not know this node's addresses as frontends, and no datapath unpacks anything but TCP and UDP.
        let unpacked = matches!(port.key.protocol, proto::TCP | proto::UDP);
        let tunnel = port.dsr && unpacked && frontend.kind != FrontendKind::NodePort;
        let dsr = if tunnel { frontend_flags::DSR } else { 0 };
        let scope = |local| if local { image.local } else { image.cluster }.unwrap_or(0);
        let value = maps::Frontend {
            service,
            external: scope(frontend.external_local),
            internal: scope(frontend.internal_local),
            flags: flags_of_kind(frontend.kind)
                | flags_of_scopes(frontend)
                | affinity
                | dsr
                | flag_of_ranges(port, frontend),
            affinity_s: port.affinity_s.unwrap_or(0),
        };
        let key = AnyFrontendKey::new(frontend.addr, frontend.port, port.key.protocol);
        image.frontends.entry(key).or_insert(value);
    }
    if image.frontends.values().any(|frontend| frontend.flags & frontend_flags::SOURCE_RANGES != 0) {
        image.ranges.extend(port.source_ranges.iter().filter(|range| in_family(range.addr(), port.key.family)));
    }
    Ok(image)
}

/// The ids of the backends by address and port: the one that each has, or a new one.
fn backend_ids(
    port: &ResolvedPort,
    old: Option<&Image>,
    room: &mut Allocator,
) -> Result<BTreeMap<(IpAddr, u16), BackendId>, Full> {
    let had = old.map(Image::backend_ids).unwrap_or_default();
    let mut ids = BTreeMap::new();
    for backend in port.backends.iter().filter(|backend| in_family(backend.addr, port.key.family)) {
        let name = (backend.addr, backend.port);
        if let Entry::Vacant(entry) = ids.entry(name) {
            entry.insert(had.get(&name).map_or_else(|| room.backend(port.key.family), |&id| Ok(id))?);
        }
    }
    Ok(ids)
}

/// The index of a selection: the one it has in the maps, or a new one.
fn index(had: Option<u32>, old: Option<&Image>, room: &mut Allocator) -> Result<u32, Full> {
    match had.filter(|had| old.is_some_and(|old| old.tables.contains_key(had))) {
        Some(index) => Ok(index),
        None => room.selection(),
    }
}

/// The ids that a choice names, sorted by address and port; or the selection of none.
fn members(
    port: &ResolvedPort,
    choice: &Choice,
    ids: &BTreeMap<(IpAddr, u16), BackendId>,
) -> Result<Vec<u32>, Selection> {
    let chosen = match choice {
        Choice::Backends(chosen) => chosen,
        Choice::Reject => return Err(Selection::REJECT),
        Choice::Drop => return Err(Selection::DROP),
    };
    let chosen = chosen.iter().filter_map(|&index| port.backends.get(index));
    let mut named: Vec<_> = chosen
        .filter_map(|backend| ids.get_key_value(&(backend.addr, backend.port)))
        .map(|(name, id)| (name, id.id))
        .collect();
    named.sort_unstable();
    named.dedup();
    if named.is_empty() { Err(Selection::REJECT) } else { Ok(named.into_iter().map(|(_, id)| id).collect()) }
}

/// The table of these members: the one at `index` in the maps if it is just that, or a new one elsewhere.
fn table(
    members: Result<Vec<u32>, Selection>,
    index: u32,
    old: Option<&Image>,
    room: &mut Allocator,
) -> Result<Table, Full> {
    let members = match members {
        Ok(members) => members,
        Err(reason) => return Ok(Table::empty(reason)),
    };
    match old.and_then(|old| old.tables.get(&index)) {
        Some(table) if table.members.as_ref() == Some(&members) => Ok(table.clone()),
        _ => {
            let slots = maglev::size(members.len()).ok_or(Full::TooManyBackends { backends: members.len() })?;
            Ok(Table { selection: room.rows(slots)?, members: Some(members) })
        }
    }
}

/// Whether an address can be an element of the maps of a family.
const fn in_family(addr: IpAddr, family: AddressFamily) -> bool {
    matches!((addr, family), (IpAddr::V4(_), AddressFamily::V4) | (IpAddr::V6(_), AddressFamily::V6))
}

/// The kind of address as the datapath knows it.
const fn flags_of_kind(kind: FrontendKind) -> u32 {
    match kind {
        FrontendKind::ClusterIp => frontend_flags::CLUSTER_IP,
        FrontendKind::NodePort => frontend_flags::NODE_PORT,
        FrontendKind::LoadBalancer => frontend_flags::LOAD_BALANCER,
        FrontendKind::ExternalIp => frontend_flags::EXTERNAL_IP,
    }
}

/// Which selections belong to the local set.
fn flags_of_scopes(frontend: &Frontend) -> u32 {
    let flags = [
        (frontend.external_local, frontend_flags::EXTERNAL_LOCAL),
        (frontend.internal_local, frontend_flags::INTERNAL_LOCAL),
    ];
    flags.iter().filter(|(holds, _)| *holds).fold(0, |flags, (_, flag)| flags | flag)
}

/// Source ranges are for the addresses of load balancers (B59). A family without any is open: the list is for the other.
fn flag_of_ranges(port: &ResolvedPort, frontend: &Frontend) -> u32 {
    let own = port.source_ranges.iter().any(|range| in_family(range.addr(), port.key.family));
    if own && frontend.kind == FrontendKind::LoadBalancer { frontend_flags::SOURCE_RANGES } else { 0 }
}

/// The flag of affinity and its generation, which is another after affinity was switched off (B53).
fn affinity(port: &ResolvedPort, old: Option<&Image>) -> u32 {
    let had = || old.into_iter().flat_map(|old| old.frontends.values()).map(|frontend| frontend.flags);
    let mut generation = had().map(|flags| flags >> frontend_flags::GENERATION_SHIFT).max().unwrap_or(0);
    let is_on = port.affinity_s.is_some();
    if !is_on && had().any(|flags| flags & frontend_flags::AFFINITY != 0) {
        generation += 1;
    }
    // Eight bits; what is shifted out is gone.
    (generation << frontend_flags::GENERATION_SHIFT) | if is_on { frontend_flags::AFFINITY } else { 0 }
}

/// The sets that a backend is in.
fn sets_of(port: &ResolvedPort, index: usize) -> u16 {
    let has = |choice: &Choice| matches!(choice, Choice::Backends(chosen) if chosen.contains(&index));
    let sets = [(&port.cluster, backend_flags::CLUSTER_SET), (&port.local, backend_flags::LOCAL_SET)];
    sets.iter().filter(|(choice, _)| has(choice)).fold(0, |flags, (_, flag)| flags | flag)
}

/// The state of a backend as the datapath knows it.
fn flags_of(backend: &Backend) -> u16 {
    let states = [
        (backend.ready, backend_flags::READY),
        (backend.serving, backend_flags::SERVING),
        (backend.terminating, backend_flags::TERMINATING),
        (backend.local, backend_flags::LOCAL),
        (backend.node.is_some(), backend_flags::IN_CLUSTER),
    ];
    states.iter().filter(|(holds, _)| *holds).fold(backend_flags::PRESENT, |flags, (_, flag)| flags | flag)
}
