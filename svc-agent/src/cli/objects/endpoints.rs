//! `svcctl get endpoints`: a row for each Service, whatever its endpoints were written as.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::Value;

use super::rows::{few, list, text};
use super::{Objects, query};
use crate::cli::CliError;
use crate::cli::age::age;
use crate::cli::args::Get;
use crate::client::Client;
use crate::control::api::{ObjectList, ObjectQuery, Selector};
use crate::model::ObjectKind;

/// Prints the ready endpoints of Services; returns how many rows there were.
pub async fn endpoints(client: &Client, get: &Get, out: &mut dyn Write) -> Result<usize, CliError> {
    let asked = query(get, ObjectKind::Endpoints);
    let services = objects(client, &asked, ObjectKind::Service).await?;
    let written = objects(client, &asked, ObjectKind::Endpoints).await?;
    let slices = ObjectQuery { namespace: asked.namespace.clone(), ..ObjectQuery::default() };
    let slices = objects(client, &slices, ObjectKind::EndpointSlice).await?;
    let mut of_service: BTreeMap<(&str, &str), Vec<&Value>> = BTreeMap::new();
    for slice in &slices {
        let service = text(slice, "/metadata/labels/kubernetes.io~1service-name");
        of_service.entry((text(slice, "/metadata/namespace"), service)).or_default().push(slice);
    }
    let name =
        |object: &'_ Value| (text(object, "/metadata/namespace").to_owned(), text(object, "/metadata/name").to_owned());
    let mut rows: BTreeMap<(String, String), (&Value, Vec<String>)> = BTreeMap::new();
    for object in &written {
        rows.insert(name(object), (object, serving(&[], Some(object))));
    }
    for service in services.iter().filter(|service| text(service, "/spec/type") != "ExternalName") {
        let key = name(service);
        let own = of_service.get(&(key.0.as_str(), key.1.as_str())).map(Vec::as_slice).unwrap_or_default();
        // As in resolve: a mirror of Endpoints does not count twice.
        let found = if own.is_empty() {
            rows.remove(&key).map(|(_, found)| found).unwrap_or_default()
        } else {
            serving(own, None)
        };
        rows.insert(key, (service, found));
    }
    let count = rows.len();
    let mut table = Objects::new(get, ObjectKind::Endpoints);
    for ((namespace, name), (object, found)) in rows.into_iter().take(get.limit.unwrap_or(usize::MAX)) {
        let namespace = table.namespaces.then_some(namespace);
        let labels = table.labels_of(object);
        table.table.row(namespace.into_iter().chain([name, few(found), age(object)]).chain(labels).collect(), out)?;
    }
    table.table.flush(out)?;
    Ok(count)
}

async fn objects(client: &Client, query: &ObjectQuery, kind: ObjectKind) -> Result<Vec<Value>, CliError> {
    let query = ObjectQuery {
        kind: Some(kind.to_string()),
        labels: query.labels.clone().filter(|_: &Selector| kind != ObjectKind::EndpointSlice),
        limit: None,
        ..query.clone()
    };
    Ok(client.get::<ObjectList>("/v1/objects", &query).await?.items)
}

/// Addresses and ports of ready endpoints, in order, each once.
pub fn serving(slices: &[&Value], endpoints: Option<&Value>) -> Vec<String> {
    let mut all: Vec<String> = endpoints.map(super::rows::subsets).unwrap_or_default();
    for slice in slices {
        let ports: Vec<u64> = list(slice, "/ports").filter_map(|port| port.get("port")?.as_u64()).collect();
        let is_ready = |endpoint: &&Value| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false));
        for endpoint in list(slice, "/endpoints").filter(is_ready) {
            let address = text(endpoint, "/addresses/0");
            let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            if ports.is_empty() {
                all.push(address.clone());
            }
            all.extend(ports.iter().map(|port| format!("{address}:{port}")));
        }
    }
    all.sort();
    all.dedup();
    all
}
