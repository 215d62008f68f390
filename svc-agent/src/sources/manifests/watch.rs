//! Notices that something below a path may have changed, and which files are being written at this moment.
//!
//! Uses inotify; without it (or where it misses something, as on network file systems) the slow poll has to do.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// A writer that pauses longer than this is not waited for.
const WRITER_PAUSE: Duration = Duration::from_secs(2);

/// Watches one path at a time.
#[derive(Debug, Default)]
pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    /// Device and inode of what is watched: a directory may be replaced by another of the same name.
    watched: Option<(u64, u64)>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    event: Notify,
    /// Files that were written to and not closed yet, with the time of the last write.
    writing: Mutex<HashMap<PathBuf, Instant>>,
}

impl Watch {
    /// Sees to it that the path is watched as it is at present; for a file, its directory is.
    ///
    /// # Errors
    /// If the kernel does not let us watch; then only the poll notices changes.
    pub fn ensure(&mut self, root: &Path) -> Result<(), String> {
        let metadata = fs::metadata(root).map_err(|error| error.to_string())?;
        let identity = (metadata.dev(), metadata.ino());
        if self.watched == Some(identity) {
            return Ok(());
        }
        // A file is watched through its directory, so that a file renamed over it is noticed too.
        let (target, mode) = if metadata.is_dir() {
            (root, RecursiveMode::Recursive)
        } else {
            let parent = root.parent().filter(|parent| !parent.as_os_str().is_empty());
            (parent.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)
        };
        let shared = self.shared.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| shared.handle(event));
        self.watcher = None;
        self.watched = None;
        let mut watcher = watcher.map_err(|error| error.to_string())?;
        watcher.watch(target, mode).map_err(|error| error.to_string())?;
        self.watcher = Some(watcher);
        self.watched = Some(identity);
        Ok(())
    }

    /// Waits for the next event; one that came before the call counts.
    pub async fn event(&self) {
        self.shared.event.notified().await;
    }

    /// Whether somebody is in the middle of writing a file.
    pub fn is_being_written(&self, path: &Path) -> bool {
        let mut writing = self.shared.writing.lock().unwrap_or_else(PoisonError::into_inner);
        writing.retain(|_, last| last.elapsed() < WRITER_PAUSE);
        writing.contains_key(path)
    }
}

impl Shared {
    fn handle(&self, event: notify::Result<Event>) {
        let Ok(event) = event else {
            // An overflow, say: anything may have changed.
            self.event.notify_one();
            return;
        };
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        match event.kind {
            EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => {
                // A link is made at once, and nobody closes it.
                let written = event.paths.into_iter().filter(|path| !path.is_symlink());
                writing.extend(written.map(|path| (path, Instant::now())));
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(_)) => {
                for path in event.paths {
                    writing.remove(&path);
                }
            }
            // Opening and reading, our own included.
            EventKind::Access(_) => return,
            EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Other => {}
        }
        drop(writing);
        self.event.notify_one();
    }
}
