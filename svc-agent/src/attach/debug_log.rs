//! What the kernel programs of a debugging build (`cargo xtask build --debug-log`) say, as lines of the agent's log with the
//! target `svc_ebpf`.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};
use svc_common::maps::{event_hook, event_kind};
use svc_common::reason::Reason;
use tokio::time::interval;
use tracing::{debug, info, warn};

/// The map that such a build has, and no other.
pub const MAP: &str = "AYA_LOGS";
/// How often the buffer is read. It is large enough for some hundred lines.
const LOOK: Duration = Duration::from_millis(50);

/// Reads the lines of programs of a debugging build.
pub struct DebugLog(EbpfLogger<Lines>);

impl DebugLog {
    /// Nothing for the programs of an ordinary build.
    ///
    /// # Errors
    /// If the buffer cannot be mapped.
    pub fn of(ebpf: &mut Ebpf) -> anyhow::Result<Option<Self>> {
        if ebpf.map(MAP).is_none() {
            return Ok(None);
        }
        let logger = EbpfLogger::init_with_logger(ebpf, Lines).with_context(|| format!("cannot map `{MAP}`"))?;
        warn!("the kernel programs are a debugging build: they log connections and drops, which costs time");
        Ok(Some(Self(logger)))
    }

    /// Reads until it is dropped.
    pub async fn run(mut self) {
        let mut look = interval(LOOK);
        loop {
            look.tick().await;
            self.0.flush();
        }
    }
}

impl fmt::Debug for DebugLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DebugLog").finish_non_exhaustive()
    }
}

/// Hands lines to the agent's log.
struct Lines;

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = named(&record.args().to_string());
        match record.level() {
            Level::Error | Level::Warn | Level::Info => info!(target: "svc_ebpf", "{line}"),
            Level::Debug | Level::Trace => debug!(target: "svc_ebpf", "{line}"),
        }
    }

    fn flush(&self) {}
}

/// The line with names in place of numbers; the programs have none.
fn named(line: &str) -> String {
    let words: Vec<_> = line.split(' ').map(|word| name(word).unwrap_or_else(|| word.to_owned())).collect();
    words.join(" ")
}

fn name(word: &str) -> Option<String> {
    let (key, number) = word.split_once('=')?;
    let number = number.parse::<u8>().ok()?;
    let name = match (key, number) {
        ("reason", number) => Reason::try_from(number).ok()?.code(),
        ("hook", event_hook::XDP) => "xdp",
        ("hook", event_hook::INGRESS) => "ingress",
        ("hook", event_hook::EGRESS) => "egress",
        ("kind", event_kind::BEGIN) => "begin",
        ("kind", event_kind::END) => "end",
        _ => return None,
    };
    Some(format!("{key}={name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_get_their_names() {
        assert_eq!(named("drop hook=1 len=60 reason=7"), "drop hook=ingress len=60 reason=no_endpoint");
        assert_eq!(named("count reason=255 reason=x kind=9"), "count reason=255 reason=x kind=9");
    }
}
