//! Waiting for packets that are under way.
#![expect(unsafe_code, reason = "a system call that no library wraps")]

use std::thread;
use std::time::Duration;

/// How long to wait where the kernel cannot tell. A program runs for microseconds.
const UNTOLD: Duration = Duration::from_millis(10);

/// Waits until every kernel program that runs at this moment has ended.
///
/// `MEMBARRIER_CMD_GLOBAL` waits for an RCU grace period, and programs of XDP and tc run inside of RCU read sections. It
/// takes some milliseconds. Kernels with `nohz_full` refuse it.
pub fn wait_for_programs() {
    // SAFETY: integers only.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        thread::sleep(UNTOLD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn b77_waiting_for_packets_under_way_ends_soon() {
        let start = Instant::now();
        wait_for_programs();
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}
