//! The socket in the file system: made where no other user can interfere, taken over from a dead agent only.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use nix::unistd::{Gid, Group, chown, getegid, geteuid};

use super::access::Access;
use super::lock::{Identity, Lock, identity};

/// A bound control socket. Its file goes away with it, unless another agent has taken the place.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: UnixListener,
    pub(super) access: Access,
    path: PathBuf,
    group: Gid,
    identity: Identity,
    /// Says who serves here. Released after the socket's file is gone.
    _lock: Lock,
}

impl Socket {
    /// Makes the socket with mode 0660, owned by the named group (the process's own if `None`), and its directory with
    /// mode 0755 if it is missing.
    ///
    /// # Errors
    /// If another agent serves there, if the directory or what lies at `path` is not ours to use, if the group does
    /// not exist.
    pub fn bind(path: &Path, group: Option<&str>) -> anyhow::Result<Self> {
        let group = group_id(group)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        prepare_directory(directory)?;
        let lock = Lock::take(path)?.ok_or_else(|| in_use(path))?;
        remove_stale(path)?;

        let (listener, identity) = listen(path)?;
        let access = Access { agent_uid: geteuid().as_raw(), group: group.as_raw() };
        let socket = Self { listener, access, path: path.to_owned(), group, identity, _lock: lock };
        socket.admit()?;
        Ok(socket)
    }

    /// Makes the socket's file again if somebody removed it; true if so. Connections that are open stay.
    ///
    /// # Errors
    /// As [`Socket::bind`]; the next attempt starts over.
    pub fn restore(&mut self) -> anyhow::Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => return Ok(false),
        }
        (self.listener, self.identity) = listen(&self.path)?;
        self.admit()?;
        Ok(true)
    }

    /// Until here the umask decides who can connect; who does is checked once more after accepting.
    fn admit(&self) -> anyhow::Result<()> {
        let (path, group) = (&self.path, self.group);
        chown(path, None, Some(group)).with_context(|| format!("cannot give `{}` to group {group}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))
            .with_context(|| format!("cannot set the mode of `{}`", path.display()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity) {
            // One that cannot be removed is stale, and the next agent removes it: nothing to report.
            drop(fs::remove_file(&self.path));
        }
    }
}

fn listen(path: &Path) -> anyhow::Result<(UnixListener, Identity)> {
    let listener = UnixListener::bind(path).with_context(|| format!("cannot make the socket `{}`", path.display()))?;
    listener.set_nonblocking(true)?;
    Ok((listener, identity(&fs::symlink_metadata(path)?)))
}

fn group_id(name: Option<&str>) -> anyhow::Result<Gid> {
    let Some(name) = name else { return Ok(getegid()) };
    let group = Group::from_name(name).with_context(|| format!("cannot look up the group `{name}`"))?;
    let group = group.with_context(|| {
        format!("the socket's group `{name}` does not exist; create it (groupadd --system {name}) or name another")
    })?;
    Ok(group.gid)
}

/// Makes the directory if it is missing; otherwise it must be one where other users cannot replace our files.
fn prepare_directory(directory: &Path) -> anyhow::Result<()> {
    let shown = directory.display();
    match DirBuilder::new().mode(0o755).create(directory) {
        // The umask may have taken bits away.
        Ok(()) => fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot set the mode of `{shown}`"))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("cannot make the socket's directory `{shown}`")),
    }
    let found = fs::symlink_metadata(directory).with_context(|| format!("cannot look at `{shown}`"))?;
    ensure!(!found.is_symlink(), "the socket's directory `{shown}` is a symbolic link; name the directory itself");
    ensure!(found.is_dir(), "the socket's directory `{shown}` is not a directory; remove it or name another");
    ensure_owner(directory, &found)?;
    let sticky = found.mode() & 0o1000 != 0;
    ensure!(
        sticky || found.mode() & 0o022 == 0,
        "the socket's directory `{shown}` has mode {:04o}: others could replace the socket; chmod go-w or name another",
        found.mode() & 0o7777
    );
    Ok(())
}

pub(super) fn ensure_owner(path: &Path, found: &fs::Metadata) -> anyhow::Result<()> {
    let own = geteuid().as_raw();
    ensure!(
        found.uid() == 0 || found.uid() == own,
        "`{}` belongs to uid {}, expected root or uid {own}; remove it or name another",
        path.display(),
        found.uid()
    );
    Ok(())
}

fn in_use(path: &Path) -> anyhow::Error {
    anyhow::anyhow!("another agent serves at `{}`; stop it or use another --socket", path.display())
}

/// Removes what a dead agent left; refuses what is alive or not ours.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot look at `{shown}`")),
    };
    ensure!(found.file_type().is_socket(), "`{shown}` exists and is not a socket; remove it or use another --socket");
    ensure_owner(path, &found)?;
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Ok(_) => return Err(in_use(path)),
        Err(error) => {
            bail!("cannot tell whether another agent serves at `{shown}`: {error}; remove the file if none does")
        }
    }
    fs::remove_file(path).with_context(|| format!("cannot remove the stale socket `{shown}`"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;
    use crate::control::lock::lock_path;

    fn home() -> TempDir {
        tempfile::Builder::new().prefix("svct-").tempdir().unwrap()
    }

    fn error(path: &Path) -> String {
        format!("{:#}", Socket::bind(path, None).unwrap_err())
    }

    #[test]
    fn directory_and_socket_are_made_with_their_modes_and_go_away_with_it() {
        let home = home();
        let path = home.path().join("run/control.sock");
        let socket = Socket::bind(&path, None).unwrap();
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o660);
        assert_eq!(fs::metadata(lock_path(&path)).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(socket.path(), path);
        drop(socket);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_somebody_removed_is_made_again_and_another_one_is_left_alone() {
        let home = home();
        let path = home.path().join("control.sock");
        let mut socket = Socket::bind(&path, None).unwrap();
        assert!(!socket.restore().unwrap());
        fs::remove_file(&path).unwrap();
        assert!(socket.restore().unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o660);
        assert!(UnixStream::connect(&path).is_ok());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(!socket.restore().unwrap());
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn a_live_socket_is_not_taken_over() {
        let home = home();
        let path = home.path().join("control.sock");
        let first = Socket::bind(&path, None).unwrap();
        assert!(error(&path).contains("another agent serves at"), "{}", error(&path));
        fs::remove_file(lock_path(&path)).unwrap();
        assert!(error(&path).contains("another agent serves at"), "without its lock: {}", error(&path));
        assert!(UnixStream::connect(&path).is_ok());
        drop(first);
        Socket::bind(&path, None).unwrap();
    }

    #[test]
    fn the_socket_of_a_dead_agent_is_replaced() {
        let home = home();
        let path = home.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        fs::write(lock_path(&path), "").unwrap();
        let socket = Socket::bind(&path, None).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
    }

    #[test]
    fn a_socket_that_was_replaced_is_left_alone_at_the_end() {
        let home = home();
        let path = home.path().join("control.sock");
        let socket = Socket::bind(&path, None).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn what_is_not_a_socket_is_refused() {
        let home = home();
        let path = home.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(error(&path).contains("is not a socket"), "{}", error(&path));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();

        symlink(home.path().join("elsewhere"), &path).unwrap();
        assert!(error(&path).contains("is not a socket"), "{}", error(&path));
        fs::remove_file(&path).unwrap();

        symlink(home.path().join("victim"), lock_path(&path)).unwrap();
        assert!(error(&path).contains("cannot open the lock file"), "{}", error(&path));
        assert!(!home.path().join("victim").exists());
    }

    #[test]
    fn a_directory_where_others_can_interfere_is_refused() {
        let home = home();
        let real = home.path().join("real");
        fs::create_dir(&real).unwrap();
        let link = home.path().join("link");
        symlink(&real, &link).unwrap();
        assert!(error(&link.join("s")).contains("is a symbolic link"));

        fs::set_permissions(&real, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(error(&real.join("s")).contains("has mode 0777"), "{}", error(&real.join("s")));
        fs::set_permissions(&real, fs::Permissions::from_mode(0o1777)).unwrap();
        drop(Socket::bind(&real.join("s"), None).unwrap());

        fs::set_permissions(&real, fs::Permissions::from_mode(0o755)).unwrap();
        if !geteuid().is_root() {
            eprintln!("SKIPPED: foreign owners, for want of root");
            return;
        }
        drop(UnixListener::bind(real.join("foreign")).unwrap());
        chown(&real.join("foreign"), Some(65_534.into()), None).unwrap();
        assert!(error(&real.join("foreign")).contains("belongs to uid 65534"));
        chown(&real, Some(65_534.into()), None).unwrap();
        assert!(error(&real.join("s")).contains("belongs to uid 65534"));
    }

    #[test]
    fn the_group_goes_by_name_and_must_exist() {
        let home = home();
        let path = home.path().join("control.sock");
        let error = format!("{:#}", Socket::bind(&path, Some("svct-nobody-has-this")).unwrap_err());
        assert!(error.contains("`svct-nobody-has-this` does not exist") && error.contains("groupadd"), "{error}");
        assert!(!path.exists());
        if !geteuid().is_root() {
            eprintln!("SKIPPED: another group than our own, for want of root");
            return;
        }
        let socket = Socket::bind(&path, Some("daemon")).unwrap();
        let wanted = Group::from_name("daemon").unwrap().unwrap().gid.as_raw();
        assert_eq!((fs::metadata(&path).unwrap().gid(), socket.access.group), (wanted, wanted));
    }
}
