//! Several files changed as one.
//!
//! The new contents are written and synchronised beside the files. A journal then says what becomes of them: from that
//! moment on the change is made, whenever the agent dies, as the next one finishes what the journal says.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::directory;
use crate::model::ObjectKey;
use crate::whole_file;

/// Names with a dot are passed over by those who read manifests.
const JOURNAL: &str = ".journal";
const JOURNAL_DRAFT: &str = ".journal-draft";
const DRAFT: &str = ".draft-";

/// What becomes of one file.
#[derive(Debug)]
pub struct FileChange {
    /// Below the directory of objects.
    file: PathBuf,
    /// The new content; `None` removes it.
    content: Option<Vec<u8>>,
}

impl FileChange {
    /// The object gets this value.
    pub fn write(key: &ObjectKey, value: &Value) -> anyhow::Result<Self> {
        let mut content = serde_json::to_vec_pretty(value)?;
        content.push(b'\n');
        Ok(Self { file: directory::file(key).map_err(anyhow::Error::msg)?, content: Some(content) })
    }

    /// The object goes.
    pub fn remove(key: &ObjectKey) -> anyhow::Result<Self> {
        Ok(Self { file: directory::file(key).map_err(anyhow::Error::msg)?, content: None })
    }
}

/// What has been decided: every step may have been done already.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Journal {
    /// Drafts, and which files they become.
    renames: Vec<(String, PathBuf)>,
    /// Files that go.
    removals: Vec<PathBuf>,
}

/// Changes all files or none.
pub fn commit(objects: &Path, changes: &[FileChange]) -> anyhow::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    // Left by a change that was decided and could not be finished, on a full file system, say.
    recover(objects)?;
    let decided = decide(objects, changes);
    if decided.is_err() {
        discard(objects)?;
    }
    decided?;
    finish(objects)
}

/// Does what an earlier agent had decided, and forgets what it had not.
pub fn recover(objects: &Path) -> anyhow::Result<()> {
    finish(objects)?;
    discard(objects)
}

/// Up to the moment from which on the change is made.
pub(super) fn decide(objects: &Path, changes: &[FileChange]) -> anyhow::Result<()> {
    let mut journal = Journal::default();
    for (index, change) in changes.iter().enumerate() {
        match &change.content {
            Some(content) => {
                let draft = format!("{DRAFT}{index}");
                write(&objects.join(&draft), content)?;
                journal.renames.push((draft, change.file.clone()));
            }
            None => journal.removals.push(change.file.clone()),
        }
    }
    let draft = objects.join(JOURNAL_DRAFT);
    write(&draft, &serde_json::to_vec(&journal)?)?;
    sync(objects)?;
    fs::rename(&draft, objects.join(JOURNAL)).context("cannot write the journal")?;
    sync(objects)
}

fn finish(objects: &Path) -> anyhow::Result<()> {
    let path = objects.join(JOURNAL);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    };
    let journal: Journal = serde_json::from_slice(&text)
        .with_context(|| format!("cannot understand `{}`, which the agent wrote; remove it", path.display()))?;
    for (draft, file) in &journal.renames {
        let renamed = fs::rename(objects.join(draft), objects.join(file));
        done(renamed).with_context(|| format!("cannot write `{}`", objects.join(file).display()))?;
    }
    for file in &journal.removals {
        done(fs::remove_file(objects.join(file)))
            .with_context(|| format!("cannot remove `{}`", objects.join(file).display()))?;
    }
    let files = journal.renames.iter().map(|(_, file)| file).chain(&journal.removals);
    let mut folders: Vec<_> = files.filter_map(|file| file.parent()).collect();
    folders.sort_unstable();
    folders.dedup();
    for folder in folders {
        sync(&objects.join(folder))?;
    }
    fs::remove_file(&path).with_context(|| format!("cannot remove `{}`", path.display()))?;
    sync(objects)
}

/// A step that was done before cannot be done again.
fn done(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Removes drafts of a change that was not decided.
fn discard(objects: &Path) -> anyhow::Result<()> {
    let shown = objects.display();
    let entries = fs::read_dir(objects).with_context(|| format!("cannot read `{shown}`"))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read `{shown}`"))?;
        let name = entry.file_name();
        if name == JOURNAL_DRAFT || name.to_string_lossy().starts_with(DRAFT) {
            done(fs::remove_file(entry.path()))
                .with_context(|| format!("cannot remove `{}`", entry.path().display()))?;
        }
    }
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    whole_file::write_new(path, content).with_context(|| format!("cannot write `{}`", path.display()))
}

fn sync(directory: &Path) -> anyhow::Result<()> {
    whole_file::sync(directory).with_context(|| format!("cannot synchronise `{}`", directory.display()))
}
