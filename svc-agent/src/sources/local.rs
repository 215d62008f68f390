//! What a machine without Kubernetes goes by: the manifests, and what was applied over the control socket.

use std::path::Path;

use super::manifests::ManifestSource;
use super::{Snapshot, merge};
use crate::model::Rules;

/// Both sources as one.
#[derive(Debug)]
pub struct LocalSources {
    manifests: ManifestSource,
    applied: ManifestSource,
}

impl LocalSources {
    /// `applied` is the directory of [`super::applied::Applied::objects`].
    pub fn new(manifests: &Path, applied: &Path, rules: &Rules) -> Self {
        Self {
            manifests: ManifestSource::new(manifests, rules.clone()),
            applied: ManifestSource::of_applied(applied, rules.clone()),
        }
    }

    /// As [`ManifestSource::load`]; where both define an object, the manifest counts.
    pub fn load(&mut self) -> Snapshot {
        merge([self.manifests.load(), self.applied.load()])
    }

    /// As [`ManifestSource::changed`].
    pub async fn changed(&mut self) {
        tokio::select! {
            () = self.manifests.changed() => {}
            () = self.applied.changed() => {}
        }
    }
}
