//! Manifests in a directory, as an operator or `kubectl get -o yaml` writes them.
//!
//! Every file has a memory of its last good state, so that a slip in one takes nothing down (B79). Where two files
//! define the same object, the first in the order of file names counts.

pub(super) mod documents;
mod files;
mod json;
mod memory;
mod object;
mod scan;
mod typed;
mod union;
mod watch;

#[cfg(test)]
mod fixture_tests;
#[cfg(test)]
mod source_tests;
#[cfg(test)]
mod union_tests;

use std::io;
use std::path::PathBuf;

pub(super) use self::documents::Document;
pub(super) use self::files::Files;
use self::memory::Memory;
pub(super) use self::object::Contents;
use self::union::Name;
pub(super) use self::union::Union;
use super::{Keeper, Snapshot};
use crate::model::Rules;
use crate::model::text::escape;

/// Reads a directory (or one file) of manifests and notices changes.
#[derive(Debug)]
pub struct ManifestSource {
    files: Files,
    union: Union,
}

impl ManifestSource {
    /// A source over a directory or a single file, with the rules for its objects.
    pub fn new(root: impl Into<PathBuf>, rules: Rules) -> Self {
        Self { files: Files::new(root, Keeper::Manifests, rules), union: Union::default() }
    }

    /// A source over the directory where the agent keeps what was applied.
    pub fn of_applied(root: impl Into<PathBuf>, rules: Rules) -> Self {
        Self { files: Files::new(root, Keeper::Applied, rules), union: Union::default() }
    }

    /// What a directory or a file holds at present; `prefix` stands before the names of files in messages.
    pub fn look_once(root: impl Into<PathBuf>, prefix: &str, rules: &Rules) -> Snapshot {
        let files = Files::new(root, Keeper::Manifests, rules.clone()).once(prefix);
        Self { files, union: Union::default() }.load()
    }

    /// What a text holds that comes from no file; `name` stands for it in messages.
    pub fn read_text(input: impl io::Read, name: &str, rules: &Rules) -> Snapshot {
        let mut file = Memory::default();
        match files::read_limited(input) {
            Ok(bytes) => file.update(name, scan::Stamp::default(), &bytes, false, rules, true),
            Err(error) => file.unreadable(name, format_args!("cannot be read: {error}"), true),
        }
        let mut union = Union::default();
        let name = Name { keeper: Keeper::Manifests, file: escape(name).into() };
        union.exchange(&name, None, Some(&file));
        union.snapshot()
    }

    /// Reads what changed since the last call and returns the whole state: what [`Self::changed`] told of, and without it
    /// whatever may have changed.
    pub fn load(&mut self) -> Snapshot {
        if !self.files.is_told() {
            self.files.look_at_all();
        }
        self.files.look(&mut self.union);
        self.union.snapshot()
    }

    /// Waits until something may have changed; then [`Self::load`] tells what. May be dropped at any await.
    pub async fn changed(&mut self) {
        self.files.changed().await;
    }
}
