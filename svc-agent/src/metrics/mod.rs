//! `/metrics`: what Prometheus collects. Pure: from the documents of the control socket to text.

mod histogram;
mod programming;
mod text;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use self::histogram::Histogram;
pub use self::programming::Programming;
pub use self::text::CONTENT_TYPE;
use self::text::Page;
use crate::control::api::{Service, ServicePort, Status};

/// The path.
pub const PATH: &str = "/metrics";

/// As kube-proxy counts its passes: from a millisecond by doubling.
const PASS_S: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
/// From what is hardly noticed to what somebody is called for.
const PROGRAMMING_S: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0];

/// How long things take.
#[derive(Debug)]
pub struct Timings {
    /// One pass of the sync loop.
    pub pass: Histogram,
    /// From the change of an endpoint, as whoever wrote the EndpointSlice says, until it was in the maps.
    pub programming: Histogram,
}

impl Default for Timings {
    fn default() -> Self {
        Self { pass: Histogram::new(PASS_S), programming: Histogram::new(PROGRAMMING_S) }
    }
}

/// The page. At most `max_ports` ports of Services, of each family, have values of their own: the first ones by name.
pub fn page(status: &Status, services: &[Service], timings: &Timings, max_ports: usize) -> String {
    let mut page = Page::default();
    page.gauge("svc_agent_build_info", "The version of the agent.").row(&[("version", &status.version)], 1);
    page.gauge("svc_agent_uptime_seconds", "For how long the agent has been running.").value(status.uptime_seconds);
    sync(&mut page, status, timings);
    sources(&mut page, status);
    devices(&mut page, status);
    let mut elements = page.gauge("svc_agent_map_elements", "Elements of a map in use, where they are counted.");
    for map in &status.maps {
        map.used.iter().for_each(|used| elements.row(&[("map", &map.name)], used));
    }
    let mut capacity = page.gauge("svc_agent_map_capacity", "Elements that fit into a map.");
    status.maps.iter().for_each(|map| capacity.row(&[("map", &map.name)], map.capacity));
    let mut packets = page.counter("svc_agent_packets_total", "What happened to packets, by reason.");
    status.counters.iter().for_each(|counter| packets.row(&[("reason", &counter.reason)], counter.count));
    self::services(&mut page, services, max_ports);
    page.finish()
}

fn sync(page: &mut Page, status: &Status, timings: &Timings) {
    let sync = &status.sync;
    page.gauge("svc_agent_sync_complete", "Whether every source has delivered a first complete list.")
        .value(u8::from(sync.complete));
    if let Some(ago) = sync.last_success_seconds_ago {
        page.gauge("svc_agent_sync_age_seconds", "How long ago everything that was wanted was in the maps.").value(ago);
    }
    page.gauge("svc_agent_sync_pending_services", "Services whose change is not in the maps yet.").value(sync.pending);
    page.gauge("svc_agent_sync_refused_services", "Services that are not programmed as asked.")
        .value(sync.refused.len());
    page.gauge("svc_agent_sync_problems", "Faults of the sources.").value(sync.problems.len());
    page.gauge("svc_agent_sync_failed", "Whether the last attempt to bring the maps up to date failed.")
        .value(u8::from(sync.last_error.is_some()));
    let help = "How long a pass took that brings the maps in line with the objects.";
    page.histogram("svc_agent_sync_pass_duration_seconds", help, &timings.pass);
    let help = "From the change of an endpoint, as its EndpointSlice tells, until it was in the maps.";
    page.histogram("svc_agent_network_programming_duration_seconds", help, &timings.programming);
}

fn sources(page: &mut Page, status: &Status) {
    let mut connected = page.gauge("svc_agent_source_connected", "Whether changes of a kind are told as they happen.");
    for source in &status.sources {
        connected.row(&[("kind", &source.kind)], u8::from(source.connected));
    }
    let mut heard = page.gauge("svc_agent_source_age_seconds", "How long ago anything was heard of a kind.");
    for source in &status.sources {
        source.last_event_seconds_ago.iter().for_each(|ago| heard.row(&[("kind", &source.kind)], ago));
    }
}

fn devices(page: &mut Page, status: &Status) {
    let mut counts: BTreeMap<[String; 3], u64> = BTreeMap::new();
    for device in &status.devices {
        let labels = [device.class.to_string(), device.tc.kind.to_string(), device.xdp.mode.to_string()];
        *counts.entry(labels).or_default() += 1;
    }
    let mut devices = page.gauge("svc_agent_devices", "Devices, by what they face and how programs are attached.");
    for ([class, tc, xdp], count) in counts {
        devices.row(&[("class", &class), ("tc", &tc), ("xdp", &xdp)], count);
    }
    if let Some(announced) = &status.announced {
        page.gauge("svc_agent_announced_routes", "Routes for a routing daemon.").value(announced.addresses);
    }
    if let Some(segment) = &status.segment {
        page.gauge("svc_agent_answered_addresses", "Addresses that are answered for on shared segments.")
            .value(segment.held.len());
        let silent = segment.peers.iter().filter(|peer| peer.addresses.is_none()).count();
        page.gauge("svc_agent_silent_peers", "Nodes that come first for an address and do not tell.").value(silent);
    }
}

fn services(page: &mut Page, services: &[Service], max_ports: usize) {
    let mut services: Vec<&Service> = services.iter().collect();
    services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let ports: Vec<_> =
        services.iter().flat_map(|service| service.ports.iter().map(|port| Port::new(service, port))).collect();
    page.gauge("svc_agent_services", "Services that the agent knows.").value(services.len());
    let omitted = ports.len().saturating_sub(max_ports);
    page.gauge("svc_agent_omitted_service_ports", "Ports of Services, of each family, without values of their own.")
        .value(omitted);
    let shown = || ports.iter().take(max_ports);
    let mut rows = page.counter("svc_agent_service_packets_total", "Packets of a Service, by direction.");
    for port in shown() {
        rows.row(&port.towards("forward"), port.port.forward.packets);
        rows.row(&port.towards("reverse"), port.port.reverse.packets);
    }
    let mut rows = page.counter("svc_agent_service_bytes_total", "Bytes of a Service, by direction.");
    for port in shown() {
        rows.row(&port.towards("forward"), port.port.forward.bytes);
        rows.row(&port.towards("reverse"), port.port.reverse.bytes);
    }
    let mut rows = page.counter("svc_agent_service_connections_total", "Connections of a Service that were begun.");
    shown().for_each(|port| rows.row(&port.labels(), port.port.new_flows));
    let mut rows = page.gauge("svc_agent_service_ready_endpoints", "Endpoints that take new connections.");
    shown().for_each(|port| rows.row(&port.labels(), port.port.endpoints.ready));
}

/// A port with its labels.
struct Port<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    number: String,
    protocol: String,
    family: String,
}

impl<'a> Port<'a> {
    fn new(service: &'a Service, port: &'a ServicePort) -> Self {
        let (protocol, family) = (port.protocol.to_string(), port.family.to_string());
        Self { service, port, number: port.port.to_string(), protocol, family }
    }

    fn labels(&self) -> [(&str, &str); 5] {
        [
            ("namespace", self.service.namespace.as_str()),
            ("service", self.service.name.as_str()),
            ("port", self.number.as_str()),
            ("protocol", self.protocol.as_str()),
            ("family", self.family.as_str()),
        ]
    }

    fn towards<'b>(&'b self, direction: &'b str) -> [(&'b str, &'b str); 6] {
        let [namespace, service, port, protocol, family] = self.labels();
        [namespace, service, port, protocol, family, ("direction", direction)]
    }
}
