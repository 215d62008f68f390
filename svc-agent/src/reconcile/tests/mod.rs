//! Whole passes over the maps in memory.

mod capacity;
mod order;
mod random;
mod restart;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use svc_common::maps::Selection;

use super::{Reconciler, Report};
use crate::apply::fake::FakeStore;
use crate::apply::{AnyFrontendKey, Capacities};
use crate::resolve::{
    AddressFamily, Backend, Choice, Desired, Frontend, FrontendKind, PortKey, ResolvedPort, ServiceName,
};

/// Room for all that the tests do.
const ROOMY: Capacities =
    Capacities { frontends: 256, backends: 256, selections: 256, slot_rows: 8192, services: 256, ranges: 64 };

/// What an address does with a new connection: the backends that it goes to, or why to none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Backends(BTreeSet<(IpAddr, u16)>),
    Reject,
    Drop,
}

/// A ClusterIP service `default/<name>` at 10.96.0.`vip`, port 80, with ready backends 10.0.0.`backends`.
fn service(name: &str, vip: u8, backends: &[u8]) -> ResolvedPort {
    let key = PortKey {
        namespace: "default".into(),
        name: name.into(),
        port_name: String::new(),
        port: 80,
        protocol: 6,
        family: AddressFamily::V4,
    };
    let count = backends.len();
    ResolvedPort {
        key,
        service_type: "ClusterIP".into(),
        frontends: vec![frontend(vip)],
        backends: backends.iter().map(|&last| backend(last)).collect(),
        cluster: if count == 0 { Choice::Reject } else { Choice::Backends((0..count).collect()) },
        local: Choice::Drop,
        affinity_s: None,
        source_ranges: Vec::new(),
        dsr: false,
    }
}

fn frontend(last: u8) -> Frontend {
    let addr = IpAddr::from([10, 96, 0, last]);
    Frontend { addr, port: 80, kind: FrontendKind::ClusterIp, external_local: false, internal_local: false }
}

fn backend(last: u8) -> Backend {
    Backend {
        addr: IpAddr::from([10, 0, 0, last]),
        port: 8080,
        ready: true,
        serving: true,
        terminating: false,
        local: false,
        node: None,
        target: None,
    }
}

/// What is wanted when all inputs are known.
fn desired(ports: impl IntoIterator<Item = ResolvedPort>) -> Desired {
    let mut desired = Desired { complete: true, ..Desired::default() };
    for port in ports {
        let mut ports = desired.services.remove(&name(&port.key.name)).unwrap_or_default();
        let name = name(&port.key.name);
        Arc::make_mut(&mut ports).push(port);
        desired.services.insert(name, ports);
    }
    desired
}

fn name(name: &str) -> ServiceName {
    ServiceName::new("default", name)
}

fn reconciler() -> Reconciler<FakeStore> {
    Reconciler::new(FakeStore { recording: true, ..FakeStore::new(ROOMY) })
}

/// The same maps, a new agent.
fn restarted(reconciler: &Reconciler<FakeStore>) -> Reconciler<FakeStore> {
    Reconciler::new(reconciler.store().clone())
}

/// A pass that must bring everything.
fn reconcile(reconciler: &mut Reconciler<FakeStore>, desired: &Desired) -> Report {
    let report = reconciler.reconcile(desired);
    assert!(!report.wants_retry() && report.held.is_empty(), "{report:?}");
    reconciler.store().check().unwrap();
    report
}

/// What packets from outside (0) and from inside (1) get at a frontend; `None` if it is none.
fn answers(store: &FakeStore, key: &AnyFrontendKey) -> Option<[Answer; 2]> {
    let frontend = store.frontends.get(key)?;
    Some([frontend.external, frontend.internal].map(|index| {
        let selection = store.selections.get(&index).copied().unwrap_or_default();
        match selection {
            Selection::REJECT => Answer::Reject,
            Selection::DROP => Answer::Drop,
            _ => {
                let names = store.named_by(selection).into_iter().map(|id| store.backends[&(key.family(), id)].name());
                Answer::Backends(names.collect())
            }
        }
    }))
}

/// The backends that 10.96.0.`vip` leads to from inside.
fn served_by(reconciler: &Reconciler<FakeStore>, vip: u8) -> Option<Vec<u8>> {
    let key = AnyFrontendKey::new(IpAddr::from([10, 96, 0, vip]), 80, 6);
    let [_, internal] = answers(reconciler.store(), &key)?;
    let last = |addr: &IpAddr| match addr {
        IpAddr::V4(addr) => addr.octets()[3],
        IpAddr::V6(addr) => addr.octets()[15],
    };
    match internal {
        Answer::Backends(backends) => Some(backends.iter().map(|(addr, _)| last(addr)).collect()),
        Answer::Reject | Answer::Drop => Some(Vec::new()),
    }
}
