//! `svcctl get`.

use std::io::Write;

use clap::CommandFactory;
use clap::error::ErrorKind;
use serde::de::DeserializeOwned;

use super::CliError;
use super::args::{Args, Flows, Format, Get, Resource};
use super::counters;
use super::human::harmless;
use super::objects;
use super::printer::{Printer, Show};
use crate::client::Client;
use crate::control::api::{Backend, Device, Flow, FlowFilter, List, ObjectFilter, Service, ServiceEndpoints};
use crate::model::ObjectKind;

/// Prints the list that was asked for.
pub async fn run(client: &Client, get: &Get, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), CliError> {
    let get = &named(get)?;
    if get.what.resource != Resource::Flows && get.flows != Flows::default() {
        let text = "--client, --vip, --backend and --protocol are for `svcctl get flows` only\n";
        return Err(Args::command().error(ErrorKind::ArgumentConflict, text).into());
    }
    if get.all && get.what.resource != Resource::Counters {
        return Err(Args::command()
            .error(ErrorKind::ArgumentConflict, "--all is for `svcctl get counters` only\n")
            .into());
    }
    let kind = get.what.resource.kind();
    let for_objects = get.watch || get.selector.is_some() || get.show_labels || get.output.output == Format::Name;
    if kind.is_none() && for_objects {
        let text = "--watch, --selector, --show-labels and -o name are for objects only: services, endpointslices, pods, nodes\n";
        return Err(Args::command().error(ErrorKind::ArgumentConflict, text).into());
    }
    if let Some(kind) = kind {
        let count = match (kind, get.output.output) {
            (ObjectKind::Endpoints, Format::Table | Format::Wide) if !get.watch => {
                objects::endpoints(client, get, out).await?
            }
            _ => objects::run(client, get, kind, out).await?,
        };
        return if count > 0 || get.limit == Some(0) { Ok(()) } else { no_objects(get, kind, err) };
    }
    let count = match get.what.resource {
        Resource::Frontends => frontends(client, get, out, err).await?,
        Resource::Targets => print(get, &list::<ServiceEndpoints>(client, "/v1/endpoints", get).await?, out)?,
        Resource::Backends => print(get, &list::<Backend>(client, "/v1/backends", get).await?, out)?,
        Resource::Flows => flows(client, get, out).await?,
        Resource::Devices => devices(client, get, out).await?,
        Resource::Counters => counters::run(client, get, out).await?,
        Resource::Services | Resource::EndpointSlices | Resource::Endpoints | Resource::Pods | Resource::Nodes => 0,
    };
    if count > 0 || get.limit == Some(0) {
        return Ok(());
    }
    // A Service without connections or backends is nothing wrong; one that does not exist is.
    let named = !matches!(get.what.resource, Resource::Flows | Resource::Backends);
    match &get.name {
        Some(name) if named => {
            Err(CliError::NotFound(format!("{} `{name}` not found{}", noun(get.what.resource), in_namespace(get))))
        }
        _ if matches!(get.output.output, Format::Table | Format::Wide) => {
            // As kubectl does; nothing depends on it.
            drop(writeln!(err, "No {} found{}.", plural(get.what.resource), in_namespace(get)));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The same with the name where it belongs, whichever way it was given.
fn named(get: &Get) -> Result<Get, CliError> {
    let mut get = get.clone();
    match (get.what.name.take(), &get.name) {
        (Some(_), Some(other)) => {
            let text =
                format!("found a name twice, the second is `{other}`: expected RESOURCE/NAME or RESOURCE NAME\n");
            return Err(Args::command().error(ErrorKind::ArgumentConflict, text).into());
        }
        (Some(name), None) => get.name = Some(name),
        (None, _) => {}
    }
    Ok(get)
}

/// Nothing was shown.
fn no_objects(get: &Get, kind: ObjectKind, err: &mut dyn Write) -> Result<(), CliError> {
    let namespace = objects::namespace(get).filter(|_| kind.is_namespaced());
    let place = namespace.map(|namespace| format!(" in the namespace `{namespace}`")).unwrap_or_default();
    match &get.name {
        Some(name) if name.contains('/') => Err(CliError::NotFound(format!("{kind} `{name}` not found"))),
        Some(name) => Err(CliError::NotFound(format!("{kind} `{name}` not found{place}"))),
        None if matches!(get.output.output, Format::Table | Format::Wide) => {
            let hint = if place.is_empty() { "" } else { "; -A shows every namespace" };
            drop(writeln!(err, "No {} found{place}{hint}.", plural(get.what.resource)));
            Ok(())
        }
        None => Ok(()),
    }
}

async fn frontends(client: &Client, get: &Get, out: &mut dyn Write, err: &mut dyn Write) -> Result<usize, CliError> {
    let services = list::<Service>(client, "/v1/services", get).await?;
    let count = print(get, &services, out)?;
    if matches!(get.output.output, Format::Table | Format::Wide) {
        out.flush()?;
        for service in &services {
            if let Some(reason) = &service.refused {
                let text = format!("{}/{} is refused: {reason}", service.namespace, service.name);
                drop(writeln!(err, "warning: {}", harmless(&text)));
            }
        }
    }
    Ok(count)
}

async fn flows(client: &Client, get: &Get, out: &mut dyn Write) -> Result<usize, CliError> {
    let ObjectFilter { namespace, service, limit } = object_filter(get);
    let Flows { client: from, vip, backend, protocol } = get.flows.clone();
    let filter = FlowFilter { namespace, service, client: from, vip, backend, protocol, limit };
    let mut lines = client.lines::<Flow>("/v1/flows", &filter).await?;
    let mut printer = Printer::new::<Flow>(get.output, out);
    let ended = loop {
        match lines.next().await {
            Ok(Some(flow)) => printer.print(&flow)?,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // What came before a failure is shown too.
    let count = printer.finish()?;
    ended?;
    Ok(count)
}

async fn devices(client: &Client, get: &Get, out: &mut dyn Write) -> Result<usize, CliError> {
    let mut devices = client.get::<List<Device>>("/v1/devices", &()).await?.items;
    if let Some(name) = &get.name {
        devices.retain(|device| device.name == *name);
    }
    devices.truncate(get.limit.unwrap_or(usize::MAX));
    print(get, &devices, out)
}

async fn list<T: DeserializeOwned>(client: &Client, path: &str, get: &Get) -> Result<Vec<T>, CliError> {
    Ok(client.get::<List<T>>(path, &object_filter(get)).await?.items)
}

fn print<T: Show>(get: &Get, items: &[T], out: &mut dyn Write) -> Result<usize, CliError> {
    let mut printer = Printer::new::<T>(get.output, out);
    for item in items {
        printer.print(item)?;
    }
    printer.finish()
}

/// `NAMESPACE/NAME` names both.
fn object_filter(get: &Get) -> ObjectFilter {
    let (namespace, service) = match get.name.as_deref().map(|name| name.split_once('/').ok_or(name)) {
        Some(Ok((namespace, name))) => (Some(namespace.to_owned()), Some(name.to_owned())),
        Some(Err(name)) => (get.namespace.clone(), Some(name.to_owned())),
        None => (get.namespace.clone(), None),
    };
    ObjectFilter { namespace, service, limit: get.limit }
}

impl Resource {
    /// The kind of object that it is; `None` for what the node makes of objects.
    fn kind(self) -> Option<ObjectKind> {
        match self {
            Self::Services => Some(ObjectKind::Service),
            Self::EndpointSlices => Some(ObjectKind::EndpointSlice),
            Self::Pods => Some(ObjectKind::Pod),
            Self::Nodes => Some(ObjectKind::Node),
            Self::Endpoints => Some(ObjectKind::Endpoints),
            Self::Frontends | Self::Targets | Self::Backends | Self::Flows | Self::Devices | Self::Counters => None,
        }
    }
}

fn in_namespace(get: &Get) -> String {
    get.namespace.as_ref().map_or_else(String::new, |namespace| format!(" in the namespace `{namespace}`"))
}

fn noun(resource: Resource) -> &'static str {
    match resource {
        Resource::Devices => "device",
        Resource::Counters => "counter",
        Resource::Services
        | Resource::EndpointSlices
        | Resource::Pods
        | Resource::Nodes
        | Resource::Frontends
        | Resource::Endpoints
        | Resource::Targets
        | Resource::Backends
        | Resource::Flows => "Service",
    }
}

fn plural(resource: Resource) -> &'static str {
    match resource {
        Resource::Services => "Services",
        Resource::EndpointSlices => "EndpointSlices",
        Resource::Pods => "Pods",
        Resource::Nodes => "Nodes",
        Resource::Frontends => "Services",
        Resource::Endpoints => "endpoints",
        Resource::Targets => "endpoints",
        Resource::Counters => "counters",
        Resource::Backends => "backends",
        Resource::Flows => "flows",
        Resource::Devices => "devices",
    }
}
