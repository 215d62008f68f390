//! `cargo xtask setup`: every step that a fresh machine needs, each skipped if it is done.

use anyhow::{Result, bail};

use crate::toolchain::Toolchain;
use crate::{linker, packages, pins, source};

/// Does what is missing and says so.
///
/// # Errors
/// If a step failed; the others were done all the same.
pub fn run() -> Result<()> {
    let done = steps()?;
    if done.problems.is_empty() {
        println!("setup: complete");
        return Ok(());
    }
    bail!("setup is incomplete, not done: {}", done.problems.join(", "))
}

/// The compiler to build with, for tasks that come after the set-up.
///
/// # Errors
/// If something is missing without which nothing can be built.
pub fn for_build() -> Result<Toolchain> {
    let done = steps()?;
    let vital = ["rust-src", "bpf-linker"];
    if let Some(step) = done.problems.iter().find(|step| vital.contains(step)) {
        bail!("nothing can be built without {step}; its problem is above");
    }
    Ok(done.toolchain)
}

struct Done {
    toolchain: Toolchain,
    /// Names of the steps that failed.
    problems: Vec<&'static str>,
}

fn steps() -> Result<Done> {
    let toolchain = Toolchain::find()?;
    let mut problems = Vec::new();
    let mut step = |name: &'static str, result: Result<Option<String>>| match result {
        Ok(None) => {}
        Ok(Some(what)) => println!("setup: {name}: {what}"),
        Err(error) => {
            println!("setup: {name}: {error:#}");
            problems.push(name);
        }
    };
    step("packages", packages::ensure());
    step("bpffs", pins::ensure());
    step("rust-src", source::ensure(&toolchain));
    step("bpf-linker", linker::ensure(&toolchain));
    Ok(Done { toolchain, problems })
}
