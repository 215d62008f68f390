//! Where the BPF file system is, seen from this process.
//!
//! `ip netns exec` mounts a fresh /sys, which hides the BPF file system from the agent. The first process still sees it,
//! and so do the processes that started the agent; the first one may be closed to us where privileges are restricted.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, statfs};

const MAGIC: FsType = FsType(0xcafe_4a11);
/// Where BPF file systems are mounted by custom.
pub(super) const MOUNT: &str = "/sys/fs/bpf";
/// How many generations of processes are asked.
const GENERATIONS: usize = 16;

/// A path on a BPF file system.
#[derive(Debug)]
pub(super) struct Location {
    /// How this process reaches it.
    pub path: PathBuf,
    /// How the operator calls it.
    pub given: PathBuf,
    /// Keeps `path` valid when the process that it was found through ends.
    _mount: Option<File>,
}

impl Location {
    /// Finds `path`, whose last component need not exist; `None` if it is not on a BPF file system.
    pub(super) fn find(path: &Path) -> Option<Self> {
        let given = path.to_owned();
        if path.parent().is_some_and(is_bpf_fs) {
            return Some(Self { path: path.to_owned(), given, _mount: None });
        }
        let below = path.strip_prefix(MOUNT).ok()?;
        let mount = std::iter::once(1).chain(ancestors()).find_map(mount_of)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())).join(below);
        path.parent().is_some_and(is_bpf_fs).then_some(Self { path, given, _mount: Some(mount) })
    }
}

/// Whether `path` is on a BPF file system.
pub(super) fn is_bpf_fs(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == MAGIC)
}

/// The BPF file system of a process of root.
fn mount_of(pid: u32) -> Option<File> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    if fs::metadata(&process).ok()?.uid() != 0 {
        return None;
    }
    let mount = process.join("root").join(MOUNT.trim_start_matches('/'));
    let open = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(mount).ok()?;
    is_bpf_fs(Path::new(&format!("/proc/self/fd/{}", open.as_raw_fd()))).then_some(open)
}

/// The processes that started this one, nearest first.
fn ancestors() -> impl Iterator<Item = u32> {
    std::iter::successors(Some(std::process::id()), |pid| parent_of(*pid)).skip(1).take(GENERATIONS)
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_parent(&stat).filter(|parent| *parent > 1)
}

/// The fourth field; the second, a name in parentheses, may hold anything.
fn parse_parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_read_past_any_name() {
        assert_eq!(parse_parent("7 (sh) S 4 7 7 0 -1"), Some(4));
        assert_eq!(parse_parent("7 (a) S 1 (b) R 9 7 7 0"), Some(9));
        assert_eq!(parse_parent("7 (sh"), None);
        assert!(parent_of(std::process::id()).is_none_or(|parent| parent > 1));
    }

    #[test]
    fn an_ordinary_directory_is_not_found() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Location::find(&directory.path().join("pins")).is_none());
    }
}
