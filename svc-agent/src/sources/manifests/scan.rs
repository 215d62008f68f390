//! The manifest files below a directory, in the order of their names.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::text::escape;

/// Files read at most; more is not a directory of manifests.
pub const MAX_FILES: usize = 50_000;
/// File times are coarse: at most a tick of the kernel's clock.
const CLOCK_GRAIN: Duration = Duration::from_millis(20);
/// Directories entered below each other at most.
const MAX_DEPTH: usize = 16;

/// What tells one version of a file from another without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
    modified: (i64, i64),
}

impl Stamp {
    /// The version that a file has.
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// Whether the version is so young that a further write could bear the same times.
    pub fn is_fresh(&self) -> bool {
        let (seconds, nanos) = self.modified;
        let modified = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0));
        let Some(modified) = UNIX_EPOCH.checked_add(modified) else { return false };
        SystemTime::now().duration_since(modified).is_ok_and(|age| age < CLOCK_GRAIN)
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// One file.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name in messages: the path below the directory.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its version.
    pub stamp: Stamp,
    /// Whether it is JSON by its name.
    pub json: bool,
}

/// What a walk found.
#[derive(Debug, Default)]
pub struct Scan {
    /// The files, sorted by name.
    pub files: Vec<Found>,
    /// Directories and files that could not be looked at, by name, and why. What they held must be kept.
    pub unreadable: Vec<(String, String)>,
    /// There were too many files: some that were there before may be missing here.
    pub truncated: bool,
    /// There are links: a file may be there under two names, or change behind one.
    pub linked: bool,
}

/// What is at a path below a directory.
#[derive(Debug)]
pub enum At {
    /// A manifest.
    File(Found),
    /// Nothing; the name is that of the file that may have been there.
    Nothing(String),
    /// What a walk would pass over.
    Ignored,
    /// Something that only a walk can place.
    Unclear,
}

/// Looks at a directory and what is below it, or at a single file of any name.
///
/// Names that begin with a dot are passed over: editors' files, and the `..data` behind which Kubernetes swaps the
/// contents of a mounted ConfigMap; its files are found by the links beside it.
///
/// # Errors
/// If the path itself cannot be looked at.
pub fn scan(root: &Path) -> io::Result<Scan> {
    let metadata = fs::metadata(root)?;
    let mut walk = Walk::default();
    if metadata.is_dir() {
        walk.seen.insert((metadata.dev(), metadata.ino()));
        walk.directory(root, "", 0)?;
    } else {
        let name = root.file_name().unwrap_or(root.as_os_str()).to_string_lossy().into_owned();
        // Its directory is none that is walked.
        walk.scan.linked = true;
        let json = root.extension().is_some_and(|extension| extension == "json");
        walk.scan.files.push(Found { name: escape(&name), path: root.to_owned(), stamp: Stamp::of(&metadata), json });
    }
    walk.scan.files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(walk.scan)
}

/// Looks at one path below a directory that was walked and had no links: what the walk would find there.
pub fn look_at(root: &Path, path: &Path) -> At {
    let Ok(below) = path.strip_prefix(root) else { return At::Unclear };
    let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
    if parts.iter().any(|part| part.starts_with('.')) {
        return At::Ignored;
    }
    let (Some(last), true) = (parts.last(), parts.len() <= MAX_DEPTH) else { return At::Unclear };
    if !is_manifest(last) {
        return At::Ignored;
    }
    let name = parts.iter().map(|part| escape(part)).collect::<Vec<_>>().join("/");
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.nlink() == 1 => {
            At::File(Found { name, path: path.to_owned(), stamp: Stamp::of(&metadata), json: last.ends_with(".json") })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => At::Nothing(name),
        Ok(_) | Err(_) => At::Unclear,
    }
}

/// Whether a file with this name is one of those that are read.
pub fn is_manifest(name: &str) -> bool {
    [".json", ".yaml", ".yml"].iter().any(|end| name.ends_with(end))
}

#[derive(Default)]
struct Walk {
    scan: Scan,
    /// Device and inode of every directory and file entered: links may lead to one twice, or in circles.
    seen: HashSet<(u64, u64)>,
}

impl Walk {
    fn directory(&mut self, path: &Path, prefix: &str, depth: usize) -> io::Result<()> {
        let mut entries: Vec<_> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let file_name = entry.file_name();
            let file_name = file_name.to_string_lossy();
            if file_name.starts_with('.') {
                continue;
            }
            let name = format!("{prefix}{}", escape(&file_name));
            let metadata = match fs::metadata(entry.path()) {
                Ok(metadata) => metadata,
                // Gone since the listing, or a link to nothing: a file that is not there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.scan.linked |= entry.file_type().is_ok_and(|kind| kind.is_symlink());
                    continue;
                }
                Err(error) => {
                    self.scan.unreadable.push((name, error.to_string()));
                    continue;
                }
            };
            self.scan.linked |= entry.file_type().is_ok_and(|kind| kind.is_symlink());
            let json = file_name.ends_with(".json");
            let wanted = metadata.is_dir() || is_manifest(&file_name);
            if !wanted || !self.seen.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            if metadata.is_dir() {
                if depth == MAX_DEPTH {
                    self.scan.unreadable.push((name, format!("more than {MAX_DEPTH} directories deep")));
                } else if let Err(error) = self.directory(&entry.path(), &format!("{name}/"), depth + 1) {
                    self.scan.unreadable.push((format!("{name}/"), error.to_string()));
                }
            } else if !metadata.is_file() {
                self.scan.unreadable.push((name, "not a regular file".to_owned()));
            } else if self.scan.files.len() >= MAX_FILES {
                if !self.scan.truncated {
                    self.scan.unreadable.push((name, format!("there are more than {MAX_FILES} files")));
                }
                self.scan.truncated = true;
                return Ok(());
            } else {
                self.scan.linked |= metadata.nlink() > 1;
                self.scan.files.push(Found { name, path: entry.path(), stamp: Stamp::of(&metadata), json });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(root: &Path) -> Vec<String> {
        scan(root).unwrap().files.into_iter().map(|found| found.name).collect()
    }

    #[test]
    fn manifests_are_found_by_name_in_order_below_all_directories() {
        let dir = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "c.json", "notes.txt", ".hidden.yaml", "b.yaml~", ".b.yaml.swp"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir_all(dir.path().join("sub/deep")).unwrap();
        fs::create_dir(dir.path().join(".git")).unwrap();
        for name in ["sub/z.yaml", "sub/deep/a.yaml", ".git/x.yaml"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(names(dir.path()), ["a.yml", "b.yaml", "c.json", "sub/deep/a.yaml", "sub/z.yaml"]);
        assert_eq!(names(&dir.path().join("notes.txt")), ["notes.txt"]);
    }

    #[test]
    fn a_mounted_config_map_and_circles_of_links_are_counted_once() {
        let dir = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("..2024_01_01")).unwrap();
        fs::write(at("..2024_01_01/web.yaml"), "").unwrap();
        symlink("..2024_01_01", at("..data")).unwrap();
        symlink("..data/web.yaml", at("web.yaml")).unwrap();
        symlink("web.yaml", at("again.yaml")).unwrap();
        symlink("gone.yaml", at("dangling.yaml")).unwrap();
        fs::create_dir(at("sub")).unwrap();
        symlink("..", at("sub/up")).unwrap();
        assert_eq!(names(dir.path()), ["again.yaml"]);
    }

    #[test]
    fn what_is_not_a_file_is_reported_and_not_opened() {
        let dir = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("pipe.yaml"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let scan = scan(dir.path()).unwrap();
        assert_eq!(scan.unreadable, [("pipe.yaml".to_owned(), "not a regular file".to_owned())]);
        assert!(super::scan(&dir.path().join("gone")).is_err());
    }
}
