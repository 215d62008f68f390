//! The endpoints of one service port, merged from all slices (B74, B75).

use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{AddressFamily, Backend, Node};
use crate::model::{Endpoint, EndpointSlice, ServicePort, SliceOrigin};

/// A backend and what it was made of.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The backend.
    pub backend: Backend,
    /// Its endpoint, for the hints.
    pub endpoint: &'a Endpoint,
    slice: &'a EndpointSlice,
}

/// The slices that count: Endpoints objects only where there is no EndpointSlice, which mirrors them.
pub fn counted(slices: &[Arc<EndpointSlice>]) -> impl Iterator<Item = &EndpointSlice> {
    let mirrored = slices.iter().any(|slice| slice.source == SliceOrigin::Slice);
    slices.iter().map(Arc::as_ref).filter(move |slice| !mirrored || slice.source == SliceOrigin::Slice)
}

/// The endpoints of one port in one family, each address and port once, sorted by them.
pub fn merge<'a>(
    slices: &'a [Arc<EndpointSlice>],
    port: &ServicePort,
    family: AddressFamily,
    node: &Node,
) -> Vec<Candidate<'a>> {
    let mut found: HashMap<(IpAddr, u16), Candidate<'a>> = HashMap::new();
    for slice in counted(slices) {
        let ports = slice.ports.iter().filter(|own| own.name == port.name && own.protocol == port.protocol);
        for own in ports {
            for endpoint in slice.endpoints.iter().filter(|endpoint| AddressFamily::of(endpoint.addr) == family) {
                let candidate = Candidate { backend: backend(endpoint, own.port, node), endpoint, slice };
                found
                    .entry((endpoint.addr, own.port))
                    .and_modify(|first| {
                        if prefer(&candidate, first) == Ordering::Greater {
                            *first = candidate.clone();
                        }
                    })
                    .or_insert(candidate);
            }
        }
    }
    let mut merged: Vec<Candidate<'a>> = found.into_values().collect();
    merged.sort_unstable_by_key(|candidate| (candidate.backend.addr, candidate.backend.port));
    merged
}

fn backend(endpoint: &Endpoint, port: u16, node: &Node) -> Backend {
    let local = match &endpoint.node {
        Some(name) => *name == node.name,
        // Written by hand, without a node: the host network of this one is recognised by its addresses.
        None => node.addresses.contains(&endpoint.addr),
    };
    Backend {
        addr: endpoint.addr,
        port,
        ready: endpoint.ready,
        serving: endpoint.serving,
        terminating: endpoint.terminating,
        local,
        node: endpoint.node.clone(),
        target: endpoint.target.as_ref().map(|target| target.name.clone()),
    }
}

/// Which of two copies of an endpoint counts: of one object the newest slice's; else the ready one, then the local one
/// (B63, B75).
fn prefer(a: &Candidate<'_>, b: &Candidate<'_>) -> Ordering {
    let same_target = a.endpoint.target.is_some() && a.endpoint.target == b.endpoint.target;
    let newest = if same_target { a.slice.created.cmp(&b.slice.created) } else { Ordering::Equal };
    let rank = |candidate: &Candidate<'_>| {
        let backend = &candidate.backend;
        (backend.ready, backend.serving, backend.local, !backend.terminating, backend.node.is_some())
    };
    newest.then_with(|| rank(a).cmp(&rank(b)))
}
