//! Keeps a route for each address that this node should attract traffic for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::published::Published;
use crate::announce::{Attractive, Routes};
use crate::control::api::Announced;
use crate::sources::Snapshot;

/// How often the table is looked at without having been told to: somebody may have emptied it.
const LOOK: Duration = Duration::from_secs(10);

/// What the task works with.
pub struct Announcer {
    table: u32,
    /// Connected when first needed, and again after an error.
    routes: Option<Routes>,
    attractive: Attractive,
    node_name: String,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    published: Arc<Published>,
}

impl Announcer {
    /// Touches nothing yet.
    pub fn new(table: u32, node_name: &str, published: Arc<Published>) -> Self {
        let snapshot = published.snapshot.subscribe();
        let (routes, attractive) = (None, Attractive::default());
        Self { table, routes, attractive, node_name: node_name.to_owned(), snapshot, published }
    }

    /// Follows until it is dropped.
    pub async fn run(mut self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = self.snapshot.changed() => if changed.is_err() {
                    // The other end is gone with the agent.
                    return;
                },
                _ = look.tick() => {}
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let attractive = &mut self.attractive;
        let (mut wanted, complete) =
            self.published.sync.look(|sync| (attractive.update(&sync.desired), sync.desired.complete));
        let leaving = self.is_leaving();
        if leaving {
            wanted = BTreeSet::new();
        }
        let reason = match self.set(&wanted, complete).await {
            Ok((0, 0)) => String::new(),
            Ok((added, removed)) => {
                info!(table = self.table, added, removed, routes = wanted.len(), "routes to announce");
                String::new()
            }
            Err(error) => {
                self.routes = None;
                format!("{error:#}; trying again")
            }
        };
        let announced = Announced { table: self.table, addresses: wanted.len() as u64, leaving, reason };
        let before = self.published.announced.get();
        if !announced.reason.is_empty() && before.as_ref().is_none_or(|before| before.reason != announced.reason) {
            warn!("{}", announced.reason);
        }
        self.published.announced.set(Some(announced));
    }

    async fn set(&mut self, wanted: &BTreeSet<std::net::IpAddr>, complete: bool) -> anyhow::Result<(usize, usize)> {
        let routes = match self.routes.take() {
            Some(routes) => routes,
            None => Routes::connect(self.table)?,
        };
        self.routes.insert(routes).set(wanted, complete).await
    }

    /// Whether the node's own object says that balancers should send it nothing new.
    fn is_leaving(&self) -> bool {
        let snapshot = self.snapshot.borrow();
        snapshot.objects.nodes.get(&self.node_name).is_some_and(|node| node.leaving() || node.excluded())
    }
}
