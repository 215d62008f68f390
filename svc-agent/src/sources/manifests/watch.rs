//! Notices what below a path may have changed, and which files are being written at this moment.
//!
//! Uses inotify; without it (or where it misses something, as on network file systems) the slow poll has to do.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::scan::is_manifest;

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
    touched: Mutex<Touched>,
    /// Files that were written to and not closed yet, with the time of the last write.
    writing: Mutex<HashMap<PathBuf, Instant>>,
}

/// What may have changed.
#[derive(Debug, Default)]
pub struct Touched {
    /// Anything: a directory, or more than the kernel could tell.
    pub all: bool,
    /// Files with the names of manifests.
    pub files: BTreeSet<PathBuf>,
    /// One of them is gone, perhaps to come back in a moment.
    gone: bool,
}

impl Watch {
    /// Sees to it that the path is watched as it is at present; for a file, its directory is.
    ///
    /// # Errors
    /// If the kernel does not let us watch; then only the poll notices changes.
    ///
    /// Returns whether it was not watched so far.
    pub fn ensure(&mut self, root: &Path) -> Result<bool, String> {
        let metadata = fs::metadata(root).map_err(|error| error.to_string())?;
        let identity = (metadata.dev(), metadata.ino());
        if self.watched == Some(identity) {
            return Ok(false);
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
        Ok(true)
    }

    /// Waits for the next event; one that came before the call counts.
    pub async fn event(&self) {
        self.shared.event.notified().await;
    }

    /// What may have changed since the last call.
    pub fn take(&self) -> Touched {
        std::mem::take(&mut self.shared.touched())
    }

    /// Whether anything may have changed but files that are no manifests, to which links may lead.
    pub fn has_touched(&self) -> bool {
        let touched = self.shared.touched();
        touched.all || !touched.files.is_empty()
    }

    /// Whether what changed may be one step of several.
    pub fn is_unsettled(&self) -> bool {
        let touched = self.shared.touched();
        touched.all || touched.gone || touched.files.iter().any(|path| self.is_being_written(path))
    }

    /// Whether somebody is in the middle of writing a file.
    pub fn is_being_written(&self, path: &Path) -> bool {
        let mut writing = self.shared.writing.lock().unwrap_or_else(PoisonError::into_inner);
        writing.retain(|_, last| last.elapsed() < WRITER_PAUSE);
        writing.contains_key(path)
    }
}

impl Shared {
    fn touched(&self) -> MutexGuard<'_, Touched> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, event: notify::Result<Event>) {
        match event {
            Ok(event) if event.need_rescan() => self.touched().all = true,
            // Opening and reading, our own included.
            Ok(Event { kind: EventKind::Access(kind), .. }) if kind != AccessKind::Close(AccessMode::Write) => return,
            Ok(event) => {
                self.follow_writer(&event);
                self.touched().add(event);
            }
            // An overflow, say.
            Err(_) => self.touched().all = true,
        }
        self.event.notify_one();
    }

    fn follow_writer(&self, event: &Event) {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        match event.kind {
            EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => {
                // A link is made at once, and nobody closes it.
                let written = event.paths.iter().filter(|path| !path.is_symlink());
                writing.extend(written.map(|path| (path.clone(), Instant::now())));
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(_)) => {
                for path in &event.paths {
                    writing.remove(path);
                }
            }
            EventKind::Access(_) | EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Other => {}
        }
    }
}

impl Touched {
    fn add(&mut self, event: Event) {
        let (files, goes) = match event.kind {
            EventKind::Create(CreateKind::File)
            | EventKind::Modify(ModifyKind::Data(_))
            | EventKind::Access(AccessKind::Close(AccessMode::Write)) => (true, false),
            EventKind::Remove(RemoveKind::File) => (true, true),
            // Of a file or a directory; the path that a renamed file has now is told by an event of its own.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return,
            EventKind::Modify(ModifyKind::Name(mode)) => (false, mode == RenameMode::From),
            EventKind::Access(_)
            | EventKind::Any
            | EventKind::Create(_)
            | EventKind::Modify(_)
            | EventKind::Remove(_)
            | EventKind::Other => (false, false),
        };
        let renamed = matches!(event.kind, EventKind::Modify(ModifyKind::Name(_) | ModifyKind::Metadata(_)));
        for path in event.paths {
            let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            if !files && !renamed {
                self.all = true;
            } else if is_manifest(&name) && !name.starts_with('.') {
                self.gone |= goes;
                self.files.insert(path);
            } else {
                // What was renamed may be a directory.
                self.all |= !files && !name.starts_with('.');
            }
        }
    }
}
