//! The map image of a service port: Maglev tables, ids, map values. Pure, given the ids that are free.

pub mod allocator;
pub mod ids;
pub mod image;
pub mod maglev;
pub mod rows;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use svc_common::maps::{self, Selection, backend_flags, frontend_flags};

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
        let dsr = if port.dsr { frontend_flags::DSR } else { 0 };
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
        if port.dsr && frontend.kind == FrontendKind::NodePort {
            // What clients dialled at other nodes, and those send here; the balancing node's address is not known here.
            let key = AnyFrontendKey::new(unspecified(port.key.family), frontend.port, port.key.protocol);
            image.frontends.entry(key).or_insert(value);
        }
    }
    if image.frontends.values().any(|frontend| frontend.flags & frontend_flags::SOURCE_RANGES != 0) {
        image.ranges.extend(port.source_ranges.iter().filter(|range| in_family(range.addr(), port.key.family)));
    }
    Ok(image)
}

/// Stands for the address of any node, see `FrontendKey::of_any_node`.
const fn unspecified(family: AddressFamily) -> IpAddr {
    match family {
        AddressFamily::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::apply::Capacities;
    use crate::resolve::PortKey;

    fn image(kind: FrontendKind, protocol: u8, dsr: bool) -> Image {
        let key = PortKey {
            namespace: "default".into(),
            name: "web".into(),
            port_name: String::new(),
            port: 80,
            protocol,
            family: AddressFamily::V6,
        };
        let addr = "2001:db8::10".parse().unwrap();
        let frontend = Frontend { addr, port: 30_080, kind, external_local: false, internal_local: false };
        let port = ResolvedPort {
            key,
            service_type: "NodePort".into(),
            frontends: vec![frontend],
            backends: Vec::new(),
            cluster: Choice::Reject,
            local: Choice::Drop,
            affinity_s: None,
            source_ranges: Vec::new(),
            dsr,
        };
        let room = Capacities { frontends: 8, backends: 8, selections: 8, slot_rows: 64, services: 8, ranges: 8 };
        compile(&port, None, &mut Allocator::new(room, &BTreeSet::new())).unwrap()
    }

    #[test]
    fn b28_a_node_port_with_direct_server_return_is_known_by_its_port_alone() {
        let [node, any] = ["2001:db8::10", "::"].map(|addr| addr.parse().unwrap());
        for protocol in [6, 17, 132] {
            let keys = |kind, dsr| image(kind, protocol, dsr).frontends.into_iter().collect::<Vec<_>>();
            let key = |addr| AnyFrontendKey::new(addr, 30_080, protocol);
            let found = keys(FrontendKind::NodePort, true);
            assert_eq!(found.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key(any), key(node)]);
            assert!(found.iter().all(|(_, value)| value.flags & frontend_flags::DSR != 0), "{found:?}");
            let others = [(FrontendKind::NodePort, false), (FrontendKind::LoadBalancer, true)];
            for (kind, dsr) in others {
                let found = keys(kind, dsr);
                assert_eq!(found.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key(node)]);
                assert_eq!(found[0].1.flags & frontend_flags::DSR != 0, dsr);
            }
        }
    }
}
