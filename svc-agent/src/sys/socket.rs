//! The supplementary groups of a socket's peer: `SO_PEERGROUPS`.
#![expect(unsafe_code, reason = "no library wraps it")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The kernel's limit: it tells all or nothing. Pages that it does not fill cost nothing.
const MAX_GROUPS: usize = 65_536;

/// The supplementary groups that the peer of a Unix socket had when it connected.
///
/// # Errors
/// If the kernel does not tell.
pub fn peer_groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; MAX_GROUPS];
    let mut len_bytes = libc::socklen_t::try_from(size_of_val(groups.as_slice())).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `len_bytes` bytes, all of them inside `groups`, where any bytes are valid.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut len_bytes,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(usize::try_from(len_bytes).map_err(io::Error::other)? / size_of::<u32>());
    Ok(groups)
}
