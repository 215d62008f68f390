//! Directories and names of files where nobody else can interfere.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::model::text::{dns_label, dns_subdomain};
use crate::model::{ObjectKey, ObjectKind};

/// Linux allows so many in one name.
const MAX_NAME_BYTES: usize = 255;

/// Makes a directory of mode 0700; one that exists must be ours alone.
pub fn prepare(directory: &Path) -> anyhow::Result<()> {
    let shown = directory.display();
    match DirBuilder::new().recursive(false).mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("cannot make `{shown}`; name another --state-dir")),
    }
    let found = fs::symlink_metadata(directory).with_context(|| format!("cannot look at `{shown}`"))?;
    ensure!(!found.is_symlink(), "`{shown}` is a symbolic link; name the directory itself by --state-dir");
    ensure!(found.is_dir(), "`{shown}` is not a directory; remove it, or name another --state-dir");
    let own = nix::unistd::geteuid().as_raw();
    ensure!(
        found.uid() == own,
        "`{shown}` belongs to uid {}, expected uid {own}; chown it, or name another",
        found.uid()
    );
    let mode = found.mode() & 0o7777;
    if mode & 0o022 != 0 {
        bail!("`{shown}` has mode {mode:04o}: others could change it; chmod it to 0700, or name another --state-dir");
    }
    if mode != 0o700 {
        // A service manager may have made it so that others can read.
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("cannot set the mode of `{shown}`"))?;
    }
    Ok(())
}

/// Keeps other agents out, as long as the file is open.
pub fn lock(state_dir: &Path) -> anyhow::Result<File> {
    let path = state_dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .with_context(|| format!("cannot open `{}`", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another svc-agent uses the state directory `{}`; use another --state-dir", state_dir.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock `{}`", path.display())),
    }
}

/// Where the objects of a kind are.
pub fn folder(kind: ObjectKind) -> String {
    kind.as_str().to_lowercase()
}

/// The file of an object, below the directory of objects. Names that no object can have lead nowhere.
pub fn file(key: &ObjectKey) -> Result<PathBuf, String> {
    if key.kind.is_namespaced() || !key.namespace.is_empty() {
        dns_label(&key.namespace)?;
    }
    dns_subdomain(&key.name)?;
    // Neither has an underscore in it.
    let name = format!("{}_{}.json", key.namespace, key.name);
    if name.len() > MAX_NAME_BYTES {
        let room = MAX_NAME_BYTES.saturating_sub(name.len() - key.name.len());
        let text = format!("found {} characters, expected at most {room} in this namespace", key.name.len());
        return Err(format!("{key}: metadata.name: {text}"));
    }
    Ok(Path::new(&folder(key.kind)).join(name))
}

/// Whether there is a file of the object.
pub fn exists(objects: &Path, key: &ObjectKey) -> anyhow::Result<bool> {
    let Ok(file) = file(key) else { return Ok(false) };
    let path = objects.join(file);
    match fs::symlink_metadata(&path) {
        Ok(found) => {
            ensure!(
                !found.is_symlink(),
                "`{}` is a symbolic link, which the agent never makes; remove it",
                path.display()
            );
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot look at `{}`", path.display())),
    }
}

/// An object as it is kept; `None` if it is not, or if its file is spoilt and may be replaced.
pub fn read(objects: &Path, key: &ObjectKey) -> anyhow::Result<Option<Value>> {
    if !exists(objects, key)? {
        return Ok(None);
    }
    let Ok(file) = file(key) else { return Ok(None) };
    let path = objects.join(file);
    let mut text = String::new();
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(serde_json::from_str(&text).ok())
}
