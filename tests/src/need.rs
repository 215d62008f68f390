//! What a test needs of the machine. A test that cannot prove anything here skips loudly, it does not pass.

use std::io::Write as _;

/// Whether this process is root; if not, `test` is reported as skipped.
pub fn root(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    skip(test, "needs root");
    false
}

/// Reports a test as skipped: on the error output, and in the file that `cargo xtask test` counts.
pub fn skip(test: &str, reason: &str) {
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(file) = std::env::var_os("SVC_TEST_SKIPS")
        && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(file)
    {
        // One write: several threads append.
        let _ = file.write_all(format!("{test}: {reason}\n").as_bytes());
    }
}
