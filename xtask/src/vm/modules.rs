//! Kernel modules and what they depend on, read from the modules themselves: Debian makes `modules.dep` on installation.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;

/// What tests use if the kernel has it as a module.
pub const WANTED: &[&str] = &[
    "veth",
    "bridge",
    "vxlan",
    "geneve",
    "ipip",
    "ip6_tunnel",
    "dummy",
    "8021q",
    "macvlan",
    "cls_bpf",
    "sch_ingress",
    "sch_netem",
    "af_packet",
    "udp_diag",
    "tcp_diag",
    "sctp_diag",
    "crc32c_generic",
    "crc32c_cryptoapi",
    "libcrc32c",
    "sctp",
    "ip_vs",
    "ip_vs_rr",
    "pktgen",
    "nf_tables",
    "nft_nat",
    "nft_numgen",
    "nft_chain_nat",
    "nft_ct",
    "nft_masq",
    "nft_reject_ipv4",
    "nf_conntrack",
];

/// A module's file below the kernel's module directory; nothing if it is built in or does not exist.
pub fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let same = |file: &str| {
        let stem = file.split_once(".ko").map(|(stem, _)| stem);
        stem.is_some_and(|stem| stem.replace('-', "_") == name.replace('-', "_"))
    };
    let mut dirs = vec![dir.join("kernel")];
    while let Some(dir) = dirs.pop() {
        for entry in dir.read_dir().ok()?.filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(entry.path());
            } else if entry.file_name().to_str().is_some_and(same) {
                return Some(entry.path());
            }
        }
    }
    None
}

/// The module itself, unpacked.
///
/// # Errors
/// If it cannot be read.
pub fn read(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_some_and(|ext| ext == "xz") {
        let mut xz = Command::new("xz");
        let output =
            xz.args(["-dc"]).arg(file).output().with_context(|| format!("cannot run `{}`", run::shown(&xz)))?;
        return Ok(output.stdout);
    }
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Names of the modules that a module needs (section `.modinfo`, `depends=a,b`).
pub fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let rest = module.get(start + KEY.len()..).unwrap_or_default();
    let list = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(list).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_module() {
        assert_eq!(
            depends(b"x\0license=GPL\0depends=udp_tunnel,ip6_udp_tunnel\0name=vxlan\0"),
            ["udp_tunnel", "ip6_udp_tunnel"]
        );
        assert!(depends(b"x\0depends=\0").is_empty() && depends(b"x").is_empty());
    }
}
