//! `svcctl describe service`: its definition, what the node made of it, and what is wrong with it.

use std::io::Write;

use serde_json::Value;

use super::CliError;
use super::age::age;
use super::args::Describe;
use super::change::usage;
use super::human::{harmless, number};
use super::objects::{DEFAULT_NAMESPACE, external_ip, list, or, pairs, serving, text};
use super::table::Table;
use crate::client::Client;
use crate::control::api::{List, ObjectFilter, ObjectList, ObjectQuery, Service, Status};
use crate::model::ObjectKind;

/// Prints it.
pub async fn run(client: &Client, args: &Describe, out: &mut dyn Write) -> Result<(), CliError> {
    let (kind, name) = match args.what.as_slice() {
        [kind, name] => (kind.as_str(), name.as_str()),
        [one] => one.split_once('/').ok_or_else(|| usage("name the Service, too: svcctl describe service web"))?,
        _ => return Err(usage("name one Service: svcctl describe service web")),
    };
    if ObjectKind::named(kind) != Ok(ObjectKind::Service) {
        return Err(usage(&format!("found the kind `{kind}`, expected service")));
    }
    let namespace = args.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let ask = async |kind: ObjectKind, name: Option<&str>| {
        let query = ObjectQuery {
            kind: Some(kind.to_string()),
            namespace: Some(namespace.to_owned()),
            name: name.map(str::to_owned),
            ..ObjectQuery::default()
        };
        client.get::<ObjectList>("/v1/objects", &query).await
    };
    let found = ask(ObjectKind::Service, Some(name)).await?;
    let Some(service) = found.items.first() else {
        return Err(CliError::NotFound(format!("Service `{name}` not found in the namespace `{namespace}`")));
    };
    let slices = ask(ObjectKind::EndpointSlice, None).await?.items;
    let own = |slice: &&Value| text(slice, "/metadata/labels/kubernetes.io~1service-name") == name;
    let slices: Vec<&Value> = slices.iter().filter(own).collect();
    let endpoints = ask(ObjectKind::Endpoints, Some(name)).await?.items;
    let filter = ObjectFilter { namespace: Some(namespace.into()), service: Some(name.into()), limit: None };
    let resolved = client.get::<List<Service>>("/v1/services", &filter).await?.items;
    let status = client.get::<Status>("/v1/status", &()).await?;

    let mut rows = Vec::new();
    define(service, &mut rows);
    let serving = serving(&slices, endpoints.first().filter(|_| slices.is_empty()));
    rows.push(("Endpoints", serving.join(",")));
    rows.push(("Defined in", found.origins.first().cloned().unwrap_or_default()));
    for service in &resolved {
        traffic(service, &mut rows);
    }
    let mut table = Table::new(["", ""], false);
    for (title, value) in rows {
        table.row(vec![format!("{title}:"), value], out)?;
    }
    table.flush(out)?;
    let about = format!("Service `{namespace}/{name}`");
    let told = status.sync.problems.iter().chain(&status.sync.notices).filter(|line| line.contains(&about)).cloned();
    let refused = resolved.iter().filter_map(|service| service.refused.clone());
    let lines: Vec<String> = refused.map(|reason| format!("refused: {reason}")).chain(told).collect();
    writeln!(out, "{}", if lines.is_empty() { "Problems:   <none>" } else { "Problems:" })?;
    for line in lines {
        writeln!(out, "  {}", harmless(&line))?;
    }
    Ok(())
}

/// What its author asked for, and what was allocated.
fn define(service: &Value, rows: &mut Vec<(&'static str, String)>) {
    let texts = |pointer: &str| list(service, pointer).filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    let get = |pointer: &str| text(service, pointer).to_owned();
    let service_type = or(text(service, "/spec/type"), "ClusterIP");
    rows.push(("Name", get("/metadata/name")));
    rows.push(("Namespace", get("/metadata/namespace")));
    rows.push(("Labels", pairs(service, "/metadata/labels")));
    rows.push(("Annotations", pairs(service, "/metadata/annotations")));
    rows.push(("Age", age(service)));
    rows.push(("Selector", pairs(service, "/spec/selector")));
    rows.push(("Type", service_type.to_owned()));
    rows.push(("IP Families", texts("/spec/ipFamilies")));
    rows.push(("IPs", or(&texts("/spec/clusterIPs"), text(service, "/spec/clusterIP")).to_owned()));
    rows.push(("External IPs", external_ip(service, service_type, true)));
    for port in list(service, "/spec/ports") {
        let protocol = or(text(port, "/protocol"), "TCP");
        let value = |field: &str| match port.get(field) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let name = or(text(port, "/name"), "<unset>");
        rows.push(("Port", format!("{name}  {}/{protocol}", value("port"))));
        rows.push(("TargetPort", format!("{}/{protocol}", or(&value("targetPort"), &value("port")))));
        if !value("nodePort").is_empty() {
            rows.push(("NodePort", format!("{name}  {}/{protocol}", value("nodePort"))));
        }
    }
    rows.push(("Session Affinity", or(text(service, "/spec/sessionAffinity"), "None").to_owned()));
    if matches!(service_type, "NodePort" | "LoadBalancer") {
        rows.push(("External Traffic Policy", or(text(service, "/spec/externalTrafficPolicy"), "Cluster").to_owned()));
    }
    rows.push(("Internal Traffic Policy", or(text(service, "/spec/internalTrafficPolicy"), "Cluster").to_owned()));
}

/// What the node does for it.
fn traffic(service: &Service, rows: &mut Vec<(&'static str, String)>) {
    for port in &service.ports {
        let frontends = port.frontends.iter().map(|frontend| {
            let address = std::net::SocketAddr::new(frontend.address, frontend.port);
            format!("{address} ({})", frontend.kind)
        });
        rows.push((
            "Frontends",
            format!("{} {}: {}", port.protocol, port.family, frontends.collect::<Vec<_>>().join(", ")),
        ));
        rows.push((
            "Traffic",
            format!(
                "{} new connections, {} packets and {} bytes in, {} packets and {} bytes out",
                number(port.new_flows),
                number(port.forward.packets),
                number(port.forward.bytes),
                number(port.reverse.packets),
                number(port.reverse.bytes)
            ),
        ));
    }
}
