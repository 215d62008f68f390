//! From a Pod as Kubernetes writes it to a valid [`Pod`].
//!
//! Addresses get the same check as those of endpoints (B72). A bad address or port is reported and left out; the rest of
//! the Pod stays.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;

use super::findings::Findings;
use super::read_ports::{number, protocol};
use super::text::{dns_label, dns_subdomain, label_value, port_name, quote};
use super::{ContainerPort, Pod, address};

/// Validates a Pod; what is returned must not be used if the findings refuse it.
pub fn pod(object: &core::Pod, namespace: &str, name: &str, origin: &str, findings: &mut Findings) -> Pod {
    let metadata = &object.metadata;
    let (no_spec, no_status) = (core::PodSpec::default(), core::PodStatus::default());
    let spec = object.spec.as_ref().unwrap_or(&no_spec);
    let status = object.status.as_ref().unwrap_or(&no_status);
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    for (field, text, check) in [
        ("spec.nodeName", &spec.node_name, dns_subdomain as fn(&str) -> Result<(), String>),
        ("spec.hostname", &spec.hostname, dns_label),
        ("spec.subdomain", &spec.subdomain, dns_label),
    ] {
        if let Some(Err(error)) = given(text).map(|text| check(&text)) {
            findings.refuse(field, error);
        }
    }
    Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: metadata.uid.clone().unwrap_or_default(),
        origin: origin.to_owned(),
        created: metadata.creation_timestamp.as_ref().map(|time| time.0),
        labels: labels(metadata.labels.as_ref(), "metadata.labels", findings),
        node: given(&spec.node_name),
        hostname: given(&spec.hostname),
        subdomain: given(&spec.subdomain),
        host_network: spec.host_network.unwrap_or(false),
        ips: ips(status, findings),
        ready: ready(status, findings),
        terminating: metadata.deletion_timestamp.is_some(),
        finished: finished(status, findings),
        ports: ports(spec, findings),
    }
}

/// Validates labels, or the labels that a selector asks for.
pub(super) fn labels(
    found: Option<&BTreeMap<String, String>>,
    at: &str,
    findings: &mut Findings,
) -> BTreeMap<String, String> {
    for (key, value) in found.into_iter().flatten() {
        if let Err(error) = label_value(value) {
            findings.refuse(format!("{at}[{}]", super::text::escape(key)), error);
        }
    }
    found.cloned().unwrap_or_default()
}

fn ips(status: &core::PodStatus, findings: &mut Findings) -> Vec<IpAddr> {
    let single = status.pod_ip.as_deref().filter(|ip| !ip.is_empty());
    let list = status.pod_ips.as_deref().unwrap_or_default();
    if let (Some(single), Some(first)) = (single, list.first())
        && single != first.ip
    {
        let text = format!("found {}, expected the first of status.podIPs, {}", quote(single), quote(&first.ip));
        findings.warn("status.podIP", text);
    }
    let named: Vec<(String, &str)> = if list.is_empty() {
        single.map(|ip| ("status.podIP".to_owned(), ip)).into_iter().collect()
    } else {
        list.iter().enumerate().map(|(i, ip)| (format!("status.podIPs[{i}].ip"), ip.ip.as_str())).collect()
    };
    let mut ips: Vec<IpAddr> = Vec::new();
    for (path, text) in named {
        match address::parse(text) {
            Err(error) => findings.leave_out(path, error),
            Ok(ip) if ips.contains(&ip) => {}
            Ok(ip) if ips.iter().any(|other| other.is_ipv4() == ip.is_ipv4()) => {
                let text = format!("found `{ip}`, a second address of one family, expected one for each");
                findings.leave_out(path, text);
            }
            Ok(ip) => ips.push(ip),
        }
    }
    ips
}

fn ready(status: &core::PodStatus, findings: &mut Findings) -> Option<bool> {
    let conditions = status.conditions.iter().flatten().enumerate();
    let (i, condition) = conditions.into_iter().find(|(_, condition)| condition.type_ == "Ready")?;
    match condition.status.as_str() {
        "True" => Some(true),
        "False" | "Unknown" => Some(false),
        other => {
            let text = format!("found {}, expected True, False or Unknown; the Pod is not ready", quote(other));
            findings.warn(format!("status.conditions[{i}].status"), text);
            Some(false)
        }
    }
}

fn finished(status: &core::PodStatus, findings: &mut Findings) -> bool {
    match status.phase.as_deref() {
        Some("Succeeded" | "Failed") => true,
        None | Some("" | "Pending" | "Running" | "Unknown") => false,
        Some(other) => {
            let expected = "expected Pending, Running, Succeeded, Failed or Unknown";
            findings.warn("status.phase", format!("found {}, {expected}", quote(other)));
            false
        }
    }
}

fn ports(spec: &core::PodSpec, findings: &mut Findings) -> Vec<ContainerPort> {
    let sidecar = |container: &core::Container| container.restart_policy.as_deref() == Some("Always");
    let init = spec.init_containers.iter().flatten().enumerate().filter(|(_, container)| sidecar(container));
    let containers = spec.containers.iter().enumerate().map(|(i, container)| ("containers", i, container));
    let mut ports = Vec::new();
    for (field, i, container) in containers.chain(init.map(|(i, container)| ("initContainers", i, container))) {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            ports.extend(container_port(port, &format!("spec.{field}[{i}].ports[{j}]"), findings));
        }
    }
    ports
}

fn container_port(port: &core::ContainerPort, at: &str, findings: &mut Findings) -> Option<ContainerPort> {
    let Some(found) = number(port.container_port) else {
        let shown =
            if port.container_port == 0 { "missing or 0".into() } else { format!("found {}", port.container_port) };
        findings.leave_out(format!("{at}.containerPort"), format!("{shown}, expected 1 to 65535"));
        return None;
    };
    let protocol = match protocol(port.protocol.as_deref()) {
        Ok(protocol) => protocol,
        Err(error) => {
            findings.leave_out(format!("{at}.protocol"), error);
            return None;
        }
    };
    let name = port.name.clone().unwrap_or_default();
    if !name.is_empty()
        && let Err(error) = port_name(&name)
    {
        findings.leave_out(format!("{at}.name"), error);
        return None;
    }
    let host_port = port.host_port.filter(|port| *port != 0);
    if let Some(found) = host_port.filter(|port| number(*port).is_none()) {
        findings.leave_out(format!("{at}.hostPort"), format!("found {found}, expected 1 to 65535"));
    }
    Some(ContainerPort { name, port: found, protocol, host_port: host_port.and_then(number) })
}
