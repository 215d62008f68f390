//! The control group whose sockets are served: that of all processes unless another is named.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::sys::statfs::{FsType, fstatfs};

const MAGIC: FsType = FsType(0x6367_7270);

/// An open control group of version 2.
#[derive(Debug)]
pub struct Cgroup {
    dir: File,
    /// Its number, as links tell it.
    pub id: u64,
    /// How the operator calls it.
    pub path: PathBuf,
}

impl Cgroup {
    /// Opens the group at `given`, or the root of the hierarchy wherever that is mounted.
    ///
    /// # Errors
    /// If there is no such group, or no hierarchy.
    pub fn open(given: Option<&Path>) -> anyhow::Result<Self> {
        let (path, reached) = match given {
            Some(path) => (path.to_owned(), path.to_owned()),
            None => {
                mounted().context("no control group hierarchy of version 2 is mounted: `mount -t cgroup2 none DIR`")?
            }
        };
        let dir = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(&reached)
            .with_context(|| format!("cannot open the control group `{}`", path.display()))?;
        let kind = fstatfs(&dir).map_err(io::Error::from)?.filesystem_type();
        anyhow::ensure!(kind == MAGIC, "`{}` is not a control group of version 2", path.display());
        let id = dir.metadata()?.ino();
        Ok(Self { dir, id, path })
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Where the hierarchy is mounted, and how this process gets there: `ip netns exec` hides it, but not from the first process.
fn mounted() -> Option<(PathBuf, PathBuf)> {
    [("/proc/self/mounts", "/"), ("/proc/1/mounts", "/proc/1/root")].into_iter().find_map(|(mounts, root)| {
        let path = mount_point(&fs::read_to_string(mounts).ok()?)?;
        let reached = Path::new(root).join(path.strip_prefix("/").unwrap_or(&path));
        reached.is_dir().then_some((path, reached))
    })
}

/// The first file system of the kind in a list as /proc/self/mounts has it.
fn mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (path, kind) = (fields.nth(1)?, fields.next()?);
        // Spaces and the like are written in octal.
        (kind == "cgroup2").then(|| PathBuf::from(path.replace("\\040", " ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_of_version_2_is_found_wherever_it_is_mounted() {
        let check =
            |mounts: &str, found: Option<&str>| assert_eq!(mount_point(mounts).as_deref(), found.map(Path::new));
        check("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n", Some("/sys/fs/cgroup"));
        check(
            "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
             cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
            Some("/sys/fs/cgroup/unified"),
        );
        check("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n", None);
        check("", None);
    }

    #[test]
    fn an_ordinary_directory_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = Cgroup::open(Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains(dir.path().to_str().unwrap()) && error.contains("version 2"), "{error}");
    }
}
