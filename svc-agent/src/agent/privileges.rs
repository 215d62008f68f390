//! What the agent may do, looked at before it tries: a refused system call does not say which capability it lacks.

use std::fs;

/// A capability: its number, its name, and what takes it.
type Capability = (u32, &'static str, &'static str);

const SYS_ADMIN: u32 = 21;

const NEEDED: [Capability; 3] = [
    (39, "CAP_BPF", "making maps and loading programs"),
    (12, "CAP_NET_ADMIN", "programs for packets, and attaching them"),
    (38, "CAP_PERFMON", "the pointer arithmetic of the programs"),
];

/// Checks that this process has what it takes.
///
/// # Errors
/// With each capability that is missing.
pub fn check() -> anyhow::Result<()> {
    // Without /proc the kernel says it, in fewer words.
    let Some(effective) = effective(&fs::read_to_string("/proc/self/status").unwrap_or_default()) else {
        return Ok(());
    };
    let missing = missing(effective);
    anyhow::ensure!(
        missing.is_empty(),
        "svc-agent run lacks {}: grant it by CapabilityBoundingSet= in the unit, or securityContext.capabilities in a Pod",
        missing.join(" and ")
    );
    Ok(())
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing(effective: u64) -> Vec<String> {
    let has = |number: u32| effective >> number & 1 == 1;
    // It stands for those that were split off from it in 5.8.
    let stands_in = |number: u32| number > 37 && has(SYS_ADMIN);
    let missing = NEEDED.iter().filter(|(number, ..)| !has(*number) && !stands_in(*number));
    missing.map(|(_, name, purpose)| format!("{name} ({purpose})")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_capability_that_is_missing_is_named() {
        let all: u64 = NEEDED.iter().map(|(number, ..)| 1 << number).sum();
        assert_eq!(missing(all), [""; 0]);
        for (number, name, _) in NEEDED {
            let missing = missing(all & !(1 << number));
            assert!(missing.len() == 1 && missing[0].starts_with(name), "{missing:?}");
        }
        assert_eq!(missing(0).len(), 3);
        assert_eq!(missing(1 << SYS_ADMIN | 1 << 12), [""; 0], "as root had before 5.8");
    }

    #[test]
    fn the_kernel_tells_in_hexadecimal() {
        assert_eq!(effective("Name:\tx\nCapPrm:\t0\nCapEff:\t000000c000001000\n"), Some(0xc0_0000_1000));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
