//! Where the memory of the controllers outlives the agent: one file that is replaced as a whole.
//!
//! A file that cannot be read as what was written is somebody's mistake or misfortune: it is set aside with its content,
//! and never overwritten.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::memory::Memory;
use crate::model::Problem;
use crate::whole_file;

/// Name of the file in the state directory.
pub const NAME: &str = "allocations.json";

/// The file.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// What it holds, if that is known to be what was written last.
    written: Option<Arc<Memory>>,
    /// What went wrong at the start, told as long as the agent runs: addresses may have changed by it.
    lost: Option<Problem>,
    /// What is there could neither be read nor set aside, so it stays as it is.
    keep: bool,
}

impl StateFile {
    /// Reads the file in `dir`, if there is one.
    pub fn open(dir: &Path) -> (Self, Memory) {
        let path = dir.join(NAME);
        let mut file = Self { path, written: None, lost: None, keep: false };
        let memory = match whole_file::read(&file.path) {
            Ok(None) => {
                file.written = Some(Arc::default());
                Memory::default()
            }
            Ok(Some(text)) => match Memory::parse(&text) {
                Ok(memory) => {
                    file.written = Some(Arc::new(memory.clone()));
                    memory
                }
                Err(error) => file.set_aside(&error),
            },
            Err(error) if error.kind() == io::ErrorKind::InvalidData => file.set_aside(&error.to_string()),
            Err(error) => file.leave(&format!("cannot be read: {error}")),
        };
        (file, memory)
    }

    /// Writes what changed, and says what is wrong with the file.
    pub fn store(&mut self, memory: &Arc<Memory>) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.lost.iter().cloned().collect();
        // An `Arc` compares its pointers first.
        if self.keep || self.written.as_ref() == Some(memory) {
            return problems;
        }
        match whole_file::replace(&self.path, &memory.to_text()) {
            Ok(()) => self.written = Some(memory.clone()),
            Err(error) => {
                self.written = None;
                problems.push(Problem::warning(format!(
                    "cannot write `{}`: {error}; addresses and ports that were allocated may be others after a restart",
                    self.path.display()
                )));
            }
        }
        problems
    }

    fn set_aside(&mut self, error: &str) -> Memory {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let aside = (0..100)
            .map(|n| self.path.with_file_name(format!("{NAME}.broken-{}", now + n)))
            .find(|path| fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        let Some(aside) = aside else { return self.leave(error) };
        if let Err(rename) = fs::rename(&self.path, &aside) {
            return self.leave(&format!("{error}; it cannot be set aside either: {rename}"));
        }
        self.lost = Some(Problem::error(format!(
            "`{}`: {error}; it was set aside as `{}`, and Services may have got other addresses and ports than before",
            self.path.display(),
            aside.display()
        )));
        Memory::default()
    }

    fn leave(&mut self, error: &str) -> Memory {
        self.keep = true;
        self.lost = Some(Problem::error(format!(
            "`{}`: {error}; it is left as it is and not written to, and Services may have got other addresses and ports \
             than before; correct or remove it and restart the agent",
            self.path.display()
        )));
        Memory::default()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::controllers::memory::Allocation;
    use crate::model::ServiceName;

    fn dir() -> tempfile::TempDir {
        tempfile::Builder::new().prefix("svct-").tempdir().unwrap()
    }

    fn memory() -> Arc<Memory> {
        let allocation = Allocation { node_ports: [(80, 31_000)].into(), ..Allocation::default() };
        Arc::new(Memory { services: [(ServiceName::new("default", "web"), allocation)].into() })
    }

    #[test]
    fn what_was_stored_is_there_after_a_restart_and_for_nobody_else() {
        let dir = dir();
        let state = dir.path().join("state");
        let (mut file, found) = StateFile::open(&state);
        assert_eq!((found, file.store(&Arc::default())), (Memory::default(), vec![]));
        assert!(!state.exists(), "nothing to remember needs no file");
        assert_eq!(file.store(&memory()), []);
        assert_eq!(StateFile::open(&state).1, *memory());
        assert_eq!(fs::metadata(state.join(NAME)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(state.join("allocations.json.new"), "half a dra").unwrap();
        assert_eq!(file.store(&Arc::default()), []);
        assert_eq!(StateFile::open(&state).1, Memory::default());
    }

    #[test]
    fn a_broken_file_is_set_aside_with_its_content_and_told() {
        let text = memory().to_text();
        let half = &text[..text.len() / 2];
        for broken in [half, "", "null", "{\"version\": 9}", "{\"version\": 1, \"services\": {\"x\": {}}}"] {
            let dir = dir();
            fs::write(dir.path().join(NAME), broken).unwrap();
            let (mut file, found) = StateFile::open(dir.path());
            assert_eq!(found, Memory::default());
            let problems = file.store(&memory());
            assert!(problems.len() == 1 && problems[0].text.contains("was set aside as"), "{problems:?}");
            assert_eq!(file.store(&memory()), problems);
            let aside: Vec<PathBuf> = fs::read_dir(dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.to_string_lossy().contains("broken"))
                .collect();
            assert_eq!(fs::read_to_string(&aside[0]).unwrap(), broken);
            assert_eq!(StateFile::open(dir.path()).1, *memory());
        }
        let dir = dir();
        fs::write(dir.path().join(NAME), b"\xff").unwrap();
        assert!(StateFile::open(dir.path()).0.store(&memory())[0].text.contains("set aside"));
    }

    #[test]
    fn links_are_not_followed_and_a_directory_is_left_alone() {
        let dir = dir();
        fs::write(dir.path().join("other"), memory().to_text()).unwrap();
        symlink("other", dir.path().join(NAME)).unwrap();
        let (mut file, found) = StateFile::open(dir.path());
        assert_eq!(found, Memory::default());
        file.store(&Arc::default());
        assert_eq!(fs::read_to_string(dir.path().join("other")).unwrap(), memory().to_text());
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_told() {
        let dir = dir();
        fs::write(dir.path().join("file"), "").unwrap();
        let (mut file, _) = StateFile::open(&dir.path().join("file"));
        let problems = file.store(&memory());
        assert!(problems.iter().any(|problem| problem.text.contains("file/allocations.json")), "{problems:?}");
    }
}
