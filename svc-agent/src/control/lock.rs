//! Who serves at a socket: a file beside it, locked while its agent lives.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::socket::ensure_owner;

/// Device and inode.
pub type Identity = (u64, u64);

/// What tells one file from another that got its name later.
pub fn identity(metadata: &fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// The lock of one socket. The kernel releases it when the process dies, however it dies.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock; `None` if another process has it. Only its owner can open the file, so nobody else can.
    ///
    /// # Errors
    /// If the file cannot be opened or is not ours.
    pub fn take(socket: &Path) -> anyhow::Result<Option<Self>> {
        let path = lock_path(socket);
        let shown = path.display();
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .with_context(|| format!("cannot open the lock file `{shown}`"))?;
            let metadata = file.metadata()?;
            ensure_owner(&path, &metadata)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock `{shown}`"));
                }
            }
            // An agent that ended in between has removed the file that we hold: then the name is another's, or nobody's.
            if fs::symlink_metadata(&path).is_ok_and(|found| identity(&found) == identity(&metadata)) {
                return Ok(Some(Self { file, path }));
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let held = self.file.metadata().map(|metadata| identity(&metadata)).ok();
        let found = fs::symlink_metadata(&self.path).map(|metadata| identity(&metadata)).ok();
        if held == found {
            // A lock file without a lock hinders nobody.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// `control.sock` -> `control.sock.lock`.
pub fn lock_path(socket: &Path) -> PathBuf {
    let mut name = OsString::from(socket);
    name.push(".lock");
    name.into()
}
