//! Names that no other test uses, and the removal of what dead test processes left behind.

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{cgroup, netns};

/// What the names of everything that tests make begin with.
const MARK: &str = "svct-";

/// A name for one world: `svct-<process>-<number>`. The first call removes what dead processes left.
pub fn name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static SWEEP: Once = Once::new();
    SWEEP.call_once(sweep);
    format!("{MARK}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Where the agent of a world pins its maps.
pub fn pin_dir(name: &str) -> PathBuf {
    Path::new("/sys/fs/bpf").join(name)
}

fn sweep() {
    for name in netns::list(MARK).iter().filter(|name| is_stale(name)) {
        netns::remove(name);
    }
    for entry in cgroup::root().and_then(|root| std::fs::read_dir(root).ok()).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_stale) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
    for dir in [PathBuf::from("/sys/fs/bpf"), std::env::temp_dir()] {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.filter_map(Result::ok) {
            if entry.file_name().to_str().is_some_and(is_stale) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Whether it is named after a process that is gone.
fn is_stale(name: &str) -> bool {
    let pid = name.strip_prefix(MARK).and_then(|rest| rest.split('-').next());
    pid.and_then(|pid| pid.parse::<u32>().ok()).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_dead_processes_are_stale() {
        assert!(!is_stale(&name()));
        assert!(!is_stale("svct-x-1") && !is_stale("other-999999999"));
        assert!(is_stale("svct-999999999-0-client"));
    }
}
