//! Debian packages that the demo and the tests run programs of.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

/// A program that must be there, and the Debian package that has it. What provides the program does not matter.
const PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("tc", "iproute2"),
    ("ethtool", "ethtool"),
    ("curl", "curl"),
    ("iperf3", "iperf3"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ipvsadm", "ipvsadm"),
    ("tcpdump", "tcpdump"),
    ("ping", "iputils-ping"),
    ("nc.openbsd", "netcat-openbsd"),
    ("sysctl", "procps"),
    ("dig", "bind9-dnsutils"),
    ("setpriv", "util-linux"),
    ("nsenter", "util-linux"),
    ("chrt", "util-linux"),
    ("bpftool", "bpftool"),
    ("bird", "bird2"),
    ("arping", "arping"),
    ("ndisc6", "ndisc6"),
    ("vtysh", "frr"),
    ("promtool", "prometheus"),
    ("strace", "strace"),
];

/// Installs what is missing, after one update of apt's index if it is needed.
///
/// # Errors
/// If something is missing and cannot be installed.
pub fn ensure() -> Result<Option<String>> {
    let mut missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| run::which(program).is_none()).map(|(_, package)| *package).collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(None);
    }
    let names = missing.join(" ");
    if run::which("apt-get").is_none() {
        bail!(
            "missing programs of the Debian packages {names}, and there is no apt-get\n  remedy: install them as this system does"
        );
    }
    if !run::is_root() {
        bail!("missing packages: {names}\n  remedy: as root, run apt-get install {names}");
    }
    println!("setup: packages: installing {names}");
    let has_index = Path::new("/var/lib/apt/lists").read_dir().is_ok_and(|entries| entries.count() > 3);
    if has_index && install(&missing).is_ok() {
        return Ok(Some(format!("installed {names}")));
    }
    println!("setup: packages: updating apt's index");
    run::quiet(Command::new("apt-get").args(["-q", "update"]), "repair the sources in /etc/apt")?;
    install(&missing)?;
    Ok(Some(format!("installed {names}")))
}

fn install(packages: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-y", "--no-install-recommends", "install"])
        .args(packages);
    run::quiet(&mut apt, "run the command by hand and follow what it says").map(|_| ())
}
