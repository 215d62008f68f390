//! Why there is no answer, with the remedy.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group};

/// Why the agent gave no answer, or another one than asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error(
        "no agent at `{}`: {cause}; start `svc-agent run`, or name the socket of a running agent with --socket or \
         SVC_AGENT_SOCKET",
        path.display()
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// How that shows.
        cause: &'static str,
    },
    /// The agent does not serve this user.
    #[error("cannot use the control socket `{}`: permission denied; be root{or_member}", path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
        /// Or a member of which group.
        or_member: String,
    },
    /// The socket cannot be reached for another reason.
    #[error("cannot connect to the control socket `{}`: {error}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The agent answered that it will not or cannot.
    #[error("{}{error}", refusal(*status))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The agent's words.
        error: String,
    },
    /// The answer broke off or cannot be understood.
    #[error("the agent's answer is broken: {0}")]
    Broken(String),
}

/// What stands before the agent's words. Some say enough by themselves.
fn refusal(status: u16) -> String {
    match status {
        404 | 405 | 409 | 413 | 422 | 503 => String::new(),
        _ => format!("the agent answered {status}: "),
    }
}

impl ClientError {
    pub(super) fn connect(path: &Path, error: io::Error) -> Self {
        let not_running = |cause| Self::NotRunning { path: path.to_owned(), cause };
        match error.kind() {
            io::ErrorKind::NotFound => not_running("there is no such socket"),
            io::ErrorKind::ConnectionRefused => not_running("its socket is there, but it has ended"),
            io::ErrorKind::PermissionDenied => Self::denied(path, false),
            _ => Self::Connect { path: path.to_owned(), error },
        }
    }

    pub(super) fn denied(path: &Path, changes: bool) -> Self {
        // Members may look, and no more.
        let group = std::fs::metadata(path).ok().map(|found| found.gid()).filter(|gid| *gid != 0 && !changes);
        let or_member = group.map_or_else(String::new, |gid| {
            let name = Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name);
            format!(" or a member of the group {}", name.map_or_else(|| gid.to_string(), |name| format!("`{name}`")))
        });
        Self::Denied { path: path.to_owned(), or_member }
    }

    pub(super) fn broken(error: impl std::fmt::Display) -> Self {
        Self::Broken(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_socket_is_told_with_the_remedy() {
        let check = |kind: io::ErrorKind, texts: &[&str]| {
            let error = ClientError::connect(Path::new("/nowhere/control.sock"), kind.into()).to_string();
            for text in texts {
                assert!(error.contains(text), "{error}");
            }
        };
        check(io::ErrorKind::NotFound, &["`/nowhere/control.sock`", "no such socket", "svc-agent run", "--socket"]);
        check(io::ErrorKind::ConnectionRefused, &["it has ended", "svc-agent run", "SVC_AGENT_SOCKET"]);
        check(io::ErrorKind::PermissionDenied, &["permission denied; be root"]);
        check(io::ErrorKind::OutOfMemory, &["cannot connect to the control socket"]);
    }

    #[test]
    fn a_denial_names_the_sockets_group() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: files of other groups, for want of root");
            return;
        }
        let file = tempfile::Builder::new().prefix("svct-").tempfile().unwrap();
        nix::unistd::chown(file.path(), None, Some(Gid::from_raw(1))).unwrap();
        let error = ClientError::denied(file.path(), false).to_string();
        assert!(error.ends_with("be root or a member of the group `daemon`"), "{error}");
        nix::unistd::chown(file.path(), None, Some(Gid::from_raw(4_000_000))).unwrap();
        let error = ClientError::denied(file.path(), false).to_string();
        assert!(error.ends_with("be root or a member of the group 4000000"), "{error}");
        let error = ClientError::denied(file.path(), true).to_string();
        assert!(error.ends_with("permission denied; be root"), "{error}");
    }
}
