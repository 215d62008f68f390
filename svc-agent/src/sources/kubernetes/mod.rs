//! The API server of Kubernetes as the source of objects (B79).
//!
//! Each kind is listed and watched by a task of its own. The last state that was known stays whatever happens to the
//! connection, and nothing is delivered before every kind was listed once.

pub mod answer;
pub mod backoff;
#[cfg(feature = "kubernetes")]
pub mod connect;
mod follow;
pub mod kinds;
mod memory;
mod read;
pub mod remembered;
pub mod servers;
mod state;
pub mod transport;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

pub use self::follow::Timing;
use self::follow::{Shared, follow};
use self::kinds::Watched;
use self::servers::Servers;
use self::state::State;
use self::transport::Transport;
use super::{Freshness, Snapshot};
use crate::model::Rules;

/// The shortest time between two deliveries. A change that comes alone is delivered at once; of a rollout, which changes
/// several objects, what comes soon after the first is delivered together.
const APART: Duration = Duration::from_millis(20);

/// Which Node objects are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// That of this node.
    Own,
    /// Every one: they change often in a large cluster.
    All,
}

/// Follows an API server. Its tasks end when it is dropped.
#[derive(Debug)]
pub struct KubernetesSource {
    watch: WatchedApi,
    pending: bool,
    /// When the state was delivered last.
    delivered: Option<Instant>,
    _tasks: JoinSet<()>,
}

/// What is known at present, for others than the one who waits for changes.
#[derive(Clone)]
pub struct WatchedApi(Arc<Shared>);

impl WatchedApi {
    /// How fresh each kind is.
    pub fn freshness(&self) -> Vec<Freshness> {
        self.0.state().freshness()
    }

    /// Sends a request to the server that is asked at present; the status of its answer.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn send(&self, request: transport::Request) -> Result<u16, String> {
        let server = self.0.servers.current();
        let answer = self.0.transport.send(&server, request).await;
        answer.map(|answer| answer.status).map_err(|error| format!("{error:#}"))
    }

    /// Where `default/kubernetes` leads to.
    pub fn endpoints(&self) -> Vec<SocketAddr> {
        self.0.state().api_endpoints()
    }

    /// Whether this node is going away.
    pub fn leaving(&self) -> bool {
        self.0.state().leaving()
    }
}

impl std::fmt::Debug for WatchedApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WatchedApi").field(&self.0.servers).finish()
    }
}

impl KubernetesSource {
    /// Begins to follow, on the runtime that this is called on. `node_name` is the Node that the agent runs on.
    pub fn start(
        node_name: &str,
        nodes: Nodes,
        rules: &Rules,
        servers: Servers,
        transport: Arc<dyn Transport>,
        timing: Timing,
    ) -> Self {
        let state = State::new(node_name, rules, timing.confirm);
        let node = (nodes == Nodes::Own).then(|| node_name.to_owned());
        let shared = Arc::new(Shared::new(state, servers, transport, node, timing));
        let mut tasks = JoinSet::new();
        for watched in Watched::ALL {
            tasks.spawn(follow(shared.clone(), watched));
        }
        Self { watch: WatchedApi(shared), pending: false, delivered: None, _tasks: tasks }
    }

    /// What is known, for others.
    pub fn watched(&self) -> WatchedApi {
        self.watch.clone()
    }

    /// Waits until every kind was listed once, at most this long.
    pub async fn first(&mut self, patience: Duration) {
        let whole = async {
            while !self.watch.0.state().complete() {
                self.watch.0.changed.notified().await;
            }
        };
        let _late = timeout(patience, whole).await;
        self.pending = true;
    }

    /// The whole state.
    pub fn load(&mut self) -> Snapshot {
        self.pending = false;
        self.delivered = Some(Instant::now());
        self.watch.0.state().snapshot()
    }

    /// Waits until something has changed; then [`Self::load`] tells what. May be dropped at any await.
    pub async fn changed(&mut self) {
        if !self.pending {
            self.watch.0.changed.notified().await;
            self.pending = true;
        }
        if let Some(delivered) = self.delivered {
            sleep_until(delivered + APART).await;
        }
    }
}
