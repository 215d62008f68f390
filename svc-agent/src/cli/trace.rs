//! `svcctl trace`: what the loaded programs would do with a packet, step by step.

use std::io::Write;

use super::CliError;
use super::args::{Format, Trace as Args};
use super::printer::yaml;
use super::table::Table;
use crate::client::Client;
use crate::control::api::{ServiceRef, Trace, TraceRequest};

/// Asks and prints.
pub async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    let request = TraceRequest {
        protocol: args.protocol,
        source: args.source,
        destination: args.destination,
        device: args.device.clone(),
    };
    let trace = client.post::<Trace>("/v1/trace", &request).await?;
    match args.output {
        Format::Json => {
            let text = serde_json::to_string_pretty(&trace).map_err(std::io::Error::from)?;
            writeln!(out, "{text}")?;
        }
        Format::Yaml => out.write_all(yaml(&trace)?.as_bytes())?,
        Format::Table | Format::Wide | Format::Name => show(&trace, out)?,
    }
    Ok(())
}

fn show(trace: &Trace, out: &mut dyn Write) -> std::io::Result<()> {
    let mut rows = Table::new(["STEP", ""], false);
    let Trace { protocol, source, destination, device, class, packet, .. } = trace;
    let mut row = |step: &str, text: String| rows.row(vec![step.to_owned(), text], out);
    row("packet", format!("{protocol} {source} -> {destination}, {packet}, comes in through {device} ({class})"))?;
    row(
        "flow",
        match &trace.flow {
            Some(state) => format!("belongs to one that is {state}"),
            None => "none: a new connection".into(),
        },
    )?;
    match &trace.frontend {
        Some(frontend) => {
            let service = frontend.service.as_ref().map_or_else(|| "a Service that is gone".into(), of_service);
            row("frontend", format!("{} of {service}", frontend.kind))?;
            let side = if frontend.external { "from outside" } else { "from a pod" };
            let set = if frontend.local_set { "endpoints on this node only" } else { "all endpoints" };
            let affinity = frontend.affinity_seconds.map_or_else(String::new, |s| format!(", client affinity {s} s"));
            let (selection, backends) = (frontend.selection, frontend.backends);
            row("policy", format!("{side}: {set}{affinity}; selection {selection} with {backends} backends"))?;
        }
        None => row("frontend", "none at this address and port".into())?,
    }
    if let Some(backend) = &trace.backend {
        let place = if backend.local { "on this node" } else { "elsewhere" };
        row("backend", format!("{} (id {}), {}, {place}", backend.address, backend.id, backend.state))?;
    }
    if let Some(translation) = &trace.translation {
        row("rewrite", format!("{} -> {}", translation.source, translation.destination))?;
    }
    if let Some(hop) = &trace.next_hop {
        let device = hop.device.clone().unwrap_or_else(|| hop.ifindex.to_string());
        let neighbour = hop.mac.clone().unwrap_or_else(|| "a neighbour that the kernel has to find".into());
        row("next hop", format!("{neighbour} by {device}"))?;
    }
    for hook in &trace.hooks {
        row("program", format!("{}: {}", hook.hook, hook.verdict))?;
    }
    if !trace.counted.is_empty() {
        row("counted", trace.counted.join(", "))?;
    }
    row("verdict", trace.verdict.clone())?;
    rows.flush(out)
}

fn of_service(service: &ServiceRef) -> String {
    let ServiceRef { namespace, name, port_name, port } = service;
    let named = if port_name.is_empty() { String::new() } else { format!(" ({port_name})") };
    format!("{namespace}/{name} port {port}{named}")
}
