//! From a Service as Kubernetes writes it to a valid [`Service`]: the API server's rules (B72, B73, B76).

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;

use super::findings::Findings;
use super::read_health_check::health_check;
use super::read_pod::labels;
use super::read_ports::{number, service_ports};
use super::rules::Rules;
use super::text::{dns_subdomain, quote};
use super::{
    AddressFamily, FamilyPolicy, ForwardingMode, Ingress, Service, ServiceName, ServiceType, Skipped,
    TrafficDistribution, address,
};

const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Says how packets of clients outside reach backends on other nodes.
const FORWARDING_MODE: &str = "svc-agent/forwarding-mode";

/// How long affinity lasts unless the Service says otherwise, in seconds (B51).
const AFFINITY_DEFAULT_S: u32 = 10_800;
const AFFINITY_MAX_S: u32 = 86_400;

/// Validates a Service; every finding is reported, and what is returned must not be used if they refuse the object.
pub fn service(
    object: &core::Service,
    name: ServiceName,
    origin: &str,
    rules: &Rules,
    findings: &mut Findings,
) -> Service {
    let empty = core::ServiceSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&empty);
    if object.spec.is_none() {
        findings.refuse("spec", "missing, expected the Service's ports");
    }
    let service_type = service_type(spec, findings);
    let cluster_ips = cluster_ips(spec, service_type, findings);
    let headless = cluster_ips.is_none();
    let needs_ports = object.spec.is_some() && !headless && service_type != ServiceType::ExternalName;
    let family_policy = family_policy(spec, cluster_ips.as_deref().unwrap_or_default(), findings);
    let families = families(spec, cluster_ips.as_deref().unwrap_or_default(), findings);
    if service_type == ServiceType::ExternalName {
        external_name(spec, findings);
    }
    let (external_local, internal_local) = traffic_policies(spec, service_type, findings);
    let own_labels = object.metadata.labels.as_ref();
    let has_label = |label: &str| own_labels.is_some_and(|labels| labels.contains_key(label));
    let skipped = if service_type == ServiceType::ExternalName {
        Some(Skipped::ExternalName)
    } else if headless {
        Some(Skipped::Headless)
    } else if has_label(HEADLESS_LABEL) {
        Some(Skipped::HeadlessLabel)
    } else if has_label(PROXY_NAME_LABEL) {
        Some(Skipped::OtherProxy)
    } else {
        None
    };
    Service {
        name,
        origin: origin.to_owned(),
        created: object.metadata.creation_timestamp.as_ref().map(|time| time.0),
        service_type,
        skipped,
        ports: service_ports(spec, service_type, needs_ports, rules, findings),
        selector: labels(spec.selector.as_ref(), "spec.selector", findings),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        families,
        family_policy,
        cluster_ips: cluster_ips.unwrap_or_default(),
        external_ips: external_ips(spec, findings),
        ingress: ingress(object.status.as_ref(), service_type, findings),
        load_balancer_ip: load_balancer_ip(spec, service_type, findings),
        load_balancer_class: load_balancer_class(spec, service_type, findings),
        allocate_node_ports: spec.allocate_load_balancer_node_ports.unwrap_or(true),
        health_check_node_port: health_check_node_port(spec, service_type, external_local, findings),
        external_name: if service_type == ServiceType::ExternalName {
            spec.external_name.as_deref().unwrap_or_default().trim_end_matches('.').to_owned()
        } else {
            String::new()
        },
        external_local,
        internal_local,
        distribution: distribution(spec, findings),
        source_ranges: source_ranges(spec, service_type, findings),
        affinity_s: affinity(spec, findings),
        forwarding_mode: forwarding_mode(object, findings),
        health_check: health_check(object.metadata.annotations.as_ref(), findings),
    }
}

/// What the annotation says. One that says nothing sensible does not keep the Service from working.
fn forwarding_mode(object: &core::Service, findings: &mut Findings) -> Option<ForwardingMode> {
    let found = object.metadata.annotations.as_ref()?.get(FORWARDING_MODE)?;
    match found.parse() {
        Ok(mode) => Some(mode),
        Err(expected) => {
            let text = format!("found {}, expected {expected}; the node's own mode applies", quote(found));
            findings.warn(format!("metadata.annotations[{FORWARDING_MODE}]"), text);
            None
        }
    }
}

fn service_type(spec: &core::ServiceSpec, findings: &mut Findings) -> ServiceType {
    match spec.type_.as_deref() {
        None | Some("" | "ClusterIP") => ServiceType::ClusterIp,
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        Some("ExternalName") => ServiceType::ExternalName,
        Some(other) => {
            let expected = "expected ClusterIP, NodePort, LoadBalancer or ExternalName";
            findings.refuse("spec.type", format!("found {}, {expected}", quote(other)));
            ServiceType::ClusterIp
        }
    }
}

/// The ClusterIPs; `None` for a headless Service.
fn cluster_ips(spec: &core::ServiceSpec, service_type: ServiceType, findings: &mut Findings) -> Option<Vec<IpAddr>> {
    let single = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty());
    let list = spec.cluster_ips.as_deref().unwrap_or_default();
    if service_type == ServiceType::ExternalName {
        if single.is_some() || !list.is_empty() {
            findings.refuse("spec.clusterIP", "must be absent where the type is ExternalName");
        }
        return Some(Vec::new());
    }
    if let (Some(single), Some(first)) = (single, list.first())
        && single != first
    {
        let text = format!("found {}, expected the same as spec.clusterIP, {}", quote(first), quote(single));
        findings.refuse("spec.clusterIPs[0]", text);
    }
    if single == Some("None") || list.iter().any(|ip| ip == "None") {
        if list.len() > 1 {
            findings.refuse("spec.clusterIPs", "found several, expected \"None\" alone");
        }
        if service_type != ServiceType::ClusterIp {
            findings.refuse("spec.clusterIP", format!("may not be \"None\" where the type is {service_type}"));
        }
        return None;
    }
    let named: Vec<(String, &str)> = match single {
        Some(single) if list.is_empty() => vec![("spec.clusterIP".to_owned(), single)],
        _ => list.iter().enumerate().map(|(i, ip)| (format!("spec.clusterIPs[{i}]"), ip.as_str())).collect(),
    };
    let mut ips: Vec<IpAddr> = Vec::new();
    for (path, text) in named {
        match address::parse(text) {
            Err(error) => findings.refuse(path, error),
            Ok(ip) if ips.iter().any(|other| other.is_ipv4() == ip.is_ipv4()) => {
                findings.refuse(path, format!("found `{ip}`, a second address of one family, expected one for each"));
            }
            Ok(ip) => ips.push(ip),
        }
    }
    Some(ips)
}

fn families(spec: &core::ServiceSpec, cluster_ips: &[IpAddr], findings: &mut Findings) -> Vec<AddressFamily> {
    let mut families = Vec::new();
    for (i, text) in spec.ip_families.iter().flatten().enumerate() {
        let path = format!("spec.ipFamilies[{i}]");
        let Some(family) = AddressFamily::parse(text) else {
            findings.refuse(path, format!("found {}, expected IPv4 or IPv6", quote(text)));
            continue;
        };
        if families.contains(&family) {
            findings.refuse(path, format!("found `{family}` a second time"));
            continue;
        }
        if let Some(ip) = cluster_ips.get(i).filter(|ip| AddressFamily::of(**ip) != family) {
            findings.refuse(path, format!("found `{family}`, but the ClusterIP at this place is `{ip}`"));
        }
        families.push(family);
    }
    families
}

fn family_policy(spec: &core::ServiceSpec, cluster_ips: &[IpAddr], findings: &mut Findings) -> Option<FamilyPolicy> {
    let path = "spec.ipFamilyPolicy";
    match spec.ip_family_policy.as_deref() {
        None | Some("") => None,
        Some("SingleStack") => {
            let both = cluster_ips.len() > 1 || spec.ip_families.as_ref().is_some_and(|families| families.len() > 1);
            if both {
                let expected = "expected PreferDualStack or RequireDualStack where there are two families";
                findings.refuse(path, format!("found SingleStack, {expected}"));
            }
            Some(FamilyPolicy::SingleStack)
        }
        Some("PreferDualStack") => Some(FamilyPolicy::PreferDualStack),
        Some("RequireDualStack") => Some(FamilyPolicy::RequireDualStack),
        Some(other) => {
            let expected = "expected SingleStack, PreferDualStack or RequireDualStack";
            findings.refuse(path, format!("found {}, {expected}", quote(other)));
            None
        }
    }
}

/// The address that a Service wishes for. A wish that cannot be read does not keep the rest of it from working.
fn load_balancer_ip(spec: &core::ServiceSpec, service_type: ServiceType, findings: &mut Findings) -> Option<IpAddr> {
    let text = spec.load_balancer_ip.as_deref().filter(|text| !text.is_empty())?;
    if service_type != ServiceType::LoadBalancer {
        return None;
    }
    match address::parse(text) {
        Ok(ip) => Some(ip),
        Err(error) => {
            findings.leave_out("spec.loadBalancerIP", error);
            None
        }
    }
}

fn load_balancer_class(spec: &core::ServiceSpec, service_type: ServiceType, findings: &mut Findings) -> Option<String> {
    let class = spec.load_balancer_class.as_ref()?;
    let path = "spec.loadBalancerClass";
    if service_type != ServiceType::LoadBalancer {
        findings.refuse(path, format!("must be absent where the type is {service_type}, expected LoadBalancer"));
    }
    if class.is_empty() {
        findings.refuse(path, "found an empty name, expected the name of a load balancer or none");
    }
    Some(class.clone())
}

fn health_check_node_port(
    spec: &core::ServiceSpec,
    service_type: ServiceType,
    external_local: bool,
    findings: &mut Findings,
) -> Option<u16> {
    let found = spec.health_check_node_port.filter(|port| *port != 0)?;
    let path = "spec.healthCheckNodePort";
    if service_type != ServiceType::LoadBalancer || !external_local {
        let text = "must be absent unless the type is LoadBalancer and the external traffic policy is Local";
        findings.refuse(path, format!("found {found}, {text}"));
        return None;
    }
    let valid = number(found);
    if valid.is_none() {
        findings.refuse(path, format!("found {found}, expected 1 to 65535"));
    }
    valid
}

fn external_name(spec: &core::ServiceSpec, findings: &mut Findings) {
    match spec.external_name.as_deref().map(|name| name.strip_suffix('.').unwrap_or(name)) {
        None | Some("") => findings.refuse("spec.externalName", "missing, expected the DNS name of the Service"),
        Some(name) => {
            if let Err(error) = dns_subdomain(name) {
                findings.refuse("spec.externalName", error);
            }
        }
    }
}

fn external_ips(spec: &core::ServiceSpec, findings: &mut Findings) -> Vec<IpAddr> {
    let mut ips = Vec::new();
    for (i, text) in spec.external_ips.iter().flatten().enumerate() {
        match address::parse(text) {
            Ok(ip) if ips.contains(&ip) => {}
            Ok(ip) => ips.push(ip),
            Err(error) => findings.refuse(format!("spec.externalIPs[{i}]"), error),
        }
    }
    ips
}

/// The addresses of the load balancer. Controllers write them, so a bad one costs the address, not the Service.
fn ingress(status: Option<&core::ServiceStatus>, service_type: ServiceType, findings: &mut Findings) -> Vec<Ingress> {
    if service_type != ServiceType::LoadBalancer {
        return Vec::new();
    }
    let list = status.and_then(|status| status.load_balancer.as_ref()).and_then(|status| status.ingress.as_ref());
    let mut found: Vec<Ingress> = Vec::new();
    for (i, entry) in list.into_iter().flatten().enumerate() {
        let path = format!("status.loadBalancer.ingress[{i}]");
        let Some(text) = entry.ip.as_deref().filter(|ip| !ip.is_empty()) else { continue };
        let proxy = match entry.ip_mode.as_deref() {
            None | Some("" | "VIP") => false,
            Some("Proxy") => true,
            Some(other) => {
                findings.leave_out(format!("{path}.ipMode"), format!("found {}, expected VIP or Proxy", quote(other)));
                continue;
            }
        };
        match address::parse(text) {
            Ok(ip) if found.iter().any(|earlier| earlier.ip == ip) => {}
            Ok(ip) => found.push(Ingress { ip, proxy }),
            Err(error) => findings.leave_out(format!("{path}.ip"), error),
        }
    }
    found
}

/// Both traffic policies: whether the external and the internal one are Local.
fn traffic_policies(spec: &core::ServiceSpec, service_type: ServiceType, findings: &mut Findings) -> (bool, bool) {
    let mut local = |path: &str, value: Option<&str>| match value {
        None | Some("" | "Cluster") => false,
        Some("Local") => true,
        Some(other) => {
            findings.refuse(path, format!("found {}, expected Cluster or Local", quote(other)));
            false
        }
    };
    let external = local("spec.externalTrafficPolicy", spec.external_traffic_policy.as_deref());
    let internal = local("spec.internalTrafficPolicy", spec.internal_traffic_policy.as_deref());
    let reachable = matches!(service_type, ServiceType::NodePort | ServiceType::LoadBalancer)
        || spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
    if spec.external_traffic_policy.as_deref().is_some_and(|policy| !policy.is_empty()) && !reachable {
        let text = format!("must be absent where the type is {service_type} and there are no externalIPs");
        findings.refuse("spec.externalTrafficPolicy", text);
    }
    (external, internal)
}

fn distribution(spec: &core::ServiceSpec, findings: &mut Findings) -> Option<TrafficDistribution> {
    match spec.traffic_distribution.as_deref() {
        None | Some("") => None,
        Some("PreferClose" | "PreferSameZone") => Some(TrafficDistribution::PreferSameZone),
        Some("PreferSameNode") => Some(TrafficDistribution::PreferSameNode),
        Some(other) => {
            let expected = "expected PreferClose, PreferSameZone or PreferSameNode";
            findings.refuse("spec.trafficDistribution", format!("found {}, {expected}", quote(other)));
            None
        }
    }
}

/// The source ranges. An entry that cannot be read refuses the Service: dropping it could leave an empty list, and
/// that means everybody (CVE-2025-64715).
fn source_ranges(spec: &core::ServiceSpec, service_type: ServiceType, findings: &mut Findings) -> Vec<IpNet> {
    let list = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    if !list.is_empty() && service_type != ServiceType::LoadBalancer {
        let text = format!("must be absent where the type is {service_type}, expected LoadBalancer");
        findings.refuse("spec.loadBalancerSourceRanges", text);
    }
    let mut ranges = Vec::new();
    for (i, text) in list.iter().enumerate() {
        match text.trim().parse::<IpNet>() {
            Ok(range) => ranges.push(range.trunc()),
            Err(_) => findings.refuse(
                format!("spec.loadBalancerSourceRanges[{i}]"),
                format!("found {}, expected an address range such as 10.0.0.0/8", quote(text)),
            ),
        }
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

fn affinity(spec: &core::ServiceSpec, findings: &mut Findings) -> Option<u32> {
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => {
            if config.is_some() {
                findings.refuse("spec.sessionAffinityConfig", "must be absent unless spec.sessionAffinity is ClientIP");
            }
            None
        }
        Some("ClientIP") => {
            let Some(timeout) = config.and_then(|client_ip| client_ip.timeout_seconds) else {
                return Some(AFFINITY_DEFAULT_S);
            };
            let valid = u32::try_from(timeout).ok().filter(|timeout| (1..=AFFINITY_MAX_S).contains(timeout));
            if valid.is_none() {
                findings.refuse(
                    "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                    format!("found {timeout}, expected 1 to {AFFINITY_MAX_S} seconds"),
                );
            }
            valid
        }
        Some(other) => {
            findings.refuse("spec.sessionAffinity", format!("found {}, expected None or ClientIP", quote(other)));
            None
        }
    }
}
