//! Random histories of what is wanted, with failing writes, restarts and full maps.
//!
//! After every single write, every frontend must lead to selections, slots and backends that are its own, and must give
//! an answer that was right before the pass or is right after it (B77).

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;
use proptest::prelude::*;
use svc_common::maps::SLOTS_PER_ROW;

use super::*;
use crate::apply::MapOp;

/// Addresses that services may have, of either family.
const VIPS: usize = 8;
/// Services that there may be; each may have a port in either family.
const SERVICES: usize = 4;
/// Endpoints that each service port may have.
const ENDPOINTS: usize = 6;

/// What a VIP is for: the service, and whether packets from outside and inside use its local set. Odd VIPs are IPv6.
type Vip = Option<(usize, bool, bool)>;

/// The endpoints of one service port: none, or how far it is: 0 ready, 1 ready here, 2 not ready, 3 terminating.
type Endpoints = [Option<u8>; ENDPOINTS];

/// What is wanted at one time.
#[derive(Clone, Debug)]
struct World {
    vips: [Vip; VIPS],
    endpoints: [[Endpoints; 2]; SERVICES],
    affinity: [bool; SERVICES],
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// A pass for this world.
    Want(World),
    /// A pass that sees one VIP, one endpoint change.
    Change(usize, Vip, usize, usize, Option<u8>),
    /// A pass in which a write fails.
    Fail(World, usize),
    /// A new agent; its first pass does not know all inputs.
    Restart(World),
}

// Boxed, for the strategies are large and proptest keeps them on the stack.
fn endpoints() -> BoxedStrategy<Endpoints> {
    prop_oneof![1 => Just([None; ENDPOINTS]), 4 => prop::array::uniform6(prop::option::of(0_u8..4))].boxed()
}

fn vip() -> BoxedStrategy<Vip> {
    prop::option::of((0..SERVICES, any::<bool>(), prop::bool::weighted(0.3))).boxed()
}

fn world() -> BoxedStrategy<World> {
    let endpoints = prop::array::uniform4(prop::array::uniform2(endpoints()));
    (prop::array::uniform8(vip()), endpoints, prop::array::uniform4(any::<bool>()))
        .prop_map(|(vips, endpoints, affinity)| World { vips, endpoints, affinity })
        .boxed()
}

fn step() -> BoxedStrategy<Step> {
    let change = (0..VIPS, vip(), 0..SERVICES, 0..2 * ENDPOINTS, prop::option::of(0_u8..4));
    prop_oneof![
        2 => world().prop_map(Step::Want),
        4 => change.prop_map(|(vip, to, service, endpoint, is)| Step::Change(vip, to, service, endpoint, is)),
        2 => (world(), 0_usize..40).prop_map(|(world, writes)| Step::Fail(world, writes)),
        1 => world().prop_map(Step::Restart),
    ]
    .boxed()
}

fn vip_addr(vip: usize) -> IpAddr {
    if vip.is_multiple_of(2) { [10, 96, 0, vip as u8].into() } else { [0xfd00, 0, 0, 0, 0, 0, 0, vip as u16].into() }
}

impl World {
    /// A service port of this world, if it has any address.
    fn port(&self, service: usize, family: usize) -> Option<ResolvedPort> {
        let endpoint_addr = |n: usize| -> IpAddr {
            if family == 0 { [10, 0, 0, n as u8].into() } else { [0xfd01, 0, 0, 0, 0, 0, 0, n as u16].into() }
        };
        let vips = (0..VIPS).filter(|vip| vip % 2 == family);
        let frontends: Vec<_> = vips
            .filter_map(|vip| Some((vip, self.vips[vip].filter(|(owner, ..)| *owner == service)?)))
            .map(|(vip, (_, external_local, internal_local))| Frontend {
                addr: vip_addr(vip),
                external_local,
                internal_local,
                ..frontend(0)
            })
            .collect();
        let states: Vec<_> = self.endpoints[service][family].iter().copied().enumerate().collect();
        let states: Vec<_> = states.into_iter().filter_map(|(n, state)| Some((n, state?))).collect();
        let backends = states.iter().map(|&(n, state)| Backend {
            addr: endpoint_addr(n),
            ready: state < 2,
            local: state == 1,
            terminating: state == 3,
            ..backend(0)
        });
        let choose = |here: bool, none: Choice| {
            let chosen: Vec<_> = (0..states.len()).filter(|&i| states[i].1 == 1 || !here && states[i].1 == 0).collect();
            if chosen.is_empty() { none } else { Choice::Backends(chosen) }
        };
        let cluster = choose(false, Choice::Reject);
        let none_here = if cluster == Choice::Reject { Choice::Reject } else { Choice::Drop };
        let mut port = service_port(service, family);
        port.local = choose(true, none_here);
        port.cluster = cluster;
        port.backends = backends.collect();
        port.affinity_s = self.affinity[service].then_some(60);
        // As many as there are endpoints, so that they change as often.
        port.source_ranges =
            (0..states.len()).map(|n| IpNet::new(endpoint_addr(n), 24).expect("a range").trunc()).collect();
        port.source_ranges.sort_unstable();
        port.source_ranges.dedup();
        port.frontends = frontends;
        (!port.frontends.is_empty()).then_some(port)
    }

    /// What is wanted. Services that are as in `before` keep their `Arc`.
    fn desired(&self, before: &Desired) -> Desired {
        let ports = (0..SERVICES).flat_map(|service| [self.port(service, 0), self.port(service, 1)]);
        let mut desired = desired(ports.flatten());
        desired.services.retain(|name, ports| {
            if let Some(same) = before.services.get(name).filter(|same| *same == ports) {
                *ports = Arc::clone(same);
            }
            true
        });
        desired
    }
}

fn service_port(number: usize, family: usize) -> ResolvedPort {
    let mut port = service(&format!("s{number}"), 0, &[]);
    port.key.family = [AddressFamily::V4, AddressFamily::V6][family];
    port
}

/// What a choice answers.
fn answer(port: &ResolvedPort, choice: &Choice) -> Answer {
    match choice {
        Choice::Reject => Answer::Reject,
        Choice::Drop => Answer::Drop,
        Choice::Backends(chosen) => {
            Answer::Backends(chosen.iter().map(|&i| (port.backends[i].addr, port.backends[i].port)).collect())
        }
    }
}

/// What every VIP of a desired state answers, to packets from outside and from inside.
fn model(desired: &Desired) -> BTreeMap<AnyFrontendKey, [Answer; 2]> {
    let mut model = BTreeMap::new();
    for port in desired.services.values().flat_map(|ports| ports.iter()) {
        for frontend in &port.frontends {
            let scope = |local| answer(port, if local { &port.local } else { &port.cluster });
            let key = AnyFrontendKey::new(frontend.addr, frontend.port, 6);
            model.insert(key, [scope(frontend.external_local), scope(frontend.internal_local)]);
        }
    }
    model
}

/// Both sets of the port that a frontend belongs to, if any.
fn sets<'a>(desired: &'a Desired, is_it: impl Fn(&ResolvedPort) -> bool + 'a) -> impl Iterator<Item = Answer> + 'a {
    let ports = desired.services.values().flat_map(|ports| ports.iter()).filter(move |port| is_it(port));
    ports.flat_map(|port| [answer(port, &port.cluster), answer(port, &port.local)])
}

/// Carries out the writes of a pass one by one and looks at every state between.
fn replay(before: &FakeStore, log: &[MapOp], desired: &Desired, owners: [&HashMap<u32, PortKey>; 2], report: &Report) {
    // An address that moves to a service which could not be installed is served no more when the former one goes.
    let mut installed = desired.clone();
    let troubled = report.refused.iter().chain(&report.failed).map(|(name, _)| name);
    troubled.chain(&report.held).for_each(|name| drop(installed.services.remove(name)));
    let after = model(&installed);
    let vips: Vec<_> = (0..VIPS).map(|vip| AnyFrontendKey::new(vip_addr(vip), 80, 6)).collect();
    // What may be seen: what was, and what both sets of the new and of the former owner shall be. An image that was found
    // at the start may go to another service than the one that wrote it.
    let mut right: HashMap<AnyFrontendKey, BTreeSet<Answer>> = HashMap::new();
    for &key in &vips {
        let right = right.entry(key).or_default();
        right.extend(answers(before, &key).into_iter().flatten());
        let has = |port: &ResolvedPort| port.frontends.iter().any(|f| AnyFrontendKey::new(f.addr, f.port, 6) == key);
        right.extend(sets(desired, has));
        for owners in owners {
            let former = before.frontends.get(&key).and_then(|frontend| owners.get(&frontend.service));
            right.extend(former.into_iter().flat_map(|former| sets(desired, |port| port.key == *former)));
        }
    }
    let (mut freed_ids, mut used_rows) = (BTreeSet::new(), BTreeSet::new());
    let rows = |selection: Selection| {
        let first = selection.offset() / SLOTS_PER_ROW;
        first..first + selection.len().div_ceil(SLOTS_PER_ROW)
    };
    for frontend in before.frontends.values() {
        for index in [frontend.external, frontend.internal] {
            used_rows.extend(before.selections.get(&index).copied().map(rows).into_iter().flatten());
        }
    }

    let mut store = before.clone();
    let mut named: HashMap<Selection, BTreeSet<u32>> = HashMap::new();
    for op in log {
        match op {
            MapOp::SetBackend { id, value } if value.is_free() => drop(freed_ids.insert((value.family(), *id))),
            MapOp::SetBackend { id, value } => {
                assert!(!freed_ids.contains(&(value.family(), *id)), "id {id} was freed in this pass");
            }
            MapOp::WriteRows { first, rows } => {
                let written = *first..first + rows.len() as u32;
                assert!(!written.clone().any(|row| used_rows.contains(&row)), "rows {written:?} were in use");
                named.clear();
            }
            MapOp::SetSelection { value, .. } => used_rows.extend(rows(*value)),
            MapOp::SetFrontend { .. } | MapOp::DeleteFrontend { .. } => {}
            MapOp::SetRange { .. } | MapOp::DeleteRange { .. } => {}
            MapOp::SetAddress { .. } | MapOp::DeleteAddress { .. } => {}
            MapOp::ClearCounters { .. } | MapOp::RaiseEpoch => {}
        }
        store.write(op).unwrap();
        let mut remember = |selection| named.entry(selection).or_insert_with(|| store.named_by(selection)).clone();
        store.check_with(&mut remember).unwrap_or_else(|error| panic!("{error:#} after {op:?} of {log:#?}"));
        for key in &vips {
            let Some(frontend) = store.frontends.get(key) else {
                let may_be_absent = !before.frontends.contains_key(key) || !after.contains_key(key);
                assert!(may_be_absent, "{key:?} is gone after {op:?} of {log:#?}");
                continue;
            };
            for index in [frontend.external, frontend.internal] {
                let answer = match store.selections.get(&index).copied().unwrap_or_default() {
                    Selection::REJECT => Answer::Reject,
                    Selection::DROP => Answer::Drop,
                    table => {
                        let ids = remember(table);
                        Answer::Backends(ids.iter().map(|id| store.backends[&(key.family(), *id)].name()).collect())
                    }
                };
                assert!(right[key].contains(&answer), "{key:?} answers {answer:?} after {op:?} of {log:#?}");
            }
        }
    }
}

/// Whether a pass changed or removed anything that was there.
fn disturbs(before: &FakeStore, log: &[MapOp]) -> bool {
    let served: BTreeSet<u32> = before.frontends.values().flat_map(|f| [f.external, f.internal]).collect();
    log.iter().any(|op| match op {
        MapOp::SetBackend { id, value } => before.backends.contains_key(&(value.family(), *id)),
        MapOp::SetSelection { index, .. } => served.contains(index),
        MapOp::SetFrontend { key, .. } => before.frontends.contains_key(key),
        MapOp::DeleteFrontend { .. } => true,
        MapOp::SetAddress { .. } | MapOp::DeleteAddress { .. } => false,
        MapOp::SetRange { .. } | MapOp::DeleteRange { .. } => false,
        MapOp::WriteRows { .. } | MapOp::ClearCounters { .. } | MapOp::RaiseEpoch => false,
    })
}

/// A reconciler and what it was asked for.
struct History {
    reconciler: Reconciler<FakeStore>,
    world: World,
    desired: Desired,
    /// Whose each service id is or was.
    owners: HashMap<u32, PortKey>,
}

impl History {
    fn new(capacities: Capacities) -> Self {
        let store = FakeStore { recording: true, ..FakeStore::new(capacities) };
        let nothing =
            World { vips: [None; VIPS], endpoints: [[[None; ENDPOINTS]; 2]; SERVICES], affinity: [false; SERVICES] };
        let reconciler = Reconciler::new(store);
        Self { reconciler, world: nothing, desired: Desired::default(), owners: HashMap::new() }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Want(world) => drop(self.pass(world, true, None)),
            Step::Change(vip, to, service, endpoint, is) => {
                let mut world = self.world.clone();
                world.vips[vip] = to;
                world.endpoints[service][endpoint % 2][endpoint / 2] = is;
                self.pass(world, true, None);
            }
            Step::Fail(world, writes) => drop(self.pass(world, true, Some(writes))),
            Step::Restart(world) => {
                self.reconciler = restarted(&self.reconciler);
                self.pass(world, false, None);
            }
        }
    }

    /// One pass and all that must hold after it, whatever happened.
    fn pass(&mut self, world: World, complete: bool, fail_after: Option<usize>) -> Report {
        let mut desired = world.desired(&self.desired);
        desired.complete = complete;
        let before = self.reconciler.store().clone();
        let store = self.reconciler.store_mut();
        (store.fail_after, store.log) = (fail_after, Vec::new());
        let report = self.reconciler.reconcile(&desired);
        self.reconciler.store_mut().fail_after = None;
        let log = std::mem::take(&mut self.reconciler.store_mut().log);
        assert_eq!(report.writes, log.len());

        replay(&before, &log, &desired, [&self.owners, &self.reconciler.programmed().read().services], &report);
        let failed = !report.failed.is_empty() || report.error.is_some();
        assert!(!failed || fail_after.is_some(), "{report:?}");
        assert!(report.held.is_empty() || !complete, "{report:?}");
        if !failed {
            let rises = log.iter().filter(|op| matches!(op, MapOp::RaiseEpoch)).count();
            assert!(rises <= 1 && (rises == 0 || log.last() == Some(&MapOp::RaiseEpoch)), "{log:#?}");
            assert!(rises == 1 || !disturbs(&before, &log), "{log:#?}");
        }
        self.check_accounts();
        if complete && !report.wants_retry() {
            self.check_done(&desired);
        }
        self.owners.extend(self.reconciler.programmed().read().services.clone());
        (self.world, self.desired) = (world, desired);
        report
    }

    /// What is not free is in the maps, and the other way round.
    fn check_accounts(&self) {
        let (store, state) = (self.reconciler.store(), self.reconciler.state.as_ref().unwrap());
        let known = state.services.values().flat_map(|known| known.ports.values());
        let images: Vec<_> = known.chain(state.leftovers.values().map(|leftover| &leftover.image)).collect();
        let frontends: BTreeMap<_, _> = images.iter().flat_map(|image| image.frontends.clone()).collect();
        assert_eq!(frontends, store.frontends);
        let backends = images.iter().flat_map(|image| &image.backends);
        let backends: BTreeMap<_, _> = backends.map(|(id, &backend)| ((id.family, id.id), backend)).collect();
        assert_eq!(backends, store.backends);
        let tables: BTreeMap<_, _> = images.iter().flat_map(|image| &image.tables).collect();
        let found = |(index, _): &(&u32, &Selection)| !state.strays.contains(index);
        let selections: BTreeMap<_, _> = store.selections.iter().filter(found).collect();
        let not_zero = tables.iter().map(|(&index, table)| (index, &table.selection));
        assert_eq!(not_zero.filter(|(_, word)| **word != Selection::REJECT).collect::<BTreeMap<_, _>>(), selections);

        let rows = tables.values().map(|table| table.selection.len().div_ceil(SLOTS_PER_ROW) as usize).sum::<usize>();
        let count = |family| backends.keys().filter(|(of, _)| *of == family).count();
        let all = store.capacities;
        let free = [
            all.services as usize - 1 - images.len(),
            all.selections as usize - 1 - tables.len() - state.strays.len(),
            all.backends as usize - 1 - count(AddressFamily::V4),
            all.backends as usize - 1 - count(AddressFamily::V6),
            all.slot_rows as usize - rows,
        ];
        assert_eq!(state.room.free_counts(), free);
    }

    /// The maps hold what is wanted and nothing else; neither this agent nor a new one finds anything to do.
    fn check_done(&mut self, desired: &Desired) {
        let store = self.reconciler.store();
        let found = store.frontends.keys().map(|key| (*key, answers(store, key).unwrap()));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), model(desired));
        let ports: Vec<_> = desired.services.values().flat_map(|ports| ports.iter()).collect();
        assert_eq!(store.backends.len(), ports.iter().map(|port| port.backends.len()).sum::<usize>());
        let vips: BTreeSet<_> = model(desired).keys().map(|key| key.name().0).collect();
        assert_eq!(store.addresses.keys().copied().collect::<BTreeSet<_>>(), vips);
        assert_eq!(self.reconciler.programmed().read().ports.len(), ports.len());

        let mut again = desired.clone();
        again.services.retain(|_, ports| {
            *ports = Arc::new(ports.to_vec());
            true
        });
        assert_eq!(self.reconciler.reconcile(&again), Report { changed: again.services.len(), ..Report::default() });
        self.reconciler.reconcile(desired);
        let mut next = restarted(&self.reconciler);
        assert_eq!(next.reconcile(desired).writes, 0);
        assert_eq!(next.programmed().read().ports, self.reconciler.programmed().read().ports);
        self.reconciler.store_mut().log.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn b77_no_write_of_any_history_leaves_a_dangling_reference(steps in proptest::collection::vec(step(), 1..10)) {
        let mut history = History::new(ROOMY);
        for step in steps {
            history.step(step);
        }
        let world = history.world.clone();
        history.pass(world.clone(), true, None);
        let report = history.pass(world, true, None);
        prop_assert!(!report.wants_retry(), "{report:?}");
    }

    #[test]
    fn b80_full_maps_lose_nothing_and_heal(steps in proptest::collection::vec(step(), 1..10), last in world()) {
        let tight = Capacities { frontends: 6, backends: 9, selections: 7, slot_rows: 64 * 4 + 3, services: 5, ranges: 3 };
        let mut history = History::new(tight);
        for step in steps {
            history.step(step);
        }
        // Once all is gone, one service with an address of each family fits.
        history.pass(World { vips: [None; VIPS], ..last.clone() }, true, None);
        let mut world = last;
        world.vips = [Some((0, false, false)), Some((0, true, false)), None, None, None, None, None, None];
        let report = history.pass(world, true, None);
        prop_assert!(!report.wants_retry(), "{report:?}");
    }
}
