//! `svcctl get` of the objects of the sources, as `kubectl get` shows them.

mod endpoints;
mod rows;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

pub use endpoints::{endpoints, serving};
pub use rows::{external_ip, list, or, pairs, text};

use super::CliError;
use super::args::{Format, Get};
use super::printer::{Column, column, yaml};
use super::table::Table;
use crate::client::Client;
use crate::control::api::{ObjectEvent, ObjectList, ObjectQuery};
use crate::model::ObjectKind;

/// Where objects are looked for unless a namespace is named, as with kubectl.
pub const DEFAULT_NAMESPACE: &str = "default";

/// How long after an event the next one may come to be aligned with it.
const TOGETHER: Duration = Duration::from_millis(100);

/// Prints objects; returns how many.
pub async fn run(client: &Client, get: &Get, kind: ObjectKind, out: &mut dyn Write) -> Result<usize, CliError> {
    let query = query(get, kind);
    if get.watch {
        return watch(client, get, kind, &query, out).await;
    }
    let objects = client.get::<ObjectList>("/v1/objects", &query).await?;
    let count = objects.items.len();
    match get.output.output {
        Format::Table | Format::Wide => {
            let mut table = Objects::new(get, kind);
            for object in &objects.items {
                table.row(object, out)?;
            }
            table.table.flush(out)?;
        }
        Format::Name => {
            for object in &objects.items {
                writeln!(out, "{}", full_name(kind, text(object, "/metadata/name")))?;
            }
        }
        Format::Json | Format::Yaml => {
            let document = match (&query.name, objects.items.first()) {
                (Some(_), None) => return Ok(0),
                // With a name alone there is at most one.
                (Some(_), Some(object)) if count == 1 => object.clone(),
                _ => json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": objects.items}),
            };
            out.write_all(whole(get.output.output, &document)?.as_bytes())?;
        }
    }
    Ok(count)
}

/// Prints objects as they come and change, until the agent ends or the reader goes away.
async fn watch(
    client: &Client,
    get: &Get,
    kind: ObjectKind,
    query: &ObjectQuery,
    out: &mut dyn Write,
) -> Result<usize, CliError> {
    let mut lines = client.lines::<ObjectEvent>("/v1/objects", query).await?;
    let mut table = Objects::new(get, kind);
    let mut count = 0;
    loop {
        let event = match timeout(TOGETHER, lines.next()).await {
            Ok(event) => event?,
            Err(_) => {
                table.table.flush(out)?;
                out.flush()?;
                lines.next().await?
            }
        };
        let Some(ObjectEvent { object, .. }) = event else { break };
        match get.output.output {
            Format::Table | Format::Wide => table.row(&object, out)?,
            Format::Name => writeln!(out, "{}", full_name(kind, text(&object, "/metadata/name")))?,
            Format::Yaml => write!(out, "---\n{}", whole(Format::Yaml, &object)?)?,
            Format::Json => out.write_all(whole(Format::Json, &object)?.as_bytes())?,
        }
        count += 1;
    }
    table.table.flush(out)?;
    Ok(count)
}

/// What to ask the agent for. `NAMESPACE/NAME` names both.
pub fn query(get: &Get, kind: ObjectKind) -> ObjectQuery {
    let (namespace, name) = match get.name.as_deref().map(|name| name.split_once('/').ok_or(name)) {
        Some(Ok((namespace, name))) => (Some(namespace.to_owned()), Some(name.to_owned())),
        Some(Err(name)) => (namespace(get), Some(name.to_owned())),
        None => (namespace(get), None),
    };
    ObjectQuery {
        kind: Some(kind.to_string()),
        namespace: namespace.filter(|_| kind.is_namespaced()),
        name,
        labels: get.selector.clone(),
        watch: get.watch,
        limit: get.limit,
    }
}

/// The namespace that is meant; `None` for all.
pub fn namespace(get: &Get) -> Option<String> {
    if get.all_namespaces {
        return None;
    }
    Some(get.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()))
}

/// `service/web`, as kubectl calls it.
pub fn full_name(kind: ObjectKind, name: &str) -> String {
    let group = kind.api_version().split_once('/').map(|(group, _)| format!(".{group}")).unwrap_or_default();
    format!("{}{group}/{name}", kind.as_str().to_lowercase())
}

/// A table of objects of one kind.
struct Objects {
    kind: ObjectKind,
    wide: bool,
    namespaces: bool,
    labels: bool,
    table: Table,
}

impl Objects {
    fn new(get: &Get, kind: ObjectKind) -> Self {
        const NAMESPACE: Column = column("NAMESPACE");
        const LABELS: Column = column("LABELS");
        let wide = get.output.output == Format::Wide;
        let namespaces = get.all_namespaces && kind.is_namespaced();
        let first = namespaces.then_some(&NAMESPACE).into_iter();
        let last = get.show_labels.then_some(&LABELS);
        let shown = first.chain(rows::columns(kind)).filter(|column| wide || !column.wide).chain(last);
        let table = Table::new(shown.map(|column| column.name), !get.output.no_headers);
        Self { kind, wide, namespaces, labels: get.show_labels, table }
    }

    /// The cell of the labels, if there is such a column.
    fn labels_of(&self, object: &Value) -> Option<String> {
        self.labels.then(|| or(&pairs(object, "/metadata/labels"), "<none>").to_owned())
    }

    fn row(&mut self, object: &Value, out: &mut dyn Write) -> io::Result<()> {
        let namespace = self.namespaces.then(|| text(object, "/metadata/namespace").to_owned());
        let cells = rows::cells(self.kind, object, self.wide);
        let shown = cells.into_iter().zip(rows::columns(self.kind)).filter(|(_, column)| self.wide || !column.wide);
        let labels = self.labels_of(object);
        self.table.row(namespace.into_iter().chain(shown.map(|(cell, _)| cell)).chain(labels).collect(), out)
    }
}

/// A document as a whole.
pub fn whole(format: Format, document: &Value) -> Result<String, CliError> {
    if format == Format::Yaml {
        return yaml(document);
    }
    let text = serde_json::to_string_pretty(document).map_err(io::Error::from)?;
    Ok(format!("{text}\n"))
}
