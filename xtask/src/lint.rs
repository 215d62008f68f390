//! `cargo xtask lint`: format, lints of either target, documentation. Nothing is tolerated.

use anyhow::{Context, Result};

use crate::{build, run, setup};

/// Checks everything that can be checked without running it.
///
/// # Errors
/// At the first check that has something to say.
pub fn run() -> Result<()> {
    let toolchain = setup::for_build()?;
    let mut format = toolchain.cargo("fmt");
    run::loud(format.args(["--all", "--check"])).context("remedy: cargo fmt --all")?;
    let object = build::kernel_programs(&toolchain)?;
    build::lint_kernel_programs(&toolchain)?;
    let mut clippy = toolchain.cargo("clippy");
    clippy.args(["--quiet", "--all-targets", "--locked", "--", "-D", "warnings"]);
    run::loud(clippy.env("SVC_EBPF_OBJECT", &object))?;
    let mut doc = toolchain.cargo("doc");
    doc.args(["--quiet", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings");
    run::loud(doc.env("SVC_EBPF_OBJECT", &object))
}
