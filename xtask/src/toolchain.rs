//! The one compiler that everything is built with, and cargo commands that use it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

/// The compiler's exact version: bpf-linker must speak its LLVM, and `-Z build-std` wants the library source of exactly
/// this release.
pub const VERSION: &str = "1.95.0";

/// A compiler of the right version.
#[derive(Debug)]
pub struct Toolchain {
    /// What rustup calls it, unless it is the one in use anyway.
    name: Option<String>,
    /// Where its libraries lie.
    pub sysroot: PathBuf,
}

impl Toolchain {
    /// Finds the compiler, and installs it by rustup if need be.
    ///
    /// # Errors
    /// If there is none and it cannot be installed.
    pub fn find() -> Result<Self> {
        let current = version_of(&mut Command::new("rustc"));
        if current.as_deref() == Some(VERSION) {
            return Self::new(None);
        }
        let current = current.map_or_else(|| "no rustc".to_owned(), |version| format!("rustc {version}"));
        for name in [VERSION, "stable"] {
            if version_of(&mut rustup_rustc(name)).as_deref() == Some(VERSION) {
                println!("setup: compiler: found {current}, using rustup's toolchain `{name}`, which is {VERSION}");
                return Self::new(Some(name.to_owned()));
            }
        }
        if !may_download() {
            bail!(
                "compiler: found {current}, expected {VERSION}, and rustup is missing or may not download \
                 (RUSTUP_AUTO_INSTALL=0)\n  remedy: rustup toolchain install {VERSION}"
            );
        }
        println!("setup: compiler: found {current}, installing {VERSION} by rustup");
        let mut install = Command::new("rustup");
        install.args(["toolchain", "install", VERSION, "--profile", "minimal", "-c", "rustfmt", "-c", "clippy"]);
        run::quiet(&mut install, "check that this machine reaches rustup's server, then run the command by hand")?;
        Self::new(Some(VERSION.to_owned()))
    }

    fn new(name: Option<String>) -> Result<Self> {
        let mut rustc = Command::new("rustc");
        if let Some(name) = &name {
            rustc.env("RUSTUP_TOOLCHAIN", name);
        }
        let sysroot = run::quiet(rustc.args(["--print", "sysroot"]), "repair the Rust toolchain")?;
        Ok(Self { name, sysroot: PathBuf::from(sysroot.trim()) })
    }

    /// What rustup calls it, for commands that take a name.
    pub fn name(&self) -> String {
        self.name.clone().or_else(|| std::env::var("RUSTUP_TOOLCHAIN").ok()).unwrap_or_else(|| VERSION.to_owned())
    }

    /// A cargo command in the workspace, free of what the cargo that runs this task put into the environment.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.arg(subcommand).current_dir(run::workspace());
        if let Some(name) = &self.name {
            cargo.env("RUSTUP_TOOLCHAIN", name);
        }
        for (key, _) in std::env::vars_os() {
            let text = key.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO" {
                cargo.env_remove(key);
            }
        }
        cargo
    }
}

/// Whether rustup is there and not told to leave the network alone.
pub fn may_download() -> bool {
    std::env::var_os("RUSTUP_AUTO_INSTALL").is_none_or(|value| value != "0") && run::which("rustup").is_some()
}

fn rustup_rustc(name: &str) -> Command {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", name, "rustc"]);
    rustc
}

fn version_of(rustc: &mut Command) -> Option<String> {
    let line = run::asked(rustc.arg("--version"))?;
    line.split(' ').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_second_word() {
        assert_eq!(
            version_of(Command::new("echo").arg("rustc 1.95.0 (59807616e 2026-04-14)")).as_deref(),
            Some("1.95.0")
        );
        assert_eq!(version_of(&mut Command::new("svct-no-such-program")), None);
    }

    #[test]
    fn the_workspace_promises_the_same_version() {
        let manifest = std::fs::read_to_string(run::workspace().join("Cargo.toml")).unwrap();
        let line = manifest.lines().find(|line| line.starts_with("rust-version")).unwrap();
        assert!(line.contains(VERSION.trim_end_matches(".0")), "{line}");
    }
}
