//! `svcctl events`: one line for each, until the agent ends or the reader goes away.

use std::io::{self, Write};

use super::CliError;
use super::args::{Events, Format};
use super::human::harmless;
use crate::client::Client;
use crate::control::api::{Event, EventFilter, EventKind};

/// Prints them as they come.
pub async fn run(client: &Client, events: &Events, out: &mut dyn Write) -> Result<(), CliError> {
    let filter = EventFilter { drops: events.drops, flows: events.flows, sample: events.sample };
    let mut lines = client.lines::<Event>("/v1/events", &filter).await?;
    let mut left = events.limit.unwrap_or(usize::MAX);
    while left > 0
        && let Some(event) = lines.next().await?
    {
        match events.output.output {
            Format::Json | Format::Yaml => {
                // A YAML stream of one-line documents is JSON, too.
                let line = serde_json::to_string(&event).map_err(io::Error::from)?;
                writeln!(out, "{line}")?;
            }
            Format::Table | Format::Wide | Format::Name => writeln!(out, "{}", harmless(&line(&event)))?,
        }
        out.flush()?;
        left -= 1;
    }
    Ok(())
}

/// `12:34:56.789 drop no_endpoint tc-ingress eth0 TCP 192.0.2.1:40000 -> 10.96.0.1:80 default/web`
fn line(event: &Event) -> String {
    let kind = match event.kind {
        EventKind::Drop => "drop",
        EventKind::Begin => "begin",
        EventKind::End => "end",
    };
    let mut words = vec![time(event.time_unix_ms), kind.into()];
    words.extend([&event.reason, &event.hook, &event.device].into_iter().flatten().cloned());
    words.push(format!("{} {} -> {}", event.protocol, event.source, event.destination));
    words.extend(event.backend.map(|backend| format!("-> {backend}")));
    words.extend(event.snat.map(|snat| format!("as {snat}")));
    words.extend(event.service.as_ref().map(|service| format!("{}/{}", service.namespace, service.name)));
    words.extend(event.length_bytes.map(|bytes| format!("{bytes} bytes")));
    words.join(" ")
}

/// The time of day, UTC.
fn time(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}
