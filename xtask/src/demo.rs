//! `cargo xtask demo`: builds, then becomes the demo.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build, run, setup};

/// Arguments of the task.
#[derive(clap::Args)]
pub struct Args {
    /// Leave the world up at the end, and say how to play with it
    #[arg(long)]
    keep: bool,
    /// Remove a world that was left up
    #[arg(long, conflicts_with = "keep")]
    down: bool,
}

/// Sets up, builds and shows; never returns if the demo starts.
///
/// # Errors
/// If something is missing or does not build.
pub fn run(args: &Args) -> Result<()> {
    if !run::is_root() {
        bail!("the demo makes network namespaces and loads BPF programs; remedy: run it as root");
    }
    let built = build::target_dir().join("debug/svc-demo");
    let binary = if args.down && built.exists() {
        built
    } else {
        let toolchain = setup::for_build()?;
        let object = build::kernel_programs(&toolchain)?;
        build::host_binaries(&toolchain, &object, false)?.join("svc-demo")
    };
    let mut demo = Command::new(&binary);
    demo.current_dir(run::workspace());
    for (given, flag) in [(args.keep, "--keep"), (args.down, "--down")] {
        if given {
            demo.arg(flag);
        }
    }
    // Replaces this process, so that a Ctrl-C reaches the demo alone and the shell waits for its clearing up.
    Err(demo.exec()).with_context(|| format!("cannot run {}", binary.display()))
}
