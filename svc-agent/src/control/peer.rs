//! Who is at the other end of a connection, as the kernel noted it when the connection was made.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::sys::socket::peer_groups;

/// The process that made a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user id.
    pub uid: u32,
    /// Its effective and its supplementary groups.
    pub groups: Vec<u32>,
}

impl Peer {
    /// Asks the kernel.
    ///
    /// # Errors
    /// If it does not tell.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let cred = getsockopt(socket, PeerCredentials)?;
        let mut groups = peer_groups(socket)?;
        groups.push(cred.gid());
        Ok(Self { uid: cred.uid(), groups })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_peer_is_known_with_all_its_groups() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        let mut expected: Vec<u32> = nix::unistd::getgroups().unwrap().iter().map(|gid| gid.as_raw()).collect();
        expected.push(nix::unistd::getegid().as_raw());
        assert_eq!(peer.groups, expected);
    }
}
