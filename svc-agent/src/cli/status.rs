//! `svcctl status`: the agent on one screen.

use std::io::{self, Write};

use super::CliError;
use super::args::{Format, Output};
use super::human::{harmless, number, seconds};
use super::printer::{Printer, yaml};
use super::table::Table;
use crate::client::Client;
use crate::control::api::{Announced, Device, MapUsage, Segment, SocketHooks, SourceStatus, Status, Sync};

/// Prints it.
pub async fn run(client: &Client, output: Output, out: &mut dyn Write) -> Result<(), CliError> {
    let status = client.get::<Status>("/v1/status", &()).await?;
    match output.output {
        Format::Json => {
            let text = serde_json::to_string_pretty(&status).map_err(io::Error::from)?;
            Ok(writeln!(out, "{text}")?)
        }
        Format::Yaml => Ok(out.write_all(yaml(&status)?.as_bytes())?),
        Format::Table | Format::Wide | Format::Name => show(&status, output, out),
    }
}

fn show(status: &Status, output: Output, out: &mut dyn Write) -> Result<(), CliError> {
    let zone = status.zone.as_ref().map_or_else(String::new, |zone| format!(" in the zone {zone}"));
    let mut facts = Table::new(["", ""], false);
    for (name, value) in [
        ("Agent:", format!("{}, pid {}, up {}", status.version, status.pid, seconds(status.uptime_seconds))),
        ("Node:", format!("{}{zone}", status.node_name)),
        ("Kernel:", status.kernel_release.clone()),
        ("Pins:", status.pin_dir.clone()),
        ("Sync:", sync(&status.sync)),
        ("Epoch:", status.epoch.to_string()),
        ("Sockets:", sockets(&status.sockets)),
    ] {
        facts.row(vec![name.into(), value], out)?;
    }
    if let Some(announced) = &status.announced {
        facts.row(vec!["Routes:".into(), self::announced(announced)], out)?;
    }
    if let Some(segment) = &status.segment {
        facts.row(vec!["Answers:".into(), self::segment(segment)], out)?;
    }
    facts.flush(out)?;
    if !status.sources.is_empty() {
        writeln!(out)?;
        let names = ["SOURCE", "OBJECTS", "STATE", "LAST EVENT", "LAST LIST", "SERVER", "ERROR"];
        let mut sources = Table::new(names, !output.no_headers);
        for source in &status.sources {
            sources.row(self::source(source).into(), out)?;
        }
        sources.flush(out)?;
    }

    if !status.devices.is_empty() {
        writeln!(out)?;
        let mut devices = Printer::new::<Device>(output, out);
        for device in &status.devices {
            devices.print(device)?;
        }
        devices.finish()?;
    }
    writeln!(out)?;
    let mut maps = Table::new(["MAP", "USED", "CAPACITY", "FULL"], !output.no_headers);
    for map in &status.maps {
        maps.row(
            vec![map.name.clone(), map.used.map(number).unwrap_or_default(), number(map.capacity), full(map)],
            out,
        )?;
    }
    maps.flush(out)?;
    let happened: Vec<_> = status.counters.iter().filter(|counter| counter.count > 0).collect();
    if !happened.is_empty() {
        writeln!(out)?;
        let mut counters = Table::new(["COUNTER", "PACKETS"], !output.no_headers);
        for counter in happened {
            counters.row(vec![counter.reason.clone(), number(counter.count)], out)?;
        }
        counters.flush(out)?;
    }
    let refused = status.sync.refused.iter().map(|it| format!("{}/{}: {}", it.namespace, it.name, it.reason));
    section("Refused Services", refused.collect(), out)?;
    section("Problems", status.sync.problems.clone(), out)?;
    section("Notices", status.sync.notices.clone(), out)?;
    section("On this kernel", status.kernel_notes.clone(), out)?;
    Ok(())
}

/// One line about whether what was asked for is in the maps.
fn sync(sync: &Sync) -> String {
    let mut parts = Vec::new();
    match (&sync.last_error, sync.pending) {
        (Some(error), _) => parts.push(format!("FAILED: {error}")),
        (None, 0) if sync.last_success_seconds_ago.is_some() => parts.push("up to date".into()),
        (None, _) => parts.push("in progress".into()),
    }
    match sync.last_success_seconds_ago {
        Some(ago) => parts.push(format!("last success {} ago", seconds(ago))),
        None => parts.push("no success yet".into()),
    }
    if sync.pending > 0 {
        parts.push(plural(sync.pending, "Service pending", "Services pending"));
    }
    if !sync.complete {
        parts.push("a source is incomplete, so nothing is removed".into());
    }
    if !sync.refused.is_empty() {
        parts.push(format!("{} refused", sync.refused.len()));
    }
    if !sync.problems.is_empty() {
        parts.push(plural(sync.problems.len() as u64, "problem", "problems"));
    }
    parts.join(", ")
}

/// What comes over a connection.
fn source(source: &SourceStatus) -> [String; 7] {
    let ago = |ago: Option<u64>| ago.map(|ago| format!("{} ago", seconds(ago))).unwrap_or_default();
    [
        source.kind.clone(),
        number(source.objects),
        if source.connected { "connected" } else { "LOST" }.to_owned(),
        ago(source.last_event_seconds_ago),
        ago(source.last_list_seconds_ago),
        harmless(&source.server),
        source.last_error.as_deref().map(harmless).unwrap_or_default(),
    ]
}

/// One line about the routes for a routing daemon.
fn announced(announced: &Announced) -> String {
    let mut parts =
        vec![format!("{} in table {}", plural(announced.addresses, "address", "addresses"), announced.table)];
    if announced.leaving {
        parts.push("the node is leaving".into());
    }
    parts.extend(Some(harmless(&announced.reason)).filter(|reason| !reason.is_empty()));
    parts.join("; ")
}

/// One line about the addresses that are answered for.
fn segment(segment: &Segment) -> String {
    let devices = if segment.devices.is_empty() { "no device".to_owned() } else { segment.devices.join(", ") };
    let possible = plural(segment.possible, "address", "addresses");
    let mut parts = vec![format!("for {} of {possible} on {}", segment.held.len(), harmless(&devices))];
    if segment.leaving {
        parts.push("the node is leaving".into());
    }
    let silent = segment.peers.iter().filter(|peer| peer.addresses.is_none());
    parts.extend(silent.map(|peer| format!("{} does not tell: {}", harmless(&peer.name), harmless(&peer.reason))));
    parts.extend(Some(harmless(&segment.reason)).filter(|reason| !reason.is_empty()));
    parts.join("; ")
}

/// One line about the socket hooks.
fn sockets(sockets: &SocketHooks) -> String {
    let mut parts = vec![sockets.scope.clone()];
    if !sockets.attached.is_empty() {
        parts.push(format!("{} on {}", plural(sockets.attached.len() as u64, "hook", "hooks"), sockets.cgroup));
    }
    if sockets.skipped_namespaces > 0 {
        parts.push(format!("{} left alone", plural(sockets.skipped_namespaces, "namespace", "namespaces")));
    }
    parts.extend(Some(harmless(&sockets.reason)).filter(|reason| !reason.is_empty()));
    parts.join(", ")
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn full(map: &MapUsage) -> String {
    let percent = map.used.and_then(|used| used.saturating_mul(100).checked_div(map.capacity));
    percent.map(|percent| format!("{percent}%")).unwrap_or_default()
}

fn section(title: &str, lines: Vec<String>, out: &mut dyn Write) -> io::Result<()> {
    if !lines.is_empty() {
        writeln!(out, "\n{title}:")?;
    }
    for line in lines {
        writeln!(out, "  {}", harmless(&line))?;
    }
    Ok(())
}
