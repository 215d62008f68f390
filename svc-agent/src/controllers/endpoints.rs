//! Makes the endpoints of one Service of the Pods that its selector matches, as the EndpointSlice controller of
//! Kubernetes does. Pure.
//!
//! Two things differ because nobody need write Node objects here: a Pod whose Node is unknown counts, without a zone, and
//! there are no hints by the number of CPUs (`topology-mode: Auto`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::text::quote;
use crate::model::{
    AddressFamily, Endpoint, EndpointSlice, Node, Pod, Problem, Service, ServicePort, ServiceType, Skipped,
    SliceOrigin, SlicePort, Target, TargetPort, TrafficDistribution,
};
use crate::resolve::at;

/// Whether the endpoints of a Service are made of Pods.
pub fn selects(service: &Service) -> bool {
    !service.selector.is_empty() && service.service_type != ServiceType::ExternalName
}

/// Whether a Pod is one that a selector asks for.
pub fn matches(service: &Service, pod: &Pod) -> bool {
    service.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
}

/// The slices of a Service, made of the Pods that match; at least one, so that it is known to have been looked for.
pub fn slices<'a>(
    service: &Service,
    pods: impl Iterator<Item = &'a Pod>,
    nodes: &BTreeMap<String, Arc<Node>>,
    problems: &mut Vec<Problem>,
) -> Vec<EndpointSlice> {
    // Endpoints of one family that share their ports become one slice.
    let mut groups: BTreeMap<(AddressFamily, Vec<SlicePort>), Vec<Endpoint>> = BTreeMap::new();
    let mut seen = Seen::default();
    for pod in pods {
        let Some(ports) = seen.look(service, pod) else { continue };
        let zone = pod.node.as_ref().and_then(|node| nodes.get(node)).and_then(|node| node.zone.as_ref());
        for ip in &pod.ips {
            let family = AddressFamily::of(*ip);
            if !service.families.is_empty() && !service.families.contains(&family) {
                continue;
            }
            groups.entry((family, ports.clone())).or_default().push(endpoint(service, pod, *ip, zone));
        }
    }
    problems.extend(seen.problem(service));
    let slice = |name: String, ports, endpoints| EndpointSlice {
        service: service.name.clone(),
        name,
        origin: format!("{}, spec.selector", service.origin),
        source: SliceOrigin::Slice,
        created: None,
        triggered: None,
        ports,
        endpoints,
    };
    if groups.is_empty() {
        return vec![slice(service.name.name.clone(), Vec::new(), Vec::new())];
    }
    let named = groups.into_iter().enumerate().map(|(i, ((family, ports), endpoints))| {
        let family = family.to_string().to_ascii_lowercase();
        slice(format!("{}-{family}-{i}", service.name.name), ports, endpoints)
    });
    named.collect()
}

fn endpoint(service: &Service, pod: &Pod, addr: IpAddr, zone: Option<&String>) -> Endpoint {
    // Where the endpoints are checked, the check says what nobody else did.
    let serving = pod.ready.unwrap_or(service.health_check.is_some());
    let (mut for_zones, mut for_nodes) = (Vec::new(), Vec::new());
    if let Some(distribution) = service.distribution {
        for_zones.extend(zone.cloned());
        if distribution == TrafficDistribution::PreferSameNode {
            for_nodes.extend(pod.node.clone());
        }
    }
    let of_service = pod.subdomain.as_ref() == Some(&service.name.name);
    Endpoint {
        addr,
        ready: service.publish_not_ready || serving && !pod.terminating,
        serving,
        terminating: pod.terminating,
        node: pod.node.clone(),
        zone: zone.cloned(),
        hostname: pod.hostname.clone().filter(|_| of_service),
        target: Some(Target {
            kind: "Pod".to_owned(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
        }),
        for_zones,
        for_nodes,
    }
}

/// Where the ports of a Service lead to in a Pod; the ports that the Pod does not have are left out, with the first of
/// them.
fn ports<'a>(service: &'a Service, pod: &Pod) -> (Vec<SlicePort>, Option<(usize, &'a str)>) {
    let mut missing = None;
    let mut found = Vec::new();
    for (i, port) in service.ports.iter().enumerate() {
        match target(port, pod) {
            Ok(number) => found.push(SlicePort { name: port.name.clone(), port: number, protocol: port.protocol }),
            Err(name) => drop(missing.get_or_insert((i, name))),
        }
    }
    (found, missing)
}

/// The number of a port in a Pod, or the name that no container has.
fn target<'a>(port: &'a ServicePort, pod: &Pod) -> Result<u16, &'a str> {
    match &port.target {
        TargetPort::Number(number) => Ok(*number),
        TargetPort::Name(name) => {
            let own = pod.ports.iter().find(|own| own.name == *name && own.protocol == port.protocol);
            own.map(|own| own.port).ok_or(name)
        }
    }
}

/// Why Pods that match are no endpoints: the first of each kind.
#[derive(Default)]
struct Seen<'a> {
    matched: usize,
    used: usize,
    finished: usize,
    without_address: usize,
    never_ready: Option<&'a Pod>,
    without_port: Option<(usize, &'a Pod)>,
}

impl<'a> Seen<'a> {
    /// The ports of a Pod, if it is an endpoint.
    fn look(&mut self, service: &Service, pod: &'a Pod) -> Option<Vec<SlicePort>> {
        self.matched += 1;
        if pod.finished {
            self.finished += 1;
            return None;
        }
        if pod.ips.is_empty() {
            self.without_address += 1;
            return None;
        }
        let (ports, missing) = ports(service, pod);
        if let Some((i, _)) = missing {
            self.without_port.get_or_insert((i, pod));
        }
        // A name in DNS needs no port, a connection does.
        if ports.is_empty() && service.skipped != Some(Skipped::Headless) {
            return None;
        }
        if pod.ready.is_none() && !service.publish_not_ready && service.health_check.is_none() {
            self.never_ready.get_or_insert(pod);
        }
        self.used += 1;
        Some(ports)
    }

    fn problem(self, service: &Service) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some((i, pod)) = self.without_port
            && let Some(port) = service.ports.get(i)
            && let TargetPort::Name(name) = &port.target
        {
            let there: Vec<String> =
                pod.ports.iter().filter(|own| !own.name.is_empty()).map(|own| quote(&own.name)).collect();
            let there = if there.is_empty() { "no port with a name".to_owned() } else { there.join(", ") };
            let text = format!(
                "found {} for {}, but Pod `{}/{}` ({}) has {there}; it gets no connections for this port",
                quote(name),
                port.protocol,
                pod.namespace,
                pod.name,
                pod.origin
            );
            problems.push(Problem::warning(at(service, &format!("spec.ports[{i}].targetPort"), &text)));
        }
        if let Some(pod) = self.never_ready {
            let text = format!(
                "Pod `{}/{}` ({}) has no condition Ready, so it counts as not ready; write status.conditions: [{{type: Ready, \
                 status: \"True\"}}], or publishNotReadyAddresses: true for the Service",
                pod.namespace, pod.name, pod.origin
            );
            problems.push(Problem::notice(at(service, "spec.selector", &text)));
        }
        if self.matched == 0 {
            let text = "no Pod of the namespace has these labels: there is nobody to connect to until one has";
            problems.push(Problem::notice(at(service, "spec.selector", text)));
        } else if self.used == 0 && self.without_port.is_none() {
            let text = format!(
                "of {} Pods with these labels {} are finished and {} have no address yet: there is nobody to connect to",
                self.matched, self.finished, self.without_address
            );
            problems.push(Problem::notice(at(service, "spec.selector", &text)));
        }
        problems
    }
}
