//! The task behind the health checks: follows what is at work.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::time::sleep;
use tracing::{info, warn};

use super::published::Published;
use crate::announce::segment::peers;
use crate::health::{AGAIN, Condition, HealthPorts, Looks, Own, Reply};
use crate::sources::kubernetes::WatchedApi;

/// How the agent is, from what its tasks tell.
pub struct Agents {
    /// What the tasks tell.
    pub published: Arc<Published>,
    /// Knows whether the node is going away; where there is no API server, its Node object does, if there is one.
    pub api: Option<WatchedApi>,
    /// This node.
    pub node_name: String,
}

impl Looks for Agents {
    fn condition(&self) -> Condition {
        let leaving = match &self.api {
            Some(api) => api.leaving(),
            None => {
                let snapshot = self.published.snapshot.borrow();
                snapshot.objects.nodes.get(&self.node_name).is_some_and(|node| node.leaving())
            }
        };
        let done = self.published.progress.done();
        Condition {
            stale: self.published.progress.is_stale(Instant::now()),
            leaving,
            ready: done.is_some() && self.published.snapshot.borrow().complete,
            done,
        }
    }

    fn page(&self, path: &str) -> Option<Reply> {
        let offer = self.published.offer.look(|offer| match offer {
            Some(offer) if path == peers::PATH => serde_json::to_string(offer).ok(),
            _ => None,
        });
        offer.map(Reply::json)
    }
}

/// Keeps the servers.
pub struct HealthTask {
    /// Those of Services.
    pub ports: HealthPorts,
    /// Where the agent's own health is told, if anywhere.
    pub own: Option<SocketAddr>,
    /// How the agent is.
    pub looks: Arc<Agents>,
    /// Where it is told what does not listen.
    pub published: Arc<Published>,
}

impl HealthTask {
    /// Serves until it is dropped.
    pub async fn run(mut self) {
        let mut snapshots = self.published.snapshot.subscribe();
        snapshots.mark_changed();
        let mut own: Option<Own> = None;
        let mut trouble: Option<String> = None;
        loop {
            if let (None, Some(address)) = (&own, self.own) {
                match Own::start(address, self.looks.clone()) {
                    Ok(started) => {
                        info!(address = ?started.address(), "answering /healthz, /livez and /readyz");
                        (own, trouble) = (Some(started), None);
                    }
                    Err(error) => {
                        if trouble.as_ref() != Some(&error) {
                            warn!("{error}; trying again");
                        }
                        trouble = Some(error);
                    }
                }
            }
            let snapshot = snapshots.borrow_and_update().clone();
            let desired = self.published.sync.look(|sync| sync.desired.clone());
            let troubles = self.ports.follow(&snapshot, &desired);
            self.published.health.set(trouble.iter().cloned().chain(troubles).collect());
            drop((snapshot, desired));
            let again = async {
                match trouble {
                    Some(_) => sleep(AGAIN).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() { return },
                () = self.ports.changed() => {}
                () = again => {}
            }
        }
    }
}
