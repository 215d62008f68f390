//! What the tasks of the agent tell about themselves, for the control socket to read.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::announce::segment::peers::Offer;
use crate::control::api::{Announced, Device, Segment, SocketHooks};
use crate::expire::Swept;
use crate::health::Progress;
use crate::metrics::Timings;
use crate::reconcile::Report;
use crate::resolve::Desired;
use crate::sources::Snapshot;

/// A value that one task replaces and others look at.
#[derive(Debug, Default)]
pub struct Shared<T>(RwLock<T>);

impl<T: Clone> Shared<T> {
    /// A copy of the value.
    pub fn get(&self) -> T {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the value in place; whoever wants to replace it waits.
    pub fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the value.
    pub fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

/// How far the maps follow the sources.
#[derive(Clone, Debug, Default)]
pub struct SyncState {
    /// What is wanted.
    pub desired: Desired,
    /// What the last pass did.
    pub report: Report,
    /// When everything that was wanted was in the maps.
    pub last_success: Option<Instant>,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Published {
    /// The objects that the maps were brought in line with last.
    pub snapshot: watch::Sender<Arc<Snapshot>>,
    /// How the sync loop gets on.
    pub progress: Progress,
    /// Health checks that nobody answers, and why, one line each.
    pub health: Shared<Vec<String>>,
    /// The node's zone, if known.
    pub zone: Shared<Option<String>>,
    /// Services.
    pub sync: Shared<SyncState>,
    /// Devices, by ifindex.
    pub devices: Shared<Vec<Device>>,
    /// Faults of devices and of the host, one line each.
    pub warnings: Shared<Vec<String>>,
    /// The socket hooks.
    pub sockets: Shared<SocketHooks>,
    /// The routes for a routing daemon; `None` if there shall be none.
    pub announced: Shared<Option<Announced>>,
    /// The addresses that are answered for; `None` if there shall be none.
    pub segment: Shared<Option<Segment>>,
    /// What the agents of other nodes are told of that.
    pub offer: Shared<Option<Offer>>,
    /// Why nobody can ask for metrics, if so.
    pub metrics: Shared<Option<String>>,
    /// How long things take.
    pub timings: Timings,
    /// Told when a pass has written to the maps of services.
    pub written: Notify,
    /// Flow tables.
    pub swept: Shared<Option<Swept>>,
}
