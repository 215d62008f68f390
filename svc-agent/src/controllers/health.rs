//! Takes endpoints out that fail the health checks which their Service asks for. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::model::{Endpoint, EndpointSlice, Problem, Protocol, Service, ServiceName};
use crate::probe::{Failing, Target};
use crate::resolve::at;
use crate::sorted::{Sorted, shares_all};
use crate::sources::Objects;

/// What was made of the slices of each Service that is checked.
#[derive(Debug, Default)]
pub struct Health {
    /// All Services as they were seen last, and those that ask for checks.
    services: Sorted<ServiceName, Arc<Service>>,
    checked: BTreeSet<ServiceName>,
    made: BTreeMap<ServiceName, Vec<Made>>,
}

/// A slice as it came, and as it went on.
#[derive(Debug)]
struct Made {
    given: Arc<EndpointSlice>,
    checked: Arc<EndpointSlice>,
}

impl Health {
    /// Marks the endpoints that fail as not serving, and returns all that are to be checked. An unchanged slice keeps its
    /// `Arc`.
    pub fn complete(
        &mut self,
        objects: &mut Objects,
        failing: &Failing,
        problems: &mut Vec<Problem>,
    ) -> BTreeSet<Target> {
        let mut targets = BTreeSet::new();
        let mut before = std::mem::take(&mut self.made);
        for change in objects.services.changes(&self.services, Arc::ptr_eq) {
            if change.now.is_some_and(|service| service.health_check.is_some()) {
                self.checked.insert(change.key.clone());
            } else {
                self.checked.remove(change.key);
            }
        }
        self.services = objects.services.clone();
        for name in &self.checked {
            let (Some(service), Some(given)) = (objects.services.get(name), objects.slices.get(name)) else { continue };
            let mut slices = given.clone();
            let old = before.remove(name).unwrap_or_default();
            let mut failed = Vec::new();
            let mut made = Vec::new();
            for slice in &mut slices {
                let given = slice.clone();
                let checked = check(service, &given, failing, &mut targets, &mut failed);
                let known = old.iter().find(|old| Arc::ptr_eq(&old.given, &given) && *old.checked == checked);
                *slice = match known {
                    _ if checked == *given => given.clone(),
                    Some(known) => known.checked.clone(),
                    None => Arc::new(checked),
                };
                made.push(Made { given, checked: slice.clone() });
            }
            problems.extend(unchecked(service, &slices));
            problems.extend(told(service, failed));
            if !shares_all(given, &slices) {
                objects.slices.insert(name.clone(), slices);
            }
            self.made.insert(name.clone(), made);
        }
        targets
    }
}

fn check(
    service: &Service,
    slice: &EndpointSlice,
    failing: &Failing,
    targets: &mut BTreeSet<Target>,
    failed: &mut Vec<(SocketAddr, String)>,
) -> EndpointSlice {
    let mut checked = slice.clone();
    let Some(port) = port(service, slice) else { return checked };
    for endpoint in &mut checked.endpoints {
        let Some(check) = service.health_check.clone().filter(|_| asked(endpoint)) else { continue };
        let target = Target { addr: SocketAddr::new(endpoint.addr, port), check };
        if let Some(why) = failing.get(&target) {
            endpoint.ready = false;
            endpoint.serving = false;
            failed.push((target.addr, why.clone()));
        }
        targets.insert(target);
    }
    checked
}

/// What is not to be used anyway need not be asked.
fn asked(endpoint: &Endpoint) -> bool {
    endpoint.ready || endpoint.serving
}

/// The port of the endpoints that is asked.
fn port(service: &Service, slice: &EndpointSlice) -> Option<u16> {
    let given = service.health_check.as_ref()?.port;
    let first = || {
        let first = service.ports.iter().find(|port| port.protocol == Protocol::Tcp)?;
        slice.ports.iter().find(|own| own.name == first.name && own.protocol == first.protocol).map(|own| own.port)
    };
    given.or_else(first)
}

fn unchecked(service: &Service, slices: &[Arc<EndpointSlice>]) -> Option<Problem> {
    let without = |slice: &Arc<EndpointSlice>| !slice.endpoints.is_empty() && port(service, slice).is_none();
    slices.iter().any(without).then(|| {
        let text = "the Service has no TCP port that its endpoints have, too: name one with svc-agent/health-check-port; \
                    they are used unchecked";
        Problem::warning(at(service, "metadata.annotations[svc-agent/health-check]", text))
    })
}

/// One line for each, so that each is logged when it begins to fail and when it has recovered; but not for thousands.
fn told(service: &Service, mut failed: Vec<(SocketAddr, String)>) -> impl Iterator<Item = Problem> + '_ {
    const SHOWN: usize = 16;
    failed.sort();
    failed.dedup();
    let more = (failed.len() > SHOWN).then(|| format!("more than {SHOWN} endpoints fail"));
    let shown = failed.into_iter().take(SHOWN).map(|(addr, why)| format!("`{addr}` fails: {why}"));
    shown.chain(more).map(|text| {
        let text = format!("{text}; no new connections go there");
        Problem::warning(at(service, "metadata.annotations[svc-agent/health-check]", &text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::Controllers;
    use crate::controllers::allocate_tests::snapshot;

    const TEXT: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web, annotations: {svc-agent/health-check: tcp}}
spec: {clusterIP: 10.96.0.1, ports: [{name: u, port: 53, protocol: UDP}, {name: t, port: 80, targetPort: http}], selector: {app: web}}
---
apiVersion: v1
kind: Service
metadata: {name: plain}
spec: {clusterIP: 10.96.0.2, ports: [{name: t, port: 80}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: plain}
subsets: [{addresses: [{ip: 10.0.0.9}], ports: [{name: t, port: 80}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: web}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: b, labels: {app: web}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: \"False\"}]}
";

    fn ready(objects: &Objects) -> Vec<(String, bool)> {
        let slices = objects.slices.values().flatten().flat_map(|slice| &slice.endpoints);
        slices.map(|endpoint| (endpoint.addr.to_string(), endpoint.ready)).collect()
    }

    fn row(addr: &str, ready: bool) -> (String, bool) {
        (addr.to_owned(), ready)
    }

    #[test]
    fn only_annotated_services_are_checked_and_what_fails_is_taken_out() {
        let first = Controllers::default().complete(snapshot(TEXT));
        let mut health = Health::default();
        let mut problems = Vec::new();
        let mut objects = first.objects.clone();
        let targets = health.complete(&mut objects, &Failing::default(), &mut problems);
        // Nobody set its readiness: that is for the check to say. A pod that says that it is not ready is not asked.
        assert_eq!(ready(&objects), [row("10.0.0.9", true), row("10.0.0.1", true), row("10.0.0.2", false)]);
        assert_eq!(targets.iter().map(|target| target.addr.to_string()).collect::<Vec<_>>(), ["10.0.0.1:8080"]);
        assert!(problems.is_empty(), "{problems:?}");

        let target = targets.first().unwrap().clone();
        let failing: Failing = Arc::new([(target, "connection refused".to_owned())].into());
        let mut failed = first.objects.clone();
        assert_eq!(health.complete(&mut failed, &failing, &mut problems), targets);
        assert_eq!(ready(&failed), [row("10.0.0.9", true), row("10.0.0.1", false), row("10.0.0.2", false)]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].text.ends_with("`10.0.0.1:8080` fails: connection refused; no new connections go there"));

        // The same again is the same in memory.
        let mut again = first.objects.clone();
        health.complete(&mut again, &failing, &mut Vec::new());
        for (name, slices) in &failed.slices {
            assert!(slices.iter().zip(&again.slices[name]).all(|(a, b)| Arc::ptr_eq(a, b)));
        }
    }

    #[test]
    fn a_service_without_a_tcp_port_needs_one_named() {
        let udp = TEXT.replace(", {name: t, port: 80, targetPort: http}", "");
        for (text, targets, problems) in
            [(udp.clone(), 0, 1), (udp.replace("check: tcp", "check: tcp, svc-agent/health-check-port: \"81\""), 1, 0)]
        {
            let mut objects = Controllers::default().complete(snapshot(&text)).objects;
            let mut told = Vec::new();
            assert_eq!(Health::default().complete(&mut objects, &Failing::default(), &mut told).len(), targets);
            assert_eq!(told.len(), problems, "{told:?}");
        }
    }
}
