//! The ports of a Service and of endpoints (B73, B74).

use std::collections::HashMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::findings::Findings;
use super::rules::Rules;
use super::text::{dns_label, port_name, quote};
use super::{Protocol, ServicePort, ServiceType, SlicePort, TargetPort};

/// Validates `spec.ports`.
pub fn service_ports(
    spec: &core::ServiceSpec,
    service_type: ServiceType,
    required: bool,
    rules: &Rules,
    findings: &mut Findings,
) -> Vec<ServicePort> {
    let list = spec.ports.as_deref().unwrap_or_default();
    if list.is_empty() && required {
        findings.refuse("spec.ports", "missing, expected at least one port");
    }
    let mut seen = Seen::default();
    list.iter()
        .enumerate()
        .filter_map(|(i, port)| {
            let at = format!("spec.ports[{i}]");
            let read = service_port(port, &at, service_type, rules, findings);
            let name = name(port.name.as_deref(), &at, list.len() > 1, findings);
            let read = read?;
            seen.check(&at, &name, read.port, read.protocol, read.node_port, findings);
            Some(ServicePort { name, ..read })
        })
        .collect()
}

fn service_port(
    port: &core::ServicePort,
    at: &str,
    service_type: ServiceType,
    rules: &Rules,
    findings: &mut Findings,
) -> Option<ServicePort> {
    let number = number(port.port);
    if number.is_none() {
        let found = if port.port == 0 { "missing or 0".to_owned() } else { format!("found {}", port.port) };
        findings.refuse(format!("{at}.port"), format!("{found}, expected 1 to 65535"));
    }
    let protocol = protocol(port.protocol.as_deref());
    if let Err(error) = &protocol {
        findings.refuse(format!("{at}.protocol"), error);
    }
    let target = target_port(port.target_port.as_ref(), &format!("{at}.targetPort"), findings);
    let node_port = node_port(port.node_port, &format!("{at}.nodePort"), service_type, rules, findings);
    let port = number?;
    let target = target.unwrap_or(TargetPort::Number(port));
    Some(ServicePort { name: String::new(), port, protocol: protocol.ok()?, node_port, target })
}

fn node_port(
    found: Option<i32>,
    at: &str,
    service_type: ServiceType,
    rules: &Rules,
    findings: &mut Findings,
) -> Option<u16> {
    let found = found.filter(|port| *port != 0)?;
    if !matches!(service_type, ServiceType::NodePort | ServiceType::LoadBalancer) {
        let text = format!("must be absent where the type is {service_type}, expected NodePort or LoadBalancer");
        findings.refuse(at, text);
        return None;
    }
    let valid = number(found).filter(|port| rules.node_ports.contains(port));
    if valid.is_none() {
        let (first, last) = (rules.node_ports.start(), rules.node_ports.end());
        findings.refuse(at, format!("found {found}, expected {first} to {last}"));
    }
    valid
}

/// The target, if the port names one. Endpoints that are given bring their own numbers, matched by the port's name (B74).
fn target_port(target: Option<&IntOrString>, at: &str, findings: &mut Findings) -> Option<TargetPort> {
    match target? {
        IntOrString::Int(0) => None,
        IntOrString::Int(found) => {
            let valid = number(*found);
            if valid.is_none() {
                findings.refuse(at, format!("found {found}, expected 1 to 65535 or the name of a port"));
            }
            valid.map(TargetPort::Number)
        }
        IntOrString::String(text) => {
            if text.is_empty() {
                return None;
            } else if text.bytes().all(|b| b.is_ascii_digit()) {
                findings.refuse(at, format!("found the string {text:?}, expected a number or the name of a port"));
            } else if let Err(error) = port_name(text) {
                findings.refuse(at, error);
            }
            Some(TargetPort::Name(text.clone()))
        }
    }
}

/// The name of a port; mandatory where there are several.
fn name(found: Option<&str>, at: &str, required: bool, findings: &mut Findings) -> String {
    let name = found.unwrap_or_default();
    if name.is_empty() {
        if required {
            findings.refuse(format!("{at}.name"), "missing, expected a name because there are several ports");
        }
    } else if let Err(error) = dns_label(name) {
        findings.refuse(format!("{at}.name"), error);
    }
    name.to_owned()
}

/// What must be unique within one Service, with the place where it was first.
#[derive(Default)]
struct Seen {
    names: HashMap<String, String>,
    ports: HashMap<(Protocol, u16), String>,
    node_ports: HashMap<(Protocol, u16), String>,
}

impl Seen {
    fn check(
        &mut self,
        at: &str,
        name: &str,
        port: u16,
        protocol: Protocol,
        node_port: Option<u16>,
        findings: &mut Findings,
    ) {
        if !name.is_empty()
            && let Some(first) = self.names.insert(name.to_owned(), at.to_owned())
        {
            findings
                .refuse(format!("{at}.name"), format!("found {}, the name of {first}, expected another", quote(name)));
        }
        if let Some(first) = self.ports.insert((protocol, port), at.to_owned()) {
            findings.refuse(format!("{at}.port"), format!("found {port} {protocol}, the same as {first}"));
        }
        if let Some(node_port) = node_port
            && let Some(first) = self.node_ports.insert((protocol, node_port), at.to_owned())
        {
            findings.refuse(format!("{at}.nodePort"), format!("found {node_port} {protocol}, the same as {first}"));
        }
    }
}

/// Validates a port of endpoints. One without a number is skipped (B74), a bad one left out.
pub fn slice_port(
    found_name: Option<&str>,
    found_port: Option<i32>,
    found_protocol: Option<&str>,
    at: &str,
    findings: &mut Findings,
) -> Option<SlicePort> {
    let found_port = found_port.filter(|port| *port != 0)?;
    let Some(port) = number(found_port) else {
        findings.leave_out(format!("{at}.port"), format!("found {found_port}, expected 1 to 65535"));
        return None;
    };
    let protocol = match protocol(found_protocol) {
        Ok(protocol) => protocol,
        Err(error) => {
            findings.leave_out(format!("{at}.protocol"), error);
            return None;
        }
    };
    let name = found_name.unwrap_or_default();
    if !name.is_empty()
        && let Err(error) = dns_label(name)
    {
        findings.leave_out(format!("{at}.name"), error);
        return None;
    }
    Some(SlicePort { name: name.to_owned(), port, protocol })
}

pub(super) fn protocol(found: Option<&str>) -> Result<Protocol, String> {
    let text = found.filter(|text| !text.is_empty()).unwrap_or("TCP");
    Protocol::parse(text).ok_or_else(|| format!("found {}, expected TCP, UDP or SCTP", quote(text)))
}

pub(super) fn number(found: i32) -> Option<u16> {
    u16::try_from(found).ok().filter(|port| *port != 0)
}
