//! Who is at the other end of a connection, as the kernel noted it when the connection was made.
#![expect(
    unsafe_code,
    reason = "SO_PEERGROUPS, which no library wraps: without it members by secondary group are unknown"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// More than any sane account has; the kernel allows 65,536.
const MAX_GROUPS: usize = 1024;

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
        let mut groups = supplementary(socket)?;
        groups.push(cred.gid());
        Ok(Self { uid: cred.uid(), groups })
    }
}

fn supplementary(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; MAX_GROUPS];
    let mut len = libc::socklen_t::try_from(size_of::<u32>() * groups.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `len` bytes, all of them inside `groups`, where any bytes are valid.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(usize::try_from(len).map_err(io::Error::other)? / size_of::<u32>());
    Ok(groups)
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
