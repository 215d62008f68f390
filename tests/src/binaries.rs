//! Where the programs under test and the test servers lie: beside this test's own executable.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A binary of the workspace, as a command.
///
/// # Errors
/// If it has not been built.
pub fn command(name: &str) -> Result<Command> {
    Ok(Command::new(path(name)?))
}

/// A binary of the workspace.
///
/// # Errors
/// If it has not been built.
pub fn path(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this executable")?;
    let mut dir = own.parent().context("this executable has no directory")?;
    if dir.ends_with("deps") {
        dir = dir.parent().context("cargo's `deps` has no parent")?;
    }
    let path = dir.join(name);
    if !path.is_file() {
        bail!("{} is missing; remedy: run `cargo xtask test`, which builds it", path.display());
    }
    Ok(path)
}
