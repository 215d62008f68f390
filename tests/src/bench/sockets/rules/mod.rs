//! What kube-proxy writes into the node's namespace: rules of packet filters, or services of the kernel's own balancer.

mod iptables;
mod ipvs;
mod nftables;

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::services::Services;
use super::stage::Stage;

/// Bit that marks packets whose source is to be replaced.
const MASQUERADE: &str = "0x4000";

/// What kube-proxy has do the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// nftables with verdict maps.
    Nftables,
    /// iptables' rules in nftables.
    IptablesNft,
    /// iptables' own tables.
    IptablesLegacy,
    /// The kernel's balancer.
    Ipvs,
}

impl Filter {
    /// Loads the rules for these services.
    ///
    /// # Errors
    /// If the tool is missing or refuses them.
    pub fn load(self, stage: &Stage, services: Services) -> Result<()> {
        let (command, text) = match self {
            Self::Nftables => (["nft", "-f", "-"].as_slice(), nftables::rules(services)),
            Self::IptablesNft => (["iptables-nft-restore"].as_slice(), iptables::rules(services)),
            Self::IptablesLegacy => (["iptables-legacy-restore", "-w"].as_slice(), iptables::rules(services)),
            Self::Ipvs => return ipvs::load(stage, services),
        };
        feed(stage, command, &text)
    }

    /// Why it cannot be used on this kernel, if so.
    pub fn missing(self, stage: &Stage) -> Option<String> {
        match self {
            Self::Nftables => feed(stage, &["nft", "-f", "-"], "table ip probe {}\ndelete table ip probe\n"),
            Self::IptablesNft => feed(stage, &["iptables-nft", "-t", "nat", "-S"], ""),
            Self::IptablesLegacy => feed(stage, &["iptables-legacy", "-t", "nat", "-S"], ""),
            Self::Ipvs => ipvs::probe(stage),
        }
        .err()
        .map(|error| format!("{error:#}"))
    }
}

fn feed(stage: &Stage, command: &[&str], text: &str) -> Result<()> {
    let [program, args @ ..] = command else { bail!("no command") };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = stage.node.ns.spawn(&mut command).with_context(|| format!("cannot run {program}"))?;
    // Whoever refuses the first line does not read the rest.
    let written = child.stdin.take().context("no pipe")?.write_all(text.as_bytes());
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said: String = String::from_utf8_lossy(&output.stderr).chars().take(400).collect();
        bail!("{program}: {said}");
    }
    written.with_context(|| format!("cannot write to {program}"))
}
