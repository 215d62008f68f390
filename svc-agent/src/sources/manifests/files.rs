//! The files below a directory, each with its last good state, and which of them may have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::memory::Memory;
use super::scan::{self, At, Found, Scan};
use super::union::{Held, Name, Union};
use super::watch::Watch;
use crate::model::text::escape;
use crate::model::{Problem, Rules};
use crate::sources::Keeper;

/// A larger file keeps its last good state.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// How often to look without having been told to.
const POLL: Duration = Duration::from_secs(5);
/// How long nothing must happen before a change is read that may be one step of several: a file that is being written, or is
/// gone and may come back.
const QUIET: Duration = Duration::from_millis(50);
/// How long such steps may follow each other before they are read all the same.
const PATIENCE: Duration = Duration::from_millis(500);
/// When to look again at a file that was being written.
const AGAIN: Duration = Duration::from_millis(100);
/// Between two looks: many files may be written one after the other.
const APART: Duration = Duration::from_millis(20);

/// The files.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    keeper: Keeper,
    rules: Rules,
    files: BTreeMap<String, Memory>,
    /// No look at the root succeeded yet: what is bad may be in the maps all the same.
    starting: bool,
    /// What could not be looked at since the start.
    unknown: BTreeSet<String>,
    watch: Watch,
    /// False for a single look: nobody waits for changes, and a pipe is read to its end.
    follows: bool,
    /// Stands before the names of files in messages.
    prefix: String,
    due: Due,
    /// The last look at all files found nothing that makes one file depend on another, such as links.
    plain: bool,
    /// [`Self::changed`] has told of something.
    told: bool,
    looked: Option<Instant>,
    next_poll: Option<Instant>,
    next_again: Option<Instant>,
    /// How many files the last look looked at.
    seen: usize,
}

/// What the next look is to look at.
#[derive(Debug)]
enum Due {
    All,
    Some(BTreeSet<PathBuf>),
}

impl Files {
    /// The files below a directory, or a single one.
    pub fn new(root: impl Into<PathBuf>, keeper: Keeper, rules: Rules) -> Self {
        let prefix = match keeper {
            Keeper::Applied => "applied/".to_owned(),
            Keeper::Manifests | Keeper::ApiServer => String::new(),
        };
        Self {
            root: root.into(),
            keeper,
            rules,
            files: BTreeMap::new(),
            starting: true,
            unknown: BTreeSet::new(),
            watch: Watch::default(),
            follows: true,
            prefix,
            due: Due::All,
            plain: false,
            told: false,
            looked: None,
            next_poll: None,
            next_again: None,
            seen: 0,
        }
    }

    /// For a single look; `prefix` stands before the names of files in messages.
    pub fn once(self, prefix: &str) -> Self {
        Self { follows: false, prefix: escape(prefix), ..self }
    }

    /// Whether [`Self::changed`] has told of something since the last look.
    pub const fn is_told(&self) -> bool {
        self.told
    }

    /// How many files the last look looked at.
    #[cfg(test)]
    pub const fn seen(&self) -> usize {
        self.seen
    }

    /// Has the next look look at everything.
    pub fn look_at_all(&mut self) {
        self.due = Due::All;
    }

    /// Reads what is due and brings `union` in line with it.
    pub fn look(&mut self, union: &mut Union) {
        self.told = false;
        self.seen = 0;
        self.looked = Some(Instant::now());
        // Watch first: what changes after the look makes an event.
        let watched = if self.follows { self.watch.ensure(&self.root) } else { Ok(false) };
        let touched = self.watch.take();
        let all = touched.all || !self.plain || !matches!(watched, Ok(false));
        match std::mem::replace(&mut self.due, Due::Some(BTreeSet::new())) {
            Due::Some(mut paths) if !all => {
                paths.extend(touched.files);
                if !paths.into_iter().all(|path| self.look_at(&path, union)) {
                    self.look_everywhere(Ok(()), union);
                }
            }
            Due::Some(_) | Due::All => self.look_everywhere(watched.map(drop), union),
        }
    }

    /// Waits until something may have changed; then [`Self::look`] tells what. May be dropped at any await.
    pub async fn changed(&mut self) {
        while !self.told {
            let poll = *self.next_poll.get_or_insert_with(|| Instant::now() + POLL);
            let next = self.next_again.map_or(poll, |again| again.min(poll));
            tokio::select! {
                () = self.watch.event() => self.told = !self.plain || self.watch.has_touched(),
                () = sleep_until(next) => {
                    if self.next_again.is_some_and(|again| again <= Instant::now()) {
                        // What is due has been since the last look.
                        self.next_again = None;
                        self.told = true;
                        return;
                    }
                    if Instant::now() >= poll {
                        self.next_poll = None;
                        if self.differs() {
                            self.look_at_all();
                            self.told = true;
                            return;
                        }
                    }
                }
            }
        }
        if let Some(looked) = self.looked {
            sleep_until(looked + APART).await;
        }
        let end = Instant::now() + PATIENCE;
        while (!self.plain || self.watch.is_unsettled())
            && Instant::now() < end
            && timeout(QUIET, self.watch.event()).await.is_ok()
        {}
    }

    /// Whether a look at everything would find anything new.
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
        let mut scan = scan::scan(&self.root)?;
        if !self.prefix.is_empty() {
            let files = scan.files.iter_mut().map(|found| &mut found.name);
            files
                .chain(scan.unreadable.iter_mut().map(|(name, _)| name))
                .for_each(|name| name.insert_str(0, &self.prefix));
        }
        Ok(scan)
    }

    fn look_everywhere(&mut self, watched: Result<(), String>, union: &mut Union) {
        self.next_poll = None;
        self.next_again = None;
        let mut problems = Vec::new();
        match self.scan() {
            Ok(scan) => {
                self.plain = watched.is_ok() && self.follows && !scan.linked && scan.unreadable.is_empty();
                if let Err(error) = watched {
                    let text = format!("changes of `{}` are noticed by polling only: {error}", self.shown_root());
                    problems.push(Problem::notice(text));
                }
                self.take(scan, &mut problems, union);
                self.starting = false;
            }
            Err(error) => {
                self.plain = false;
                let kept = if self.files.is_empty() { "" } else { "; the objects read before stay in use" };
                problems.push(Problem::error(format!("cannot read `{}`: {error}{kept}", self.shown_root())));
            }
        }
        union.looked(self.keeper, problems, !self.starting && self.unknown.is_empty());
    }

    fn take(&mut self, scan: Scan, problems: &mut Vec<Problem>, union: &mut Union) {
        // What cannot be looked at keeps what it had: a name ending in `/` stands for all below it.
        let hidden: BTreeSet<String> = scan.unreadable.iter().map(|(name, _)| name.clone()).collect();
        let found: BTreeSet<&str> = scan.files.iter().map(|found| found.name.as_str()).collect();
        let is_hidden = |name: &str| {
            scan.truncated
                || hidden.iter().any(|hidden| hidden == name || hidden.ends_with('/') && name.starts_with(hidden))
        };
        let gone = self.files.keys().filter(|name| !found.contains(name.as_str()) && !is_hidden(name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.forget(&name, union);
        }
        for found in &scan.files {
            self.read(found, union);
        }
        for (name, error) in scan.unreadable {
            problems.push(Problem::error(format!("{name}: cannot be read: {error}")));
        }
        self.unknown.retain(|name| hidden.contains(name));
        if self.starting {
            self.unknown.extend(hidden);
        }
    }

    /// Looks at one file; false if that needs a look at all of them.
    fn look_at(&mut self, path: &Path, union: &mut Union) -> bool {
        match scan::look_at(&self.root, path) {
            At::File(mut found) => {
                found.name.insert_str(0, &self.prefix);
                if !self.files.contains_key(&found.name) && self.files.len() >= scan::MAX_FILES {
                    return false;
                }
                self.read(&found, union);
                true
            }
            At::Nothing(name) => {
                let name = format!("{}{name}", self.prefix);
                let below = format!("{name}/");
                self.forget(&name, union);
                // A directory may be named like a manifest.
                !self.files.range(below.clone()..).next().is_some_and(|(file, _)| file.starts_with(&below))
            }
            At::Ignored => true,
            At::Unclear => false,
        }
    }

    fn forget(&mut self, name: &str, union: &mut Union) {
        if let Some(file) = self.files.remove(name) {
            union.exchange(&self.name(name), Some(&Held::by(&file)), None);
        }
    }

    fn read(&mut self, found: &Found, union: &mut Union) {
        self.seen += 1;
        let name = self.name(&found.name);
        let file = self.files.entry(found.name.clone()).or_insert_with(|| Memory::new(self.keeper));
        if file.is_current(found.stamp) {
            return;
        }
        if !file.good.is_empty() && self.watch.is_being_written(&found.path) {
            self.look_again_at(&found.path);
            return;
        }
        let before = Held::by(file);
        if found.stamp.size() > MAX_FILE_BYTES {
            let text = format!("found {} bytes, expected at most {MAX_FILE_BYTES}; split the file", found.stamp.size());
            file.unreadable(&found.name, text, self.starting);
            union.exchange(&name, Some(&before), Some(file));
            return;
        }
        let mut fresh = false;
        match read_bytes(&found.path, self.follows) {
            Ok((stamp, bytes)) => {
                file.update(&found.name, stamp, &bytes, found.json, &self.rules, self.starting);
                fresh = stamp.is_fresh();
                if fresh {
                    file.look_again();
                }
            }
            Err(error) => file.unreadable(&found.name, format_args!("cannot be read: {error}"), self.starting),
        }
        union.exchange(&name, Some(&before), Some(file));
        if fresh {
            self.look_again_at(&found.path);
        }
    }

    fn look_again_at(&mut self, path: &Path) {
        self.next_again = Some(Instant::now() + AGAIN);
        if let Due::Some(paths) = &mut self.due {
            paths.insert(path.to_owned());
        }
    }

    fn name(&self, file: &str) -> Name {
        Name { keeper: self.keeper, file: file.into() }
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

/// All bytes, unless they are too many for a manifest.
///
/// # Errors
/// If they are, or cannot be read.
pub fn read_limited(input: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("found more than {MAX_FILE_BYTES} bytes; split the file")));
    }
    Ok(bytes)
}
