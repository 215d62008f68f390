//! Objects as rows, in the columns of `kubectl get`.

use serde_json::Value;

use crate::cli::age::age;
use crate::cli::human::joined;
use crate::cli::printer::{Column, column, wide};
use crate::model::ObjectKind;

/// Longer addresses of a load balancer are cut, but in wide tables.
const BALANCER_CHARS: usize = 16;
/// So many ports or endpoints are shown, the rest is counted.
const SHOWN: usize = 3;

/// The columns of a kind, without the namespace.
pub fn columns(kind: ObjectKind) -> &'static [Column] {
    const SERVICES: &[Column] = &[
        column("NAME"),
        column("TYPE"),
        column("CLUSTER-IP"),
        column("EXTERNAL-IP"),
        column("PORT(S)"),
        column("AGE"),
        wide("SELECTOR"),
    ];
    const SLICES: &[Column] =
        &[column("NAME"), column("ADDRESSTYPE"), column("PORTS"), column("ENDPOINTS"), column("AGE"), wide("SERVICE")];
    const ENDPOINTS: &[Column] = &[column("NAME"), column("ENDPOINTS"), column("AGE")];
    const PODS: &[Column] = &[
        column("NAME"),
        column("READY"),
        column("STATUS"),
        column("RESTARTS"),
        column("AGE"),
        wide("IP"),
        wide("NODE"),
    ];
    const NODES: &[Column] =
        &[column("NAME"), column("STATUS"), column("ROLES"), column("AGE"), column("VERSION"), wide("INTERNAL-IP")];
    match kind {
        ObjectKind::Service => SERVICES,
        ObjectKind::EndpointSlice => SLICES,
        ObjectKind::Endpoints => ENDPOINTS,
        ObjectKind::Pod => PODS,
        ObjectKind::Node => NODES,
    }
}

/// The cells of an object; nothing of it is known to be valid.
pub fn cells(kind: ObjectKind, object: &Value, wide: bool) -> Vec<String> {
    let mut cells = vec![text(object, "/metadata/name").to_owned()];
    cells.extend(match kind {
        ObjectKind::Service => service(object, wide),
        ObjectKind::EndpointSlice => slice(object),
        ObjectKind::Endpoints => vec![few(subsets(object)), age(object)],
        ObjectKind::Pod => pod(object),
        ObjectKind::Node => node(object),
    });
    cells
}

fn service(object: &Value, wide: bool) -> Vec<String> {
    let service_type = or(text(object, "/spec/type"), "ClusterIP");
    let cluster_ip = match service_type {
        "ExternalName" => "",
        _ => or(text(object, "/spec/clusterIP"), text(object, "/spec/clusterIPs/0")),
    };
    let ports = list(object, "/spec/ports").map(|port| {
        let (number, node_port) =
            (port.get("port").and_then(Value::as_u64), port.get("nodePort").and_then(Value::as_u64));
        let node_port = node_port.filter(|number| *number != 0).map_or_else(String::new, |number| format!(":{number}"));
        format!("{}{node_port}/{}", number.unwrap_or_default(), or(text(port, "/protocol"), "TCP"))
    });
    let ports: Vec<String> = ports.collect();
    vec![
        service_type.to_owned(),
        cluster_ip.to_owned(),
        external_ip(object, service_type, wide),
        ports.join(","),
        age(object),
        pairs(object, "/spec/selector"),
    ]
}

/// Addresses outside: those of the load balancer before those of the Service itself; its alias for an ExternalName.
pub fn external_ip(object: &Value, service_type: &str, wide: bool) -> String {
    let externals = list(object, "/spec/externalIPs").filter_map(Value::as_str).map(str::to_owned);
    match service_type {
        "ExternalName" => text(object, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let ingress = list(object, "/status/loadBalancer/ingress");
            let mut found: Vec<&str> =
                ingress.map(|ingress| or(text(ingress, "/ip"), text(ingress, "/hostname"))).collect();
            found.sort_unstable();
            found.dedup();
            let mut balancer = found.join(",");
            if !wide && balancer.chars().count() > BALANCER_CHARS {
                balancer = balancer.chars().take(BALANCER_CHARS - 3).chain("...".chars()).collect();
            }
            let all: Vec<String> =
                Some(balancer).filter(|text| !text.is_empty()).into_iter().chain(externals).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ => externals.collect::<Vec<_>>().join(","),
    }
}

fn slice(object: &Value) -> Vec<String> {
    let ports = list(object, "/ports").filter_map(|port| port.get("port")?.as_u64());
    let ports = few(ports.map(|port| port.to_string()).collect());
    let addresses = list(object, "/endpoints").flat_map(|endpoint| list(endpoint, "/addresses"));
    let addresses = few(addresses.filter_map(Value::as_str).map(str::to_owned).collect());
    let unset = |text: String| if text.is_empty() { "<unset>".to_owned() } else { text };
    vec![
        text(object, "/addressType").to_owned(),
        unset(ports),
        unset(addresses),
        age(object),
        text(object, "/metadata/labels/kubernetes.io~1service-name").to_owned(),
    ]
}

/// The ready addresses of an Endpoints object, with each of their ports.
pub fn subsets(object: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for subset in list(object, "/subsets") {
        let ports: Vec<u64> = list(subset, "/ports").filter_map(|port| port.get("port")?.as_u64()).collect();
        for address in list(subset, "/addresses").map(|address| text(address, "/ip")) {
            let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            if ports.is_empty() {
                all.push(address.clone());
            }
            all.extend(ports.iter().map(|port| format!("{address}:{port}")));
        }
    }
    all
}

fn pod(object: &Value) -> Vec<String> {
    let statuses = || list(object, "/status/containerStatuses");
    let ready = statuses().filter(|status| status.get("ready") == Some(&Value::Bool(true))).count();
    let total = list(object, "/spec/containers").count();
    let restarts: u64 = statuses().filter_map(|status| status.get("restartCount")?.as_u64()).sum();
    let status = match object.pointer("/metadata/deletionTimestamp").filter(|time| !time.is_null()) {
        Some(_) => "Terminating",
        None => or(or(text(object, "/status/reason"), text(object, "/status/phase")), "Unknown"),
    };
    vec![
        format!("{ready}/{total}"),
        status.to_owned(),
        restarts.to_string(),
        age(object),
        or(text(object, "/status/podIP"), text(object, "/status/podIPs/0/ip")).to_owned(),
        text(object, "/spec/nodeName").to_owned(),
    ]
}

fn node(object: &Value) -> Vec<String> {
    let ready = list(object, "/status/conditions").find(|condition| text(condition, "/type") == "Ready");
    let mut status = vec![match ready.map(|condition| text(condition, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if object.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push("SchedulingDisabled");
    }
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    let roles = labels.filter_map(|(label, _)| label.strip_prefix("node-role.kubernetes.io/"));
    let internal = list(object, "/status/addresses").find(|address| text(address, "/type") == "InternalIP");
    vec![
        status.join(","),
        joined(roles.filter(|role| !role.is_empty())),
        age(object),
        text(object, "/status/nodeInfo/kubeletVersion").to_owned(),
        internal.map(|address| text(address, "/address")).unwrap_or_default().to_owned(),
    ]
}

/// The first ones, and how many there are besides.
pub fn few(all: Vec<String>) -> String {
    let more = all.len().saturating_sub(SHOWN);
    let shown = all.into_iter().take(SHOWN).collect::<Vec<_>>().join(",");
    if more == 0 { shown } else { format!("{shown} + {more} more...") }
}

/// `a=b,c=d`
pub fn pairs(object: &Value, pointer: &str) -> String {
    let map = object.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    map.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect::<Vec<_>>().join(",")
}

/// A text, empty if there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The elements of a list, none if there is no list.
pub fn list<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// The first one that says something.
pub fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}
