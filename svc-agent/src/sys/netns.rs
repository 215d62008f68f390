//! Network namespaces: their cookies, and work inside of others.
#![expect(unsafe_code, reason = "no library wraps SO_NETNS_COOKIE")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `SO_NETNS_COOKIE`, since 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The cookie of the calling thread's network namespace, by which the kernel programs know it.
///
/// # Errors
/// `ENOPROTOOPT` before 5.14.
pub fn cookie() -> io::Result<u64> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut len_bytes = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len_bytes` bytes to `cookie`, where any bytes are valid.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len_bytes,
        )
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// Runs `work` on a thread inside of a namespace. Sockets that it opens stay there.
///
/// # Errors
/// If the namespace cannot be entered: that takes CAP_SYS_ADMIN.
pub fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            work()
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread inside of the namespace ended early")))
    })
}
