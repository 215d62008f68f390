//! The BPF file system, where the agent's maps and links outlive it.

use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

const PLACE: &str = "/sys/fs/bpf";

/// Mounts it unless it is there.
///
/// # Errors
/// If it cannot be mounted.
pub fn ensure() -> Result<Option<String>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if is_mounted(&mounts) {
        return Ok(None);
    }
    let mut mount = Command::new("mount");
    mount.args(["-t", "bpf", "bpf", PLACE]);
    if !run::is_root() {
        bail!("no BPF file system at {PLACE}\n  remedy: as root, run {}", run::shown(&mount));
    }
    println!("setup: bpffs: mounting it at {PLACE}");
    run::quiet(&mut mount, "use a kernel with CONFIG_BPF_SYSCALL, outside of a container without SYS_ADMIN")?;
    Ok(Some(format!("mounted at {PLACE}")))
}

fn is_mounted(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(PLACE) && fields.next() == Some("bpf")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bpf_file_system_at_the_right_place_counts() {
        assert!(is_mounted("proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw,mode=700 0 0\n"));
        assert!(!is_mounted("bpf /mnt bpf rw 0 0\ntmpfs /sys/fs/bpf tmpfs rw 0 0\n"));
    }
}
