//! Follows the agent, for as long as it takes: what it told last stays in use while it is away. Only this task changes the
//! zone.

mod client;
pub mod lines;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use self::client::Lines;
use self::lines::{Key, Line};
use crate::zone::Zone;

/// The agent says something every 5 s; one that does not is as good as gone.
const SILENCE: Duration = Duration::from_secs(20);
/// The shortest and the longest pause before the agent is looked for again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Whether the agent is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has never been there.
    Waiting(String),
    /// It tells what changes.
    Following,
    /// It has gone; what it told last is in use.
    Lost {
        /// Since then.
        since: Instant,
        /// How that shows.
        why: String,
    },
}

/// Fills a zone with what the agent tells.
#[derive(Debug)]
pub struct Source {
    socket: PathBuf,
    zone: Arc<RwLock<Zone>>,
    state: watch::Sender<State>,
}

impl Source {
    /// Follows the agent at this socket; tells `state` how that goes.
    pub fn new(socket: PathBuf, zone: Arc<RwLock<Zone>>, state: watch::Sender<State>) -> Self {
        Self { socket, zone, state }
    }

    /// Follows until it is dropped.
    pub async fn run(self) {
        let mut pause = AGAIN.0;
        loop {
            let Err(error) = self.follow().await;
            if matches!(*self.state.borrow(), State::Following) {
                pause = AGAIN.0;
            }
            self.lost(&format!("{error:#}"));
            sleep(pause).await;
            pause = (pause * 2).min(AGAIN.1);
        }
    }

    /// Follows one connection to its end.
    async fn follow(&self) -> anyhow::Result<std::convert::Infallible> {
        let mut lines = timeout(SILENCE, Lines::open(&self.socket)).await??;
        let mut state = Vec::new();
        let complete = loop {
            match self.next(&mut lines).await? {
                Line::Synced(synced) => break synced.complete,
                line => state.push(line),
            }
        };
        let mut doubtful = self.begin(state, complete);
        loop {
            let line = self.next(&mut lines).await?;
            let mut zone = self.lock();
            match line {
                Line::Service(service) => {
                    doubtful.remove(&service.key);
                    zone.insert(service);
                }
                Line::Removed(key) => zone.remove(&key),
                Line::Synced(synced) if synced.complete => {
                    std::mem::take(&mut doubtful).iter().for_each(|key| zone.remove(key));
                    zone.set_loaded();
                }
                Line::Synced(_) => {}
            }
        }
    }

    async fn next(&self, lines: &mut Lines) -> anyhow::Result<Line> {
        let line = timeout(SILENCE, lines.next()).await;
        line.map_err(|_| anyhow::anyhow!("the agent is silent for {} s", SILENCE.as_secs()))?
    }

    /// Takes over a whole state; tells which Services are from before. One that may lack something only adds to what is
    /// known.
    fn begin(&self, state: Vec<Line>, complete: bool) -> BTreeSet<Key> {
        let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = if complete { zone.emptied() } else { zone.clone() };
        drop(zone);
        let mut doubtful: BTreeSet<Key> = fresh.keys().collect();
        for line in state {
            match line {
                Line::Service(service) => {
                    doubtful.remove(&service.key);
                    fresh.insert(service);
                }
                Line::Removed(key) => fresh.remove(&key),
                Line::Synced(_) => {}
            }
        }
        if complete {
            fresh.set_loaded();
        }
        let services = fresh.len();
        *self.lock() = fresh;
        info!(services, complete, socket = %self.socket.display(), "following the agent");
        self.state.send_replace(State::Following);
        doubtful
    }

    fn lost(&self, why: &str) {
        let loaded = self.lock().is_loaded();
        self.state.send_if_modified(|state| {
            let new = match state {
                State::Following if loaded => {
                    warn!(socket = %self.socket.display(), "the agent is away: {why}; answering from what it told last");
                    State::Lost { since: Instant::now(), why: why.to_owned() }
                }
                State::Lost { since, .. } => State::Lost { since: *since, why: why.to_owned() },
                State::Waiting(before) if before == why => return false,
                State::Waiting(_) | State::Following => {
                    warn!(socket = %self.socket.display(), "waiting for the agent: {why}");
                    State::Waiting(why.to_owned())
                }
            };
            *state = new;
            true
        });
    }

    fn lock(&self) -> RwLockWriteGuard<'_, Zone> {
        self.zone.write().unwrap_or_else(PoisonError::into_inner)
    }
}
