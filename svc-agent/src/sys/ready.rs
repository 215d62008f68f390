//! Waiting for a ring buffer.
#![expect(unsafe_code, reason = "registers a file descriptor for as long as its owner lives")]

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

/// A ring buffer that can be waited for.
///
/// # Errors
/// If the runtime does not take it.
pub fn ring_buffer(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring buffer owns its descriptor, does not change it, and closes it when it is dropped, which is after
    // the registration was.
    unsafe { AsyncFd::register(ring) }.map_err(Into::into)
}
