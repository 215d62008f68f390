//! What the agent writes to the API server: Events about refused Services, and addresses of load balancers.
//!
//! All of it is beside the way of changes to the maps: it may be late, and it may fail. Every node does the same, without a
//! leader: names of Events and addresses follow from the objects, so whoever comes first has done it for all.

mod addresses;
mod events;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use self::addresses::Assignment;
use self::events::Notice;
use crate::controllers::pool::Pool;
use crate::model::ServiceName;
use crate::resolve::Problem;
use crate::sources::Snapshot;
use crate::sources::kubernetes::WatchedApi;
use crate::sources::kubernetes::backoff::jitter;
use crate::sources::kubernetes::transport::{Method, Request};

/// How long to gather changes, at most: chance spreads nodes over it, so that most find the work done.
const SPREAD: Duration = Duration::from_secs(4);
/// How long the same Event is not repeated.
const REPEAT: Duration = Duration::from_secs(3600);
/// Events within a minute.
const EVENTS_A_MINUTE: usize = 20;
/// Requests of one round; the next one goes on.
const REQUESTS: usize = 50;
/// A request as a whole.
const PATIENCE: Duration = Duration::from_secs(10);

/// Writes to the API server until it is dropped.
pub struct Reporter {
    /// The API server.
    pub api: WatchedApi,
    /// This node.
    pub node_name: String,
    /// Where load balancers' addresses come from; empty if they are somebody else's.
    pub pools: Vec<Pool>,
    /// What is at work.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What is wrong or refused, and about which Service.
    pub problems: Box<dyn Fn() -> Vec<Problem> + Send + Sync>,
}

impl Reporter {
    /// Follows what is at work.
    pub async fn run(mut self) {
        let mut told: BTreeMap<(ServiceName, String), Instant> = BTreeMap::new();
        let mut unfinished = false;
        loop {
            let changed = if unfinished {
                timeout(SPREAD, self.snapshots.changed()).await.unwrap_or(Ok(()))
            } else {
                self.snapshots.changed().await
            };
            if changed.is_err() {
                return;
            }
            sleep(jitter(SPREAD)).await;
            let snapshot = self.snapshots.borrow_and_update().clone();
            // Whoever does not know everything does not know what is free.
            if !snapshot.complete {
                continue;
            }
            unfinished = self.assign(&snapshot).await;
            unfinished |= self.tell(&snapshot, &mut told).await;
        }
    }

    /// Gives addresses to load balancers; whether something is left to do.
    async fn assign(&self, snapshot: &Snapshot) -> bool {
        let assignments = addresses::assign(snapshot, &self.pools);
        let left = assignments.len() > REQUESTS;
        for assignment in assignments.into_iter().take(REQUESTS) {
            let Assignment { service, addresses, .. } = &assignment;
            match self.send(assignment.request()).await {
                Ok(200 | 201) => info!(%service, ?addresses, "gave the load balancer its addresses"),
                // Somebody was faster; what became of it is told by the watch.
                Ok(404 | 409) => debug!(%service, "the Service is not as it was"),
                Ok(status) => warn!(%service, status, "the API server refused the load balancer's addresses"),
                Err(error) => {
                    debug!(error, "cannot write to the API server");
                    return true;
                }
            }
        }
        left
    }

    /// Tells of what is refused; whether something is left to do.
    async fn tell(&self, snapshot: &Snapshot, told: &mut BTreeMap<(ServiceName, String), Instant>) -> bool {
        let now = Instant::now();
        told.retain(|_, at| now.duration_since(*at) < REPEAT);
        for notice in events::notices(snapshot, &(self.problems)()) {
            let key = (notice.service.clone(), notice.note.clone());
            if told.contains_key(&key) {
                continue;
            }
            let recent = told.values().filter(|at| now.duration_since(**at) < Duration::from_secs(60)).count();
            if recent >= EVENTS_A_MINUTE {
                return true;
            }
            match self.send(self.event(&notice)).await {
                // That it exists means that another node was faster.
                Ok(200 | 201 | 409) => {}
                Ok(status) => debug!(service = %notice.service, status, "the API server takes no Event"),
                Err(error) => {
                    debug!(error, "cannot write to the API server");
                    return true;
                }
            }
            told.insert(key, now);
        }
        false
    }

    fn event(&self, notice: &Notice) -> Request {
        // By way of the clock of std: without kube, jiff has none.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = Timestamp::from_microsecond(now.as_micros() as i64).unwrap_or_default();
        Request {
            method: Method::Post,
            path: events::path(&notice.service.namespace),
            body: Some(("application/json", notice.event(&self.node_name, time).to_string().into_bytes())),
        }
    }

    async fn send(&self, request: Request) -> Result<u16, String> {
        match timeout(PATIENCE, self.api.send(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }
}
