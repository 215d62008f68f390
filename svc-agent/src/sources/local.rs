//! What a machine without Kubernetes goes by: the manifests, if there is a directory of them, and what was applied over the
//! control socket.

use std::path::Path;

use super::manifests::{Files, Union};
use super::{Keeper, Snapshot};
use crate::model::{Problem, Rules};

/// Both sources as one.
#[derive(Debug)]
pub struct LocalSources {
    manifests: Option<Files>,
    applied: Files,
    union: Union,
    /// There was an object.
    any: bool,
}

impl LocalSources {
    /// `applied` is the directory of [`super::applied::Applied::objects`].
    pub fn new(manifests: Option<&Path>, applied: &Path, rules: &Rules) -> Self {
        Self {
            manifests: manifests.map(|root| Files::new(root, Keeper::Manifests, rules.clone())),
            applied: Files::new(applied, Keeper::Applied, rules.clone()),
            union: Union::default(),
            any: false,
        }
    }

    /// Looks at everything and returns the whole state; where both define an object, the manifest counts.
    pub fn load(&mut self) -> Snapshot {
        self.manifests.iter_mut().for_each(Files::look_at_all);
        self.applied.look_at_all();
        self.update()
    }

    /// Reads what may have changed and returns the whole state, for who follows [`Self::changed`]: what nobody was told of yet
    /// is not looked at.
    pub fn update(&mut self) -> Snapshot {
        if let Some(manifests) = &mut self.manifests {
            manifests.look(&mut self.union);
        }
        self.applied.look(&mut self.union);
        let mut snapshot = self.union.snapshot();
        self.any |= self.manifests.is_some() || !snapshot.objects.raw.is_empty();
        if !self.any {
            // More likely somebody forgot to say where the objects are than wants a node without any.
            snapshot.complete = false;
            snapshot.problems.push(Problem::warning(
                "nothing was applied yet, and no other source of objects is configured: what the maps hold stays as it is; \
                 give --manifests DIR, --kubeconfig FILE or in a Pod --kubernetes, or begin with `svcctl apply -f FILE`",
            ));
        }
        snapshot
    }

    /// Waits until something may have changed; then [`Self::update`] tells what. May be dropped at any await.
    pub async fn changed(&mut self) {
        let manifests = async {
            match &mut self.manifests {
                Some(manifests) => manifests.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = manifests => {}
            () = self.applied.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b78_without_any_source_nothing_is_removed_until_something_was_applied() {
        let dir = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        let [manifests, applied] = ["m", "a"].map(|name| dir.path().join(name));
        for made in [&manifests, &applied] {
            std::fs::create_dir(made).unwrap();
        }
        let rules = Rules::default();
        let mut forgotten = LocalSources::new(None, &applied, &rules);
        let first = forgotten.load();
        assert!(!first.complete && first.problems.len() == 1, "{:?}", first.problems);
        // An empty directory was meant so.
        let meant = LocalSources::new(Some(&manifests), &applied, &rules).load();
        assert!(meant.complete && meant.problems.is_empty(), "{:?}", meant.problems);

        let web = applied.join("web.json");
        std::fs::write(
            &web,
            r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"ports":[{"port":80}]}}"#,
        )
        .unwrap();
        let mut alone = LocalSources::new(None, &applied, &rules);
        let one = alone.load();
        assert!(one.complete && one.problems.is_empty() && one.objects.services.len() == 1, "{:?}", one.problems);
        // The last one that is deleted is gone, and so it is from the maps.
        std::fs::remove_file(&web).unwrap();
        let none = alone.load();
        assert!(none.complete && none.objects.services.is_empty());
    }
}
