//! Whether a pin directory is safe to use.
//!
//! A BPF file system is mounted with mode 1777 by default, so any user can make our directory first and later delete what
//! root pinned in it. Therefore the directory is made with mode 0700, or found to be exactly that, before it is used.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::bpffs::{Location, MOUNT, is_bpf_fs};

/// Why a pin directory was refused.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no BPF file system.
    #[error(
        "cannot keep pins in `{}`: it is not on a BPF file system; mount one with `mount -t bpf bpf {MOUNT}` or give \
         --pin-dir", path.display()
    )]
    NotBpfFs {
        /// The directory.
        path: PathBuf,
    },
    /// The directory around it is missing.
    #[error("cannot keep pins in `{}`: the directory around it does not exist; make it, for root alone, or give another --pin-dir", path.display())]
    NoParent {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else could have made it or could change it.
    #[error("refusing the pin directory `{}`: {found}, expected {expected}; {remedy}", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
        /// What it should be.
        expected: &'static str,
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
    #[error("cannot {what} `{}`: {reason}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said. No `source`: the text has it already.
        reason: io::Error,
    },
}

/// Names what was tried and on what.
pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PinError {
    let path = path.to_owned();
    move |reason| PinError::Io { what, path, reason }
}

/// Finds the pin directory's place and refuses one that others could change.
pub(super) fn locate(path: &Path) -> Result<Location, PinError> {
    let Some(location) = Location::find(path) else {
        let path = path.to_owned();
        let around = path.ancestors().skip(1).find(|ancestor| ancestor.exists());
        return Err(match around {
            Some(around) if is_bpf_fs(around) => PinError::NoParent { path },
            _ => PinError::NotBpfFs { path },
        });
    };
    if let Some(parent) = location.path.parent() {
        let metadata = fs::metadata(parent).map_err(failed("look at", parent))?;
        check_parent(parent, &metadata)?;
    }
    Ok(location)
}

/// Refuses a directory in which somebody else could replace ours by another.
fn check_parent(path: &Path, metadata: &Metadata) -> Result<(), PinError> {
    const STICKY: u32 = 0o1000;
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    let mode = metadata.mode();
    if metadata.uid() == 0 && (mode & WRITABLE_BY_OTHERS == 0 || mode & STICKY != 0) {
        return Ok(());
    }
    let found =
        format!("it holds the pin directory, belongs to uid {} and has mode {:04o}", metadata.uid(), mode & 0o7777);
    let remedy =
        "others could replace the pin directory: give it to root and `chmod 0755` it, or give another --pin-dir";
    Err(PinError::Unsafe {
        path: path.to_owned(),
        found,
        expected: "a directory of uid 0 that others cannot write to",
        remedy,
    })
}

/// Makes a directory that only root can use, or checks the one that is there.
pub(super) fn make(path: &Path) -> Result<(), PinError> {
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
pub(super) fn check(path: &Path, metadata: &Metadata) -> Result<(), PinError> {
    let refuse = |found: String, remedy| {
        Err(PinError::Unsafe { path: path.to_owned(), found, expected: "a directory of uid 0 with mode 0700", remedy })
    };
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
pub(super) fn lock(path: &Path) -> Result<Flock<File>, PinError> {
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
    use super::super::pins::PinDir;

    #[test]
    fn a_directory_elsewhere_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let error = PinDir::open(&directory.path().join("pins")).unwrap_err().to_string();
        assert!(error.contains("mount -t bpf"), "{error}");
        assert!(!directory.path().join("pins").exists());
    }
}
