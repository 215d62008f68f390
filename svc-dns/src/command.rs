//! The command line, and the parts put together.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::{Arc, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Command;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{debug, info, warn};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, keys};
use crate::forward::Forwarder;
use crate::health::{self, Health};
use crate::server::{Listeners, Responder};
use crate::source::{Source, State};
use crate::zone::{Settings, Zone};

/// The command, for help.
pub fn command() -> Command {
    Command::new("svc-dns")
        .about("Answers for the names of Services, and forwards the rest; needs no privileges")
        .version(env!("CARGO_PKG_VERSION"))
        .args_override_self(true)
        .after_help("Every option is also an environment variable (--pod-names is SVC_DNS_POD_NAMES). Options win.")
        .args(keys::ALL.iter().map(keys::Key::argument))
}

/// Runs until SIGTERM or SIGINT.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            let _unwritable = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let run = || {
        let config = Config::from_matches(&matches)?;
        log_to_stderr(&config.log)?;
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(config))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error: anyhow::Error = error;
            let _unwritable = writeln!(io::stderr(), "svc-dns: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    for notice in &config.notices {
        warn!("{notice}");
    }
    let listeners = Listeners::bind(&config.listen)?;
    let zone = Arc::new(RwLock::new(Zone::new(settings(&config), serial())));
    let (state, watched) = watch::channel(State::Waiting(String::new()));
    let health = Health { zone: zone.clone(), state: watched.clone() };
    if let Some(address) = config.health {
        let listener = health::bind(address).await?;
        tokio::spawn(health::serve(listener, health.clone()));
    }
    let source = tokio::spawn(Source::new(config.socket.clone(), zone.clone(), state).run());
    let responder = Arc::new(Responder::new(zone, Forwarder::new(&config.upstreams, config.cache)));
    let (closing, closed) = watch::channel(false);
    let server = tokio::spawn(listeners.serve(responder, closed));
    let teller = tokio::spawn(tell_state(health, watched));
    info!(listen = ?config.listen, domain = %config.domain, upstreams = ?config.upstreams, "answering");
    // At once: whatever else starts may need names of elsewhere, and the agent may be one of those.
    tell(&[NotifyState::Ready]);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        ended = source => anyhow::bail!("the task that follows the agent ended: {ended:?}"),
    }
    tell(&[NotifyState::Stopping]);
    info!("ending");
    closing.send_replace(true);
    server.await.context("the server broke")?;
    teller.abort();
    Ok(())
}

/// Keeps the service manager's status line up to date.
async fn tell_state(health: Health, mut state: watch::Receiver<State>) {
    loop {
        let (_, text) = health.summary();
        tell(&[NotifyState::Status(&text)]);
        if state.changed().await.is_err() {
            return;
        }
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        domain: config.domain.clone(),
        ttl_s: config.ttl_s,
        servers: config.servers(),
        pod_names: config.pod_names,
    }
}

/// Higher after each restart, if the clock does not go back.
fn serial() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "cannot tell the service manager");
    }
}

fn log_to_stderr(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("--log: found `{filter}`, expected a level such as info, or a filter"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // Otherwise a log that nobody reads any more ends the server.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal())
        .init();
    Ok(())
}
