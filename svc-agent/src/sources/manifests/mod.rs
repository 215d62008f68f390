//! Manifests in a directory, as an operator or `kubectl get -o yaml` writes them.
//!
//! Every file has a memory of its last good state, so that a slip in one takes nothing down (B79). Where two files
//! define the same object, the first in the order of file names counts.

pub(super) mod documents;
mod json;
mod memory;
mod object;
mod scan;
mod typed;
mod watch;

#[cfg(test)]
mod fixture_tests;
#[cfg(test)]
mod source_tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub(super) use self::documents::Document;
use self::memory::{Memory, Shared};
pub(super) use self::object::Contents;
use self::scan::{Found, Scan, scan};
use self::watch::Watch;
use super::{Keeper, Objects, Snapshot};
use crate::model::text::escape;
use crate::model::{EndpointSlice, ObjectKey, Problem, Rules, ServiceName};

/// A larger file keeps its last good state.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// How often to look without having been told to.
const POLL: Duration = Duration::from_secs(5);
/// How long nothing must happen before a change is read: editors and `kubectl` write several times.
const QUIET: Duration = Duration::from_millis(50);
/// How long changes may follow each other before they are read all the same.
const PATIENCE: Duration = Duration::from_millis(500);
/// When to look again at a file that was being written.
const AGAIN: Duration = Duration::from_millis(100);

/// Reads a directory (or one file) of manifests and notices changes.
#[derive(Debug)]
pub struct ManifestSource {
    root: PathBuf,
    keeper: Keeper,
    rules: Rules,
    files: BTreeMap<String, Memory>,
    /// No look at the root succeeded yet: what is bad may be in the maps all the same.
    starting: bool,
    /// What could not be looked at since the start.
    unknown: BTreeSet<String>,
    /// Kinds whose presence was logged.
    logged: BTreeSet<String>,
    watch: Watch,
    /// False for a single look: nobody waits for changes, and a pipe is read to its end.
    follows: bool,
    /// Stands before the names of files in messages.
    prefix: String,
    /// An event came in and was not followed by a load.
    pending: bool,
    next_poll: Option<Instant>,
}

impl ManifestSource {
    /// A source over a directory or a single file, with the rules for its objects.
    pub fn new(root: impl Into<PathBuf>, rules: Rules) -> Self {
        Self {
            root: root.into(),
            keeper: Keeper::Manifests,
            rules,
            files: BTreeMap::new(),
            starting: true,
            unknown: BTreeSet::new(),
            logged: BTreeSet::new(),
            watch: Watch::default(),
            follows: true,
            prefix: String::new(),
            pending: false,
            next_poll: None,
        }
    }

    /// A source over the directory where the agent keeps what was applied.
    pub fn of_applied(root: impl Into<PathBuf>, rules: Rules) -> Self {
        Self { keeper: Keeper::Applied, prefix: "applied/".to_owned(), ..Self::new(root, rules) }
    }

    /// What a directory or a file holds at present; `prefix` stands before the names of files in messages.
    pub fn look_once(root: impl Into<PathBuf>, prefix: &str, rules: &Rules) -> Snapshot {
        Self { follows: false, prefix: escape(prefix), ..Self::new(root, rules.clone()) }.load()
    }

    /// What a text holds that comes from no file; `name` stands for it in messages.
    pub fn read_text(input: impl io::Read, name: &str, rules: &Rules) -> Snapshot {
        let mut source = Self::new(name, rules.clone());
        let mut file = Memory::default();
        match read_limited(input) {
            Ok(bytes) => file.update(name, scan::Stamp::default(), &bytes, false, rules, true),
            Err(error) => file.unreadable(name, format_args!("cannot be read: {error}"), true),
        }
        source.files.insert(name.to_owned(), file);
        source.starting = false;
        source.snapshot(Vec::new())
    }

    /// Reads what changed since the last call and returns the whole state.
    pub fn load(&mut self) -> Snapshot {
        self.pending = false;
        self.next_poll = None;
        let mut problems = Vec::new();
        // Watch first: what changes after the look makes an event.
        let watched = if self.follows { self.watch.ensure(&self.root) } else { Ok(()) };
        match self.scan() {
            Ok(scan) => {
                if let Err(error) = watched {
                    let text = format!("changes of `{}` are noticed by polling only: {error}", self.shown_root());
                    problems.push(Problem::notice(text));
                }
                self.look(scan, &mut problems);
                self.starting = false;
            }
            Err(error) => {
                let kept = if self.files.is_empty() { "" } else { "; the objects read before stay in use" };
                problems.push(Problem::error(format!("cannot read `{}`: {error}{kept}", self.shown_root())));
            }
        }
        self.snapshot(problems)
    }

    /// Waits until something may have changed; then [`Self::load`] tells what. May be dropped at any await.
    pub async fn changed(&mut self) {
        let mut poll = *self.next_poll.get_or_insert_with(|| Instant::now() + POLL);
        while !self.pending {
            tokio::select! {
                () = self.watch.event() => self.pending = true,
                () = tokio::time::sleep_until(poll) => {
                    if self.differs() {
                        self.pending = true;
                        return;
                    }
                    poll = Instant::now() + POLL;
                    self.next_poll = Some(poll);
                }
            }
        }
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && tokio::time::timeout(QUIET, self.watch.event()).await.is_ok() {}
    }

    /// Whether a look would find anything new.
    fn differs(&self) -> bool {
        match self.scan() {
            Ok(scan) => {
                let current =
                    |found: &Found| self.files.get(&found.name).is_some_and(|file| file.is_current(found.stamp));
                self.starting
                    || scan.files.len() != self.files.len()
                    || !scan.unreadable.is_empty()
                    || !scan.files.iter().all(current)
            }
            Err(_) => !self.starting,
        }
    }

    fn scan(&self) -> io::Result<Scan> {
        let mut scan = scan(&self.root)?;
        if !self.prefix.is_empty() {
            let files = scan.files.iter_mut().map(|found| &mut found.name);
            files
                .chain(scan.unreadable.iter_mut().map(|(name, _)| name))
                .for_each(|name| name.insert_str(0, &self.prefix));
        }
        Ok(scan)
    }

    fn look(&mut self, scan: Scan, problems: &mut Vec<Problem>) {
        // What cannot be looked at keeps what it had: a name ending in `/` stands for all below it.
        let hidden: BTreeSet<String> = scan.unreadable.iter().map(|(name, _)| name.clone()).collect();
        let found: BTreeSet<&str> = scan.files.iter().map(|found| found.name.as_str()).collect();
        let is_hidden = |name: &str| {
            scan.truncated
                || hidden.iter().any(|hidden| hidden == name || hidden.ends_with('/') && name.starts_with(hidden))
        };
        self.files.retain(|name, _| found.contains(name.as_str()) || is_hidden(name));
        for found in &scan.files {
            self.read(found);
        }
        for (name, error) in scan.unreadable {
            problems.push(Problem::error(format!("{name}: cannot be read: {error}")));
        }
        self.unknown.retain(|name| hidden.contains(name));
        if self.starting {
            self.unknown.extend(hidden);
        }
    }

    fn read(&mut self, found: &Found) {
        let file = self.files.entry(found.name.clone()).or_insert_with(|| Memory::new(self.keeper));
        if file.is_current(found.stamp) {
            return;
        }
        if !file.good.is_empty() && self.watch.is_being_written(&found.path) {
            self.next_poll = Some(Instant::now() + AGAIN);
            return;
        }
        if found.stamp.size() > MAX_FILE_BYTES {
            let text = format!("found {} bytes, expected at most {MAX_FILE_BYTES}; split the file", found.stamp.size());
            file.unreadable(&found.name, text, self.starting);
            return;
        }
        match read_bytes(&found.path, self.follows) {
            Ok((stamp, bytes)) => {
                file.update(&found.name, stamp, &bytes, found.json, &self.rules, self.starting);
                if stamp.is_fresh() {
                    file.look_again();
                    self.next_poll = Some(Instant::now() + AGAIN);
                }
            }
            Err(error) => file.unreadable(&found.name, format_args!("cannot be read: {error}"), self.starting),
        }
    }

    fn snapshot(&mut self, mut problems: Vec<Problem>) -> Snapshot {
        let mut objects = Objects::default();
        let mut first: HashMap<&ObjectKey, &str> = HashMap::new();
        let mut slices_of: BTreeMap<ServiceName, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        for file in self.files.values() {
            problems.extend(file.problems.iter().cloned());
            for good in &file.good {
                if let Some(first) = first.get(&good.key) {
                    let (origin, key) = (&good.origin, &good.key);
                    problems.push(Problem::error(format!(
                        "{origin}, {key}: defined already in {first}, which counts because it comes first; remove one of them"
                    )));
                    continue;
                }
                first.insert(&good.key, &good.origin);
                objects.raw.insert(good.key.clone(), good.raw.clone());
                *objects.counts.entry(good.key.kind).or_default() += 1;
                match &good.object {
                    Shared::Service(service) => {
                        objects.services.insert(service.name.clone(), service.clone());
                    }
                    Shared::Slices(slices) => {
                        for slice in slices {
                            slices_of.entry(slice.service.clone()).or_default().push(slice.clone());
                        }
                    }
                    Shared::Pod(pod) => {
                        let namespace = objects.pods.entry(pod.namespace.clone()).or_default();
                        namespace.insert(pod.name.clone(), pod.clone());
                    }
                    Shared::Node(node) => {
                        objects.nodes.insert(node.name.clone(), node.clone());
                    }
                }
            }
            for (key, raw) in &file.refused {
                // What is refused hides no good one, wherever that stands.
                if !objects.raw.contains_key(key) {
                    objects.raw.insert(key.clone(), raw.clone());
                }
            }
            for (kind, count) in &file.ignored {
                *objects.ignored.entry(kind.clone()).or_default() += count;
            }
        }
        for slices in slices_of.values_mut() {
            slices.sort_by(|a, b| a.name.cmp(&b.name));
        }
        objects.slices = slices_of.into_iter().collect();
        for (kind, count) in &objects.ignored {
            if self.logged.insert(kind.clone()) {
                tracing::debug!(kind, count, "manifests hold objects of a kind that is not used");
            }
        }
        let complete = !self.starting && self.unknown.is_empty() && self.files.values().all(|file| !file.unknown);
        Snapshot { objects, problems, complete }
    }

    fn shown_root(&self) -> String {
        escape(&self.root.to_string_lossy())
    }
}

/// The version and the bytes of a file. `hasty`: the writer of a pipe is not waited for.
fn read_bytes(path: &Path, hasty: bool) -> io::Result<(scan::Stamp, Vec<u8>)> {
    // A file may have become a pipe since the look.
    let flags = if hasty { libc::O_NONBLOCK } else { 0 };
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    // The version before reading: a write meanwhile makes another one, and is read at the next look.
    let stamp = scan::Stamp::of(&file.metadata()?);
    Ok((stamp, read_limited(file)?))
}

fn read_limited(input: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("found more than {MAX_FILE_BYTES} bytes; split the file")));
    }
    Ok(bytes)
}
