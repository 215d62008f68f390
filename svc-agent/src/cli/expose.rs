//! `svcctl expose`: a Service, and its endpoints if they are named, from one command line.

mod parts;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;

use hyper::Method;
use serde_json::{Map, Value, json};

pub use parts::{EndpointArg, PortArg, TargetArg};

use super::CliError;
use super::args::{Expose, Format};
use super::change::{PATH, print, usage};
use super::objects::{DEFAULT_NAMESPACE, whole};
use crate::client::Client;
use crate::control::api::{ChangeQuery, Changes, Selector};
use crate::model::ObjectKind;
use crate::sources::applied::{MANAGED_BY, MANAGER, SERVICE_NAME};

/// Makes the objects and has the agent keep them; with `-o yaml` or `json` it prints them instead of what was done.
pub async fn run(client: &Client, args: &Expose, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), CliError> {
    let objects = objects(args)?;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let shown = args.output.filter(|output| matches!(output, Format::Yaml | Format::Json));
    if shown.is_none() || !args.dry_run {
        let query = ChangeQuery { dry_run: args.dry_run, create: true, ..ChangeQuery::default() };
        let body = list.to_string().into_bytes();
        let changes = client.change::<Changes>(Method::POST, PATH, &query, body).await?;
        if shown.is_none() {
            return print(&changes, out, err);
        }
    }
    Ok(out.write_all(whole(shown.unwrap_or_default(), &list)?.as_bytes())?)
}

/// The Service and its EndpointSlices.
fn objects(args: &Expose) -> Result<Vec<Value>, CliError> {
    let external = args.external_name.is_some();
    match (args.endpoints.is_empty(), &args.selector, external) {
        (false, None, false) | (true, Some(_), false) | (true, None, true) => {}
        _ => {
            return Err(usage(
                "say who serves: --endpoint ADDRESS:PORT (may be repeated), --selector LABELS or --external-name NAME",
            ));
        }
    }
    let ports = ports(args)?;
    let mut all = vec![service(args, &ports)?];
    all.extend(slices(args, &ports)?);
    Ok(all)
}

/// What the Service's ports are, all with names if there are several.
fn ports(args: &Expose) -> Result<Vec<PortArg>, CliError> {
    let mut ports = args.ports.clone();
    let several = ports.len() > 1;
    if several && (args.target_port.is_some() || args.node_port.is_some()) {
        return Err(usage("--target-port and --node-port are for a single --port; write --port 80:8080 for each"));
    }
    for (index, port) in ports.iter_mut().enumerate() {
        if several && port.name.is_empty() {
            port.name = format!("port-{}", index + 1);
        }
        if let Some(target) = &args.target_port {
            port.target = Some(target.clone());
        }
    }
    // As with kubectl, an endpoint's port says what the target is.
    if let ([port], [EndpointArg { port: Some(number), .. }, ..]) = (ports.as_mut_slice(), args.endpoints.as_slice())
        && port.target.is_none()
    {
        port.target = Some(TargetArg::Number(*number));
    }
    if ports.is_empty() && args.external_name.is_none() {
        return Err(usage("name the port that clients dial: --port 80"));
    }
    Ok(ports)
}

fn service(args: &Expose, ports: &[PortArg]) -> Result<Value, CliError> {
    let mut spec = Map::new();
    let mut set = |field: &str, value: Value| drop(spec.insert(field.to_owned(), value));
    let service_type = if args.external_name.is_some() { "ExternalName" } else { args.service_type.as_str() };
    set("type", service_type.into());
    if !ports.is_empty() {
        let port = |port: &PortArg| {
            let mut value = json!({"port": port.port, "protocol": port.protocol.to_string()});
            if let Some(fields) = value.as_object_mut() {
                if !port.name.is_empty() {
                    fields.insert("name".into(), port.name.as_str().into());
                }
                if let Some(target) = &port.target {
                    fields.insert("targetPort".into(), target.value());
                }
                if let Some(number) = args.node_port {
                    fields.insert("nodePort".into(), number.into());
                }
            }
            value
        };
        set("ports", ports.iter().map(port).collect());
    }
    if let Some(selector) = &args.selector {
        set("selector", labels(selector, "--selector")?.into());
    }
    let families = families(args);
    match families.as_slice() {
        [one] => set("ipFamilies", json!([one])),
        [_, ..] => set("ipFamilyPolicy", "PreferDualStack".into()),
        [] => {}
    }
    let texts = [
        ("externalName", &args.external_name),
        ("clusterIP", &args.cluster_ip),
        ("loadBalancerIP", &args.load_balancer_ip),
        ("sessionAffinity", &args.session_affinity),
        ("externalTrafficPolicy", &args.external_traffic_policy),
    ];
    for (field, value) in texts {
        if let Some(value) = value {
            set(field, value.as_str().into());
        }
    }
    if !args.external_ips.is_empty() {
        set("externalIPs", args.external_ips.iter().map(ToString::to_string).collect());
    }
    let mut metadata = metadata(args, &args.name);
    if let (Some(given), Some(metadata)) = (&args.labels, metadata.as_object_mut()) {
        metadata.insert("labels".into(), labels(given, "--labels")?.into());
    }
    let kind = ObjectKind::Service;
    Ok(json!({"apiVersion": kind.api_version(), "kind": kind.as_str(), "metadata": metadata, "spec": spec}))
}

/// Endpoints that share family and ports, each group a slice.
fn slices(args: &Expose, ports: &[PortArg]) -> Result<Vec<Value>, CliError> {
    let mut groups: BTreeMap<(&str, Option<u16>), Vec<&EndpointArg>> = BTreeMap::new();
    for endpoint in &args.endpoints {
        groups.entry((family(endpoint.address), endpoint.port)).or_default().push(endpoint);
    }
    let kind = ObjectKind::EndpointSlice;
    let mut all = Vec::new();
    for ((family, number), endpoints) in &groups {
        let slice_ports = ports.iter().map(|port| slice_port(port, *number, ports.len()));
        let slice_ports = slice_ports.collect::<Result<Vec<_>, _>>()?;
        let alone = groups.keys().filter(|(other, _)| other == family).count() == 1;
        let suffix = number.filter(|_| !alone).map(|number| format!("-{number}")).unwrap_or_default();
        let mut metadata = metadata(args, &format!("{}-{}{suffix}", args.name, family.to_lowercase()));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("labels".into(), json!({SERVICE_NAME: args.name, MANAGED_BY: MANAGER}));
        }
        let endpoints = endpoints.iter().map(|endpoint| {
            let mut value = json!({"addresses": [endpoint.address], "conditions": {"ready": true}});
            if let (Some(node), Some(fields)) = (&endpoint.node, value.as_object_mut()) {
                fields.insert("nodeName".into(), node.as_str().into());
            }
            value
        });
        all.push(json!({
            "apiVersion": kind.api_version(),
            "kind": kind.as_str(),
            "metadata": metadata,
            "addressType": family,
            "ports": slice_ports,
            "endpoints": endpoints.collect::<Vec<_>>(),
        }));
    }
    Ok(all)
}

fn slice_port(port: &PortArg, number: Option<u16>, ports: usize) -> Result<Value, CliError> {
    let number = match (number, &port.target) {
        (Some(_), _) if ports > 1 => {
            return Err(usage(
                "an --endpoint with a port is for a single --port; write --endpoint ADDRESS and --port 80:8080 for each",
            ));
        }
        (Some(number), _) => number,
        (None, Some(TargetArg::Number(number))) => *number,
        (None, None) => port.port,
        (None, Some(TargetArg::Name(_))) => {
            return Err(usage("a target port by name is for --selector; endpoints need its number"));
        }
    };
    let mut value = json!({"port": number, "protocol": port.protocol.to_string()});
    if let Some(fields) = value.as_object_mut().filter(|_| !port.name.is_empty()) {
        fields.insert("name".into(), port.name.as_str().into());
    }
    Ok(value)
}

fn metadata(args: &Expose, name: &str) -> Value {
    json!({"name": name, "namespace": args.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)})
}

/// Those of the endpoints, each once.
fn families(args: &Expose) -> Vec<&'static str> {
    let mut families: Vec<&str> = args.endpoints.iter().map(|endpoint| family(endpoint.address)).collect();
    families.sort_unstable();
    families.dedup();
    families
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn labels(selector: &Selector, option: &str) -> Result<Map<String, Value>, CliError> {
    let pairs = selector.pairs().filter(|pairs| !pairs.is_empty());
    let pairs = pairs
        .ok_or_else(|| usage(&format!("{option}: found `{selector}`, expected labels such as app=web,tier=front")))?;
    Ok(pairs.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect())
}

#[cfg(test)]
mod tests;
