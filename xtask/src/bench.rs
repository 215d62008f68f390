//! `cargo xtask bench`: builds with optimisation, then becomes the benchmark.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build, run, setup};

/// Arguments of the task.
#[derive(clap::Args)]
pub struct Args {
    /// What to measure, and its options; everything, if nothing is named
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    what: Vec<String>,
}

/// Sets up, builds and measures; never returns if the benchmark starts.
///
/// # Errors
/// If something is missing or does not build.
pub fn run(args: &Args) -> Result<()> {
    // A smoke run measures nothing, and needs no build of its own.
    let quick = args.what.iter().any(|arg| arg == "--quick");
    if !run::is_root() {
        if quick {
            println!("SKIPPED benchmarks: they load BPF programs, which needs root");
            return Ok(());
        }
        bail!("benchmarks load BPF programs; remedy: run them as root");
    }
    let toolchain = setup::for_build()?;
    let object = build::kernel_programs(&toolchain)?;
    let own = build::benchmark_programs(&toolchain)?;
    let binary = build::host_binaries(&toolchain, &object, !quick)?.join("svc-bench");
    let mut bench = Command::new(&binary);
    bench.current_dir(run::workspace()).args(&args.what);
    bench.env("SVC_EBPF_OBJECT", &object).env("SVC_BENCH_OBJECT", &own);
    Err(bench.exec()).with_context(|| format!("cannot run {}", binary.display()))
}
