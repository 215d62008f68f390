//! The controllers with the file that keeps their memory, and with the health checks of endpoints.

use std::path::Path;

use super::file::StateFile;
use super::health::Health;
use super::{Controllers, Settings};
use crate::probe::Prober;
use crate::sources::Snapshot;

/// Completes the objects of local sources, and remembers across restarts what it gave away.
#[derive(Debug)]
pub struct LocalControllers {
    controllers: Controllers,
    file: StateFile,
    health: Health,
    prober: Prober,
}

impl LocalControllers {
    /// Reads what is remembered in the state directory.
    pub fn open(settings: Settings, state_dir: &Path) -> Self {
        let (file, memory) = StateFile::open(state_dir);
        let controllers = Controllers::new(settings, memory);
        Self { controllers, file, health: Health::default(), prober: Prober::default() }
    }

    /// As [`Controllers::complete`]; what is given away is written down before anybody may use it, and endpoints that fail
    /// their health checks are taken out. To be called within a runtime.
    pub fn complete(&mut self, snapshot: Snapshot) -> Snapshot {
        let mut completed = self.controllers.complete(snapshot);
        completed.problems.extend(self.file.store(self.controllers.memory()));
        let failing = self.prober.failing();
        let targets = self.health.complete(&mut completed.objects, &failing, &mut completed.problems);
        self.prober.follow(targets);
        completed
    }

    /// Waits until a health check calls for another [`Self::complete`]. May be dropped at any await.
    pub async fn changed(&mut self) {
        self.prober.changed().await;
    }
}
