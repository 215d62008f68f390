//! Sources that work, for tests: manifests, applied objects, and somebody who looks at both.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;

use super::{Catalog, Changer};
use crate::model::{Rules, Service};
use crate::sources::applied::Applied;
use crate::sources::{LocalSources, Snapshot};

/// A state directory and a manifests directory that are followed until this is dropped.
pub struct Workshop {
    home: TempDir,
    catalog: Catalog,
    stop: Arc<AtomicBool>,
    follower: Option<JoinHandle<()>>,
}

impl Workshop {
    /// With empty directories.
    pub fn new() -> Self {
        let home = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        std::fs::create_dir(home.path().join("manifests")).unwrap();
        let applied = Arc::new(Applied::open(&home.path().join("state"), Rules::default()).unwrap());
        let mut sources = LocalSources::new(&home.path().join("manifests"), applied.objects(), &Rules::default());
        let (sender, snapshots) = watch::channel(Arc::new(allocated(sources.load())));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let follower = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                sender.send_replace(Arc::new(allocated(sources.load())));
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self { home, catalog: Catalog::new(snapshots, Changer::Applied(applied)), stop, follower: Some(follower) }
    }

    /// What the control socket sees.
    pub fn catalog(&self) -> Catalog {
        self.catalog.clone()
    }

    /// The directory of manifests.
    pub fn manifests(&self) -> PathBuf {
        self.home.path().join("manifests")
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.follower.take().map(JoinHandle::join));
    }
}

/// A controller of one idea: the Service `alloc` gets an address.
fn allocated(mut snapshot: Snapshot) -> Snapshot {
    for service in snapshot.objects.services.values_mut() {
        if service.name.name == "alloc" && service.cluster_ips.is_empty() {
            let found = Service { cluster_ips: vec!["10.96.0.77".parse().unwrap()], ..(**service).clone() };
            *service = Arc::new(found);
        }
    }
    snapshot
}
