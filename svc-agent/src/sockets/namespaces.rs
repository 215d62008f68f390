//! Network namespaces by the files that stand for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use globset::Glob;
use nix::sys::statfs::{FsType, fstatfs};

use crate::sys::netns;

/// `NSFS_MAGIC`.
const NAMESPACES: FsType = FsType(0x6e73_6673);

/// The cookie of the agent's own network namespace; `None` where the kernel does not tell (before 5.14).
pub fn own_cookie() -> Option<u64> {
    netns::cookie().ok()
}

/// The cookies of the namespaces that the patterns name, and why some are not known.
pub fn skipped(patterns: &[String]) -> (BTreeSet<u64>, Vec<String>) {
    let (mut cookies, mut reasons) = (BTreeSet::new(), Vec::new());
    for path in patterns.iter().flat_map(|pattern| files(pattern)) {
        match open(&path).and_then(|file| netns::inside(&file, netns::cookie)) {
            Ok(cookie) => drop(cookies.insert(cookie)),
            Err(error) => reasons.push(format!("cannot leave out `{}`: {}", path.display(), explained(&error))),
        }
    }
    (cookies, reasons)
}

fn explained(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "entering a network namespace takes CAP_SYS_ADMIN".into(),
        Some(libc::ENOPROTOOPT) => "this kernel does not tell namespaces apart (5.14 does)".into(),
        _ => error.to_string(),
    }
}

/// Every network namespace that a process is in or that has a name, each once.
pub fn all() -> Vec<File> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
    let of_processes = processes.map(|entry| entry.path().join("ns/net"));
    let named = fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: BTreeMap<u64, File> = BTreeMap::new();
    for path in of_processes.chain(named) {
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if !found.contains_key(&metadata.ino())
            && let Ok(file) = open(&path)
        {
            found.insert(metadata.ino(), file);
        }
    }
    found.into_values().collect()
}

/// Opens a namespace; anything else is refused.
fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if fstatfs(&file)?.filesystem_type() == NAMESPACES {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a network namespace"))
    }
}

/// The files that a pattern names at present: its last part may be a glob.
fn files(pattern: &str) -> Vec<PathBuf> {
    let path = Path::new(pattern);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    if !name.to_string_lossy().contains(['*', '?', '[', '{']) {
        return if path.exists() { vec![path.to_owned()] } else { Vec::new() };
    }
    let Ok(glob) = Glob::new(&name.to_string_lossy()) else { return Vec::new() };
    let matcher = glob.compile_matcher();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| matcher.is_match(entry.file_name())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_the_files_that_are_there() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["kata-1", "kata-2", "other"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let found = |pattern: &str| files(dir.path().join(pattern).to_str().unwrap()).len();
        assert_eq!([found("kata-*"), found("other"), found("missing"), found("none*")], [2, 1, 0, 0]);
    }

    #[test]
    fn a_file_that_is_no_namespace_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("kata-1"), "").unwrap();
        let (cookies, reasons) = skipped(&[dir.path().join("kata-*").to_str().unwrap().to_owned()]);
        assert!(cookies.is_empty() && reasons.len() == 1 && reasons[0].contains("kata-1"), "{reasons:?}");
        assert_eq!(skipped(&["/run/netns/there-is-none".to_owned()]), (BTreeSet::new(), Vec::new()));
    }
}
