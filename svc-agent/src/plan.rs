//! The writes that lead from what the maps hold to what is wanted, in an order that no packet notices. Pure.
//!
//! What is pointed at comes first and goes last (B77). [`install`] brings everything that is wanted: backends, then slots
//! in rows that nothing names, then the selection that names them, then frontends. [`retire`] removes what is not
//! wanted, the other way round. A pass installs every service before it retires any, so that an address which moves
//! from one service to another is served all the time.

use svc_common::maps::Selection;

use crate::apply::{AnyBackend, MapOp};
use crate::compile::image::Image;

/// Writes, and what they mean for the flows that exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The writes in order.
    pub ops: Vec<MapOp>,
    /// Whether they change or remove anything that a flow may come from, so that the epoch must rise after them.
    pub disturbs: bool,
}

/// Plans all of `target` that is not in `actual` yet, or differs there.
pub fn install(actual: &Image, target: &Image) -> Plan {
    let mut plan = Plan::default();
    if actual.is_empty() {
        plan.ops.push(MapOp::ClearCounters { service: target.service });
    }
    for (id, &value) in &target.backends {
        let found = actual.backends.get(id);
        if found != Some(&value) {
            plan.push(MapOp::SetBackend { id: id.id, value }, found.is_some());
        }
    }
    let differ = |index: &u32, selection| actual.tables.get(index).is_none_or(|found| found.selection != selection);
    let changed: Vec<_> = target.tables.iter().filter(|(index, table)| differ(index, table.selection)).collect();
    for (_, table) in &changed {
        if let Some(members) = table.members.as_ref().filter(|_| !table.selection.is_empty()) {
            let first = table.selection.offset() / svc_common::maps::SLOTS_PER_ROW;
            plan.push(MapOp::WriteRows { first, rows: target.rows(members) }, false);
        }
    }
    for (&index, table) in changed {
        let known = actual.tables.contains_key(&index);
        plan.push(MapOp::SetSelection { index, value: table.selection }, known);
    }
    // A frontend that asks for ranges finds them.
    for &range in target.ranges.difference(&actual.ranges) {
        plan.push(MapOp::SetRange { service: target.service, range }, false);
    }
    for (&key, &value) in &target.frontends {
        let found = actual.frontends.get(&key);
        if found != Some(&value) {
            plan.push(MapOp::SetFrontend { key, value }, found.is_some());
        }
    }
    plan
}

/// Plans the removal of all of `actual` that is not in `target`; of everything if that is nothing.
pub fn retire(actual: &Image, target: Option<&Image>) -> Plan {
    let mut plan = Plan::default();
    for &key in actual.frontends.keys() {
        if target.is_none_or(|target| !target.frontends.contains_key(&key)) {
            plan.push(MapOp::DeleteFrontend { key }, true);
        }
    }
    for &range in &actual.ranges {
        if target.is_none_or(|target| !target.ranges.contains(&range)) {
            // Only new connections ask.
            plan.push(MapOp::DeleteRange { service: actual.service, range }, false);
        }
    }
    for &index in actual.tables.keys() {
        if target.is_none_or(|target| !target.tables.contains_key(&index)) {
            plan.push(MapOp::SetSelection { index, value: Selection::REJECT }, true);
        }
    }
    for id in actual.backends.keys() {
        if target.is_none_or(|target| !target.backends.contains_key(id)) {
            plan.push(MapOp::SetBackend { id: id.id, value: AnyBackend::free(id.family) }, true);
        }
    }
    plan
}

impl Plan {
    /// Adds a write; `disturbs` says whether it changes or removes something.
    fn push(&mut self, op: MapOp, disturbs: bool) {
        self.ops.push(op);
        self.disturbs |= disturbs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::{Capacities, MapOp};
    use crate::compile::allocator::Allocator;
    use crate::compile::compile;
    use crate::resolve::{AddressFamily, Backend, Choice, Frontend, FrontendKind, PortKey, ResolvedPort};
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    const ROOM: Capacities =
        Capacities { frontends: 64, backends: 64, selections: 64, slot_rows: 1024, services: 64, ranges: 64 };

    /// A service port with backends of these last bytes, all ready; those up to `local` on this node.
    fn port(backends: &[u8], local: usize) -> ResolvedPort {
        let key = PortKey {
            namespace: "default".into(),
            name: "web".into(),
            port_name: String::new(),
            port: 80,
            protocol: 6,
            family: AddressFamily::V4,
        };
        let backend = |(index, &last): (usize, &u8)| Backend {
            addr: IpAddr::from([10, 0, 0, last]),
            port: 8080,
            ready: true,
            serving: true,
            terminating: false,
            local: index < local,
            node: None,
            target: None,
        };
        let frontend = |last, kind, external_local| Frontend {
            addr: IpAddr::from([10, 96, 0, last]),
            port: 80,
            kind,
            external_local,
            internal_local: false,
        };
        let choice = |count, none| if count == 0 { none } else { Choice::Backends((0..count).collect()) };
        ResolvedPort {
            key,
            service_type: "LoadBalancer".into(),
            frontends: vec![frontend(1, FrontendKind::ClusterIp, false), frontend(2, FrontendKind::LoadBalancer, true)],
            backends: backends.iter().enumerate().map(backend).collect(),
            cluster: choice(backends.len(), Choice::Reject),
            local: choice(local, Choice::Drop),
            affinity_s: None,
            source_ranges: Vec::new(),
            dsr: false,
        }
    }

    fn kinds(plan: &Plan) -> Vec<&'static str> {
        let kind = |op: &MapOp| match op {
            MapOp::SetBackend { value, .. } if value.is_free() => "clear backend",
            MapOp::SetBackend { .. } => "backend",
            MapOp::WriteRows { .. } => "rows",
            MapOp::SetSelection { .. } => "selection",
            MapOp::SetFrontend { .. } => "frontend",
            MapOp::DeleteFrontend { .. } => "delete frontend",
            MapOp::SetRange { .. } => "range",
            MapOp::DeleteRange { .. } => "delete range",
            MapOp::SetAddress { .. } => "address",
            MapOp::DeleteAddress { .. } => "delete address",
            MapOp::ClearCounters { .. } => "counters",
            MapOp::RaiseEpoch => "epoch",
        };
        plan.ops.iter().map(kind).collect()
    }

    fn apply(image: &mut Image, plan: &Plan, target: Option<&Image>) {
        plan.ops.iter().for_each(|op| image.record(op, target));
    }

    #[test]
    fn b77_a_new_service_is_written_from_backends_to_frontends_and_disturbs_nothing() {
        let mut room = Allocator::new(ROOM, &BTreeSet::new());
        let target = compile(&port(&[1, 2], 1), None, &mut room).unwrap();
        let plan = install(&Image::new(AddressFamily::V4, target.service), &target);
        let order =
            ["counters", "backend", "backend", "rows", "rows", "selection", "selection", "frontend", "frontend"];
        assert_eq!(kinds(&plan), order);
        assert!(!plan.disturbs);
    }

    #[test]
    fn b77_a_changed_service_gets_new_slots_before_the_swap_and_loses_backends_after_it() {
        let mut room = Allocator::new(ROOM, &BTreeSet::new());
        let before = compile(&port(&[1, 2], 1), None, &mut room).unwrap();
        let after = compile(&port(&[1, 3], 1), Some(&before), &mut room).unwrap();
        let mut actual = before.clone();
        let first = install(&actual, &after);
        assert_eq!(kinds(&first), ["backend", "rows", "selection"], "the local table and the frontends stay");
        assert!(first.disturbs);
        assert_ne!(before.tables[&before.cluster.unwrap()].selection, after.tables[&after.cluster.unwrap()].selection);
        apply(&mut actual, &first, Some(&after));
        let second = retire(&actual, Some(&after));
        assert_eq!(kinds(&second), ["clear backend"]);
        apply(&mut actual, &second, Some(&after));
        assert_eq!(actual, after);
        assert_eq!((install(&actual, &after), retire(&actual, Some(&after))), (Plan::default(), Plan::default()));
    }

    #[test]
    fn b77_a_removed_service_goes_from_frontends_to_backends() {
        let mut room = Allocator::new(ROOM, &BTreeSet::new());
        let mut actual = compile(&port(&[1, 2], 0), None, &mut room).unwrap();
        let plan = retire(&actual, None);
        let order = ["delete frontend", "delete frontend", "selection", "selection", "clear backend", "clear backend"];
        assert_eq!(kinds(&plan), order);
        assert!(plan.disturbs);
        apply(&mut actual, &plan, None);
        assert!(actual.is_empty());
    }

    #[test]
    fn b59_ranges_are_there_before_the_frontend_asks_for_them_and_go_after_it() {
        let mut room = Allocator::new(ROOM, &BTreeSet::new());
        let before = compile(&port(&[1, 2], 1), None, &mut room).unwrap();
        let mut closed = port(&[1, 2], 1);
        closed.source_ranges = ["10.0.0.0/8", "192.0.2.0/24", "fd00::/8"].map(|range| range.parse().unwrap()).to_vec();
        let after = compile(&closed, Some(&before), &mut room).unwrap();
        let plan = install(&before, &after);
        assert_eq!(kinds(&plan), ["range", "range", "frontend"], "of its family, for the balancer's address");
        assert_eq!(kinds(&install(&after, &before)), ["frontend"]);
        assert_eq!(kinds(&retire(&after, Some(&before))), ["delete range", "delete range"]);
        closed.source_ranges = vec!["fd00::/8".parse().unwrap()];
        let other_family = compile(&closed, Some(&before), &mut room).unwrap();
        assert_eq!(other_family, before);
    }

    #[test]
    fn b53_switching_affinity_off_begins_another_generation() {
        let mut room = Allocator::new(ROOM, &BTreeSet::new());
        let mut sticky = port(&[1, 2], 1);
        sticky.affinity_s = Some(60);
        let flags =
            |image: &Image| image.frontends.values().map(|frontend| frontend.flags >> 24).collect::<BTreeSet<_>>();
        let mut image = compile(&sticky, None, &mut room).unwrap();
        for generation in (0..=255).chain(0..2) {
            assert_eq!(flags(&image), BTreeSet::from([generation]));
            let same = compile(&sticky, Some(&image), &mut room).unwrap();
            assert_eq!(same, image);
            let off = compile(&port(&[1, 2], 1), Some(&image), &mut room).unwrap();
            image = compile(&sticky, Some(&off), &mut room).unwrap();
        }
    }

    #[test]
    fn b52_backends_say_which_sets_they_are_in() {
        use svc_common::maps::backend_flags::{CLUSTER_SET, LOCAL_SET};
        let mut room = Allocator::new(ROOM, &BTreeSet::new());
        let mut some = port(&[1, 2, 3], 1);
        some.cluster = Choice::Backends(vec![0, 1]);
        let image = compile(&some, None, &mut room).unwrap();
        let sets = image.backends.values().map(|backend| match backend {
            AnyBackend::V4(backend) => backend.flags & (CLUSTER_SET | LOCAL_SET),
            AnyBackend::V6(_) => panic!("an IPv4 service"),
        });
        assert_eq!(sets.collect::<Vec<_>>(), [CLUSTER_SET | LOCAL_SET, CLUSTER_SET, 0]);
    }

    #[test]
    fn b64_b55_an_empty_choice_is_a_selection_without_slots() {
        let mut room = Allocator::new(ROOM, &BTreeSet::new());
        let none = compile(&port(&[], 0), None, &mut room).unwrap();
        assert_eq!(none.tables[&none.cluster.unwrap()].selection, Selection::REJECT);
        assert_eq!(none.tables[&none.local.unwrap()].selection, Selection::DROP);
        let some = compile(&port(&[7], 1), Some(&none), &mut room).unwrap();
        let plan = install(&none, &some);
        assert_eq!(kinds(&plan), ["backend", "rows", "rows", "selection", "selection"]);
    }

    #[test]
    fn b14_a_terminating_backend_keeps_its_id_and_leaves_the_tables() {
        let mut room = Allocator::new(ROOM, &BTreeSet::new());
        let before = compile(&port(&[1, 2], 0), None, &mut room).unwrap();
        let mut draining = port(&[1, 2], 0);
        (draining.backends[1].ready, draining.backends[1].terminating) = (false, true);
        draining.cluster = Choice::Backends(vec![0]);
        let after = compile(&draining, Some(&before), &mut room).unwrap();
        assert_eq!(before.backends.keys().collect::<Vec<_>>(), after.backends.keys().collect::<Vec<_>>());
        assert_eq!(kinds(&install(&before, &after)), ["backend", "rows", "selection"]);
        assert_eq!(retire(&before, Some(&after)), Plan::default());
    }

    #[test]
    fn what_flows_were_derived_from_disturbs_by_itself() {
        let mut room = Allocator::new(ROOM, &BTreeSet::new());
        let before = compile(&port(&[1, 2], 1), None, &mut room).unwrap();
        let mut failing = port(&[1, 2], 1);
        failing.backends[1].serving = false;
        let plan = install(&before, &compile(&failing, Some(&before), &mut room).unwrap());
        assert_eq!((kinds(&plan), plan.disturbs), (vec!["backend"], true));
        // A selection that no frontend names any more.
        let mut open = port(&[1, 2], 1);
        open.frontends[1].external_local = false;
        let plan = retire(&before, Some(&compile(&open, Some(&before), &mut room).unwrap()));
        assert_eq!((kinds(&plan), plan.disturbs), (vec!["selection"], true));
    }

    #[test]
    fn a_backend_is_in_the_cluster_if_its_node_is_known() {
        use svc_common::maps::backend_flags::IN_CLUSTER;
        let mut room = Allocator::new(ROOM, &BTreeSet::new());
        let mut some = port(&[1, 2], 0);
        some.backends[1].node = Some("b".to_owned());
        let image = compile(&some, None, &mut room).unwrap();
        let inside = image.backends.values().map(|backend| match backend {
            AnyBackend::V4(backend) => backend.flags & IN_CLUSTER != 0,
            AnyBackend::V6(_) => panic!("an IPv4 service"),
        });
        assert_eq!(inside.collect::<Vec<_>>(), [false, true]);
    }
}
