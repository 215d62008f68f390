//! Sources that work, for tests: manifests, applied objects, controllers, and somebody who looks at them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;

use super::{Catalog, Changer};
use crate::controllers::{LocalControllers, Settings};
use crate::model::Rules;
use crate::sources::LocalSources;
use crate::sources::applied::Applied;

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
        let mut sources = LocalSources::new(Some(&home.path().join("manifests")), applied.objects(), &Rules::default());
        let range = ["10.96.0.0/16".parse().unwrap()];
        let mut controllers =
            LocalControllers::open(Settings::new(&range, 30_000..=32_767, Vec::new()), &home.path().join("state"));
        let mut load = move || Arc::new(controllers.complete(sources.load()));
        let (sender, snapshots) = watch::channel(load());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let follower = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                sender.send_replace(load());
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
