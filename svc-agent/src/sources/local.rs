//! What a machine without Kubernetes goes by: the manifests, and what was applied over the control socket.

use std::path::Path;

use super::manifests::{Files, Union};
use super::{Keeper, Snapshot};
use crate::model::Rules;

/// Both sources as one.
#[derive(Debug)]
pub struct LocalSources {
    manifests: Files,
    applied: Files,
    union: Union,
}

impl LocalSources {
    /// `applied` is the directory of [`super::applied::Applied::objects`].
    pub fn new(manifests: &Path, applied: &Path, rules: &Rules) -> Self {
        Self {
            manifests: Files::new(manifests, Keeper::Manifests, rules.clone()),
            applied: Files::new(applied, Keeper::Applied, rules.clone()),
            union: Union::default(),
        }
    }

    /// Reads what changed and returns the whole state; where both define an object, the manifest counts.
    pub fn load(&mut self) -> Snapshot {
        self.manifests.look(&mut self.union);
        self.applied.look(&mut self.union);
        self.union.snapshot()
    }

    /// Waits until something may have changed; then [`Self::load`] tells what. May be dropped at any await.
    pub async fn changed(&mut self) {
        tokio::select! {
            () = self.manifests.changed() => {}
            () = self.applied.changed() => {}
        }
    }
}
