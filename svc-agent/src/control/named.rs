//! Services and endpoints as `/v1/names` tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::api::{NamedEndpoint, NamedObject, NamedPort, NamedService, NamesLine, NamesSynced, Protocol};
use crate::model::{self, EndpointSlice, Service, ServiceName, Skipped};
use crate::resolve::counted;
use crate::sources::Snapshot;

/// Tells what is different in `now` for somebody who knows `before`, one line after the other, until `tell` fails.
pub fn changes(before: &Snapshot, now: &Snapshot, mut tell: impl FnMut(NamesLine) -> bool) {
    for (name, service) in &now.objects.services {
        if !same(before, now, name, service) && !tell(NamesLine::Service(named(service, slices(now, name)))) {
            return;
        }
    }
    for name in before.objects.services.keys().filter(|name| !now.objects.services.contains_key(*name)) {
        let gone = NamedObject { namespace: name.namespace.clone(), name: name.name.clone() };
        if !tell(NamesLine::Removed(gone)) {
            return;
        }
    }
    let _listening = tell(NamesLine::Synced(NamesSynced { complete: now.complete }));
}

/// Objects that did not change keep their `Arc`; endpoints matter to headless Services alone.
fn same(before: &Snapshot, now: &Snapshot, name: &ServiceName, service: &Arc<Service>) -> bool {
    let known = before.objects.services.get(name).is_some_and(|known| Arc::ptr_eq(known, service));
    let (old, new) = (slices(before, name), slices(now, name));
    let same_slices = || old.len() == new.len() && old.iter().zip(new).all(|(old, new)| Arc::ptr_eq(old, new));
    known && (service.skipped != Some(Skipped::Headless) || same_slices())
}

fn slices<'a>(snapshot: &'a Snapshot, name: &ServiceName) -> &'a [Arc<EndpointSlice>] {
    snapshot.objects.slices.get(name).map_or(&[], Vec::as_slice)
}

fn named(service: &Service, slices: &[Arc<EndpointSlice>]) -> NamedService {
    let headless = service.skipped == Some(Skipped::Headless);
    let ports = service.ports.iter().map(|port| named_port(&port.name, port.protocol, port.port));
    NamedService {
        namespace: service.name.namespace.clone(),
        name: service.name.name.clone(),
        cluster_ips: service.cluster_ips.clone(),
        headless,
        external_name: service.external_name.clone(),
        ports: ports.collect(),
        endpoints: if headless { endpoints(service, slices) } else { Vec::new() },
    }
}

/// The ready ones, each address and hostname once, with the ports of all slices that have it.
fn endpoints(service: &Service, slices: &[Arc<EndpointSlice>]) -> Vec<NamedEndpoint> {
    let mut found: BTreeMap<(IpAddr, Option<&str>), BTreeSet<NamedPort>> = BTreeMap::new();
    for slice in counted(slices) {
        let ports = || slice.ports.iter().map(|port| named_port(&port.name, port.protocol, port.port));
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready || service.publish_not_ready) {
            found.entry((endpoint.addr, endpoint.hostname.as_deref())).or_default().extend(ports());
        }
    }
    let endpoints = found.into_iter().map(|((address, hostname), ports)| NamedEndpoint {
        address,
        hostname: hostname.map(str::to_owned),
        ports: ports.into_iter().collect(),
    });
    endpoints.collect()
}

fn named_port(name: &str, protocol: model::Protocol, port: u16) -> NamedPort {
    let protocol = match protocol {
        model::Protocol::Tcp => Protocol::Tcp,
        model::Protocol::Udp => Protocol::Udp,
        model::Protocol::Sctp => Protocol::Sctp,
    };
    NamedPort { name: name.to_owned(), protocol, port }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SliceOrigin;
    use crate::resolve::fixtures::{endpoint, ip, service, slice, snapshot};

    fn told(before: &Snapshot, now: &Snapshot) -> Vec<NamesLine> {
        let mut lines = Vec::new();
        changes(before, now, |line| {
            lines.push(line);
            true
        });
        lines
    }

    fn headless(name: &str) -> Service {
        Service { skipped: Some(Skipped::Headless), ..service(name, &[]) }
    }

    #[test]
    fn the_whole_state_comes_first_and_then_what_is_different() {
        let first = snapshot(vec![service("a", &["10.96.0.1"]), service("b", &["10.96.0.2"])], Vec::new());
        let lines = told(&Snapshot::default(), &first);
        assert!(
            matches!(&lines[..], [NamesLine::Service(a), NamesLine::Service(b), NamesLine::Synced(synced)]
                if a.name == "a" && a.cluster_ips == [ip("10.96.0.1")] && b.name == "b" && synced.complete),
            "{lines:?}"
        );
        let mut second = first.clone();
        second.objects.services.remove(&ServiceName::new("default", "a"));
        second.complete = false;
        let lines = told(&first, &second);
        assert!(
            matches!(&lines[..], [NamesLine::Removed(a), NamesLine::Synced(synced)] if a.name == "a" && !synced.complete),
            "{lines:?}"
        );
        assert_eq!(told(&second, &second).len(), 1);
    }

    #[test]
    fn endpoints_are_told_of_headless_services_alone_and_only_the_ready_ones() {
        let mut unready = endpoint("10.0.0.2", None);
        unready.ready = false;
        let all = || vec![endpoint("10.0.0.1", None), unready.clone()];
        let before = snapshot(vec![headless("db"), service("web", &["10.96.0.1"])], Vec::new());
        let mut now = before.clone();
        for name in ["db", "web"] {
            now.objects.slices.insert(ServiceName::new("default", name), vec![Arc::new(slice(name, "s", all()))]);
        }
        let lines = told(&before, &now);
        let [NamesLine::Service(db), NamesLine::Synced(_)] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(db.endpoints.iter().map(|found| found.address).collect::<Vec<_>>(), [ip("10.0.0.1")]);
        assert_eq!(db.endpoints[0].ports[0].port, 8080);

        let published = Service { publish_not_ready: true, ..headless("db") };
        let slices = now.objects.slices[&ServiceName::new("default", "db")].clone();
        assert_eq!(named(&published, &slices).endpoints.len(), 2);
    }

    #[test]
    fn one_endpoint_of_several_slices_is_told_once_and_mirrored_ones_are_not() {
        let mut other = slice("db", "t", vec![endpoint("10.0.0.1", None)]);
        other.ports[0].port = 9090;
        let mut mirrored = slice("db", "db", vec![endpoint("10.0.0.9", None)]);
        mirrored.source = SliceOrigin::Endpoints;
        let slices = [slice("db", "s", vec![endpoint("10.0.0.1", None)]), other, mirrored].map(Arc::new);
        let told = named(&headless("db"), &slices);
        assert_eq!(told.endpoints.len(), 1, "{told:?}");
        assert_eq!(told.endpoints[0].ports.iter().map(|port| port.port).collect::<Vec<_>>(), [8080, 9090]);
    }
}
