//! The controllers with the file that keeps their memory.

use std::path::Path;

use super::file::StateFile;
use super::{Controllers, Settings};
use crate::sources::Snapshot;

/// Completes the objects of local sources, and remembers across restarts what it gave away.
#[derive(Debug)]
pub struct LocalControllers {
    controllers: Controllers,
    file: StateFile,
}

impl LocalControllers {
    /// Reads what is remembered in the state directory.
    pub fn open(settings: Settings, state_dir: &Path) -> Self {
        let (file, memory) = StateFile::open(state_dir);
        Self { controllers: Controllers::new(settings, memory), file }
    }

    /// As [`Controllers::complete`]; what is given away is written down before anybody may use it.
    pub fn complete(&mut self, snapshot: Snapshot) -> Snapshot {
        let mut completed = self.controllers.complete(snapshot);
        completed.problems.extend(self.file.store(self.controllers.memory()));
        completed
    }
}
