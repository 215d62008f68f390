//! The pin directory: what must outlive the agent, and nobody else may touch.
//!
//! A BPF file system is mounted with mode 1777 by default, so any user can make our directory first and later delete what
//! root pinned in it. Therefore the directory is made with mode 0700, or found to be exactly that, before it is used.
//!
//! ```text
//! <pin-dir>/v1/maps/FLOWS_V4-1       name and layout version (bpffs allows no dots in names)
//! <pin-dir>/v1/links/7-tc_ingress    ifindex and hook
//! ```

use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{FsType, statfs};
use svc_common::maps::MapSpec;

use crate::sys::bpf::Hook;

/// Version of the layout below the pin directory.
const LAYOUT: &str = "v1";
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// Where BPF file systems are mounted by custom.
const BPF_FS: &str = "/sys/fs/bpf";

/// Why a pin directory was refused.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no BPF file system.
    #[error(
        "cannot keep pins in `{}`: it is not on a BPF file system; mount one with `mount -t bpf bpf {BPF_FS}` or give \
         --pin-dir", path.display()
    )]
    NotBpfFs {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else could have made it or could change it.
    #[error("refusing the pin directory `{}`: {found}, expected a directory of uid 0 with mode 0700; {remedy}", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Another agent uses it.
    #[error("another svc-agent uses the pin directory `{}`; stop it or give another --pin-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {what} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PinError {
    let path = path.to_owned();
    move |source| PinError::Io { what, path, source }
}

/// The pin directory, checked and locked against a second agent.
#[derive(Debug)]
pub struct PinDir {
    /// `<pin-dir>`.
    top: PathBuf,
    /// Held as long as the agent lives; the kernel lets go of it when the process ends, however it ends.
    _lock: Flock<File>,
}

impl PinDir {
    /// Makes the directory, or checks the one that is there, and locks it.
    ///
    /// # Errors
    /// If it is not on a BPF file system, not safe, or in use.
    pub fn open(path: &Path) -> Result<Self, PinError> {
        let top = locate(path)?;
        make(&top)?;
        let pins = Self { _lock: lock(&top)?, top };
        for directory in [pins.versioned(), pins.maps(), pins.links()] {
            make(&directory)?;
        }
        Ok(pins)
    }

    /// The directory if it exists, checked and locked.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn open_existing(path: &Path) -> Result<Option<Self>, PinError> {
        let top = match locate(path) {
            Ok(top) => top,
            // Without the file system there cannot be pins either.
            Err(PinError::NotBpfFs { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        match fs::symlink_metadata(&top) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("look at", &top)(error)),
            Ok(metadata) => check(&top, &metadata)?,
        }
        Ok(Some(Self { _lock: lock(&top)?, top }))
    }

    /// Where it really is.
    pub fn path(&self) -> &Path {
        &self.top
    }

    fn versioned(&self) -> PathBuf {
        self.top.join(LAYOUT)
    }

    /// The directory of maps.
    pub fn maps(&self) -> PathBuf {
        self.versioned().join("maps")
    }

    /// The directory of links.
    pub fn links(&self) -> PathBuf {
        self.versioned().join("links")
    }

    /// The pin of a map. The layout version is part of the name: maps of another layout are simply not found.
    pub fn map(&self, map: &MapSpec) -> PathBuf {
        self.maps().join(format!("{}-{}", map.name, map.layout))
    }

    /// The pin of a link.
    pub fn link(&self, ifindex: u32, hook: Hook) -> PathBuf {
        self.links().join(format!("{ifindex}-{}", hook_name(hook)))
    }

    /// Device and hook of every pinned link; names that are not ours are passed over.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn pinned_links(&self) -> Result<Vec<(u32, Hook)>, PinError> {
        let mut links: Vec<_> = names(&self.links())?.iter().filter_map(|name| parse_link(name)).collect();
        links.sort_unstable();
        Ok(links)
    }

    /// Removes one pin; false if there was none.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(&self, pin: &Path) -> Result<bool, PinError> {
        match fs::remove_file(pin) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("remove", pin)(error)),
        }
    }

    /// Removes the pins of maps that this agent has no use for: other layouts of its own maps.
    ///
    /// # Errors
    /// If the directory cannot be read or a pin not removed.
    pub fn remove_other_layouts(&self, maps: &[MapSpec]) -> Result<Vec<String>, PinError> {
        let ours = |name: &String| maps.iter().any(|map| *name == format!("{}-{}", map.name, map.layout));
        let mut removed = Vec::new();
        for name in names(&self.maps())?.into_iter().filter(|name| !ours(name)) {
            if self.remove(&self.maps().join(&name))? {
                removed.push(name);
            }
        }
        Ok(removed)
    }

    /// Removes everything below the directory, links first, and the directory itself; returns what was removed.
    ///
    /// # Errors
    /// At the first thing that cannot be removed.
    pub fn remove_all(self) -> Result<Vec<PathBuf>, PinError> {
        let mut removed = Vec::new();
        for directory in [self.links(), self.maps()] {
            for name in names(&directory)? {
                let pin = directory.join(name);
                if self.remove(&pin)? {
                    removed.push(pin);
                }
            }
        }
        for directory in [self.links(), self.maps(), self.versioned(), self.top.clone()] {
            match fs::remove_dir(&directory) {
                Ok(()) => removed.push(directory),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("remove the directory", &directory)(error)),
            }
        }
        Ok(removed)
    }
}

fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Xdp => "xdp",
        Hook::TcIngress => "tc_ingress",
        Hook::TcEgress => "tc_egress",
    }
}

fn parse_link(name: &str) -> Option<(u32, Hook)> {
    let (ifindex, hook) = name.split_once('-')?;
    let hook = [Hook::Xdp, Hook::TcIngress, Hook::TcEgress].into_iter().find(|known| hook_name(*known) == hook)?;
    Some((ifindex.parse().ok()?, hook))
}

fn names(directory: &Path) -> Result<Vec<String>, PinError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", directory)(error)),
    };
    let mut names: Vec<_> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

/// Where `path` is on a BPF file system: as given, or as the first process sees it.
///
/// `ip netns exec` mounts a fresh /sys, which hides the BPF file system from the agent but not from the first process.
fn locate(path: &Path) -> Result<PathBuf, PinError> {
    if on_bpf_fs(path) {
        return Ok(path.to_owned());
    }
    let below = path.strip_prefix(BPF_FS).ok();
    let elsewhere = below.map(|below| Path::new("/proc/1/root").join("sys/fs/bpf").join(below));
    elsewhere.filter(|path| on_bpf_fs(path)).ok_or_else(|| PinError::NotBpfFs { path: path.to_owned() })
}

/// Whether the directory that holds `path`, which itself may not exist yet, is on a BPF file system.
fn on_bpf_fs(path: &Path) -> bool {
    path.parent().is_some_and(is_bpf_fs)
}

fn is_bpf_fs(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == FsType(BPF_FS_MAGIC))
}

/// Makes a directory that only root can use, or checks the one that is there.
fn make(path: &Path) -> Result<(), PinError> {
    match DirBuilder::new().mode(0o700).create(path) {
        // The umask can only have taken bits away.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed("protect", path))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("make the directory", path)(error)),
    }
    let metadata = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    check(path, &metadata)
}

/// Refuses a directory that somebody else made or could write to.
fn check(path: &Path, metadata: &Metadata) -> Result<(), PinError> {
    let refuse = |found: String, remedy| Err(PinError::Unsafe { path: path.to_owned(), found, remedy });
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return refuse("it is a symbolic link".into(), "remove it, or give the directory itself with --pin-dir");
    }
    if !kind.is_dir() {
        return refuse("it is not a directory".into(), "remove it, or give another --pin-dir");
    }
    if metadata.uid() != 0 {
        let found = format!("it belongs to uid {}", metadata.uid());
        return refuse(found, "find out who made it, then remove it with what is in it");
    }
    let mode = metadata.mode() & 0o7777;
    if mode != 0o700 {
        let found = format!("its mode is {mode:04o}");
        return refuse(found, "look at what is in it, then `chmod 0700` it or remove it");
    }
    if !is_bpf_fs(path) {
        return Err(PinError::NotBpfFs { path: path.to_owned() });
    }
    Ok(())
}

/// Locks the directory. bpffs directories can be opened and locked like any other.
fn lock(path: &Path) -> Result<Flock<File>, PinError> {
    let directory = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)
        .map_err(failed("open", path))?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::Error::EWOULDBLOCK => PinError::InUse { path: path.to_owned() },
        other => failed("lock", path)(other.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_link_says_device_and_hook() {
        for (name, link) in [
            ("7-xdp", Some((7, Hook::Xdp))),
            ("12-tc_ingress", Some((12, Hook::TcIngress))),
            ("12-tc_egress", Some((12, Hook::TcEgress))),
            ("x-xdp", None),
            ("7-other", None),
            ("7", None),
        ] {
            assert_eq!(parse_link(name), link, "{name}");
        }
    }

    #[test]
    fn a_directory_elsewhere_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let error = PinDir::open(&directory.path().join("pins")).unwrap_err().to_string();
        assert!(error.contains("mount -t bpf"), "{error}");
        assert!(!directory.path().join("pins").exists());
    }
}
