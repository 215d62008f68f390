//! `cargo xtask vm`: the tests, or any command, under another kernel in a virtual machine.

mod guest;
mod kernel;
mod machine;
mod modules;
mod qemu;
mod table;
pub mod tests;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::toolchain::Toolchain;
use crate::{build, run, setup, test};
use machine::Parts;

/// Arguments of the task.
#[derive(clap::Args)]
pub struct Args {
    /// A series of Debian's kernels such as 5.10, 6.1, 6.12 or 7.2, or the path of a kernel image
    #[arg(long, required_unless_present = "table")]
    kernel: Option<String>,
    /// With the path of a kernel image: the directory of its modules (.../lib/modules/RELEASE)
    #[arg(long)]
    modules: Option<PathBuf>,
    /// Asks every supported kernel what it can do, and writes the table into docs/operations.md
    #[arg(long, conflicts_with_all = ["kernel", "command"])]
    table: bool,
    /// Seconds after which the machine is stopped
    #[arg(long, default_value_t = 900)]
    limit: u64,
    /// MiB of memory
    #[arg(long, default_value_t = 3072)]
    memory: u32,
    /// Runs in the machine instead of the packet and namespace tests: a line for sh, or a command and its arguments. The
    /// test binaries go by their names (packets, namespaces, lifecycle), the benchmarks by `bench`; `pktgen [PACKETS [FLOWS]]`
    /// sends packets of the kernel's generator through XDP
    #[arg(last = true)]
    command: Vec<String>,
}

/// Packets that are compared in a guest: an emulated processor takes milliseconds for each.
const PACKETS: u32 = 20_000;
/// What runs without a command. Each test has its programs verified anew, which takes an emulated processor a minute: so every
/// program and hook once, the random histories, which reach every stage, and real sockets from inside and outside, XDP first.
const TESTS: &str = "packets kernel:: random_histories && \
     SVC_TEST_SETTING=Xdp namespaces --test-threads 1 b28_remote_backends";

/// Boots, runs, and ends with the command's status.
///
/// # Errors
/// If the machine cannot be made or does not come to an end in time.
pub fn run(args: &Args) -> Result<()> {
    let toolchain = setup::for_build()?;
    qemu::ensure()?;
    let limit = Duration::from_secs(args.limit);
    if args.table {
        let kernels = table::kernels()?;
        let object = build::kernel_programs(&toolchain)?;
        let binaries = build::host_binaries(&toolchain, &object, false)?;
        return table::write(&kernels, &Parts { binaries, ..Parts::default() }, limit);
    }
    // First, as it may be missing; the build takes longer.
    let wanted = args.kernel.as_deref().context("--kernel is missing")?;
    let kernel = kernel::Kernel::find(wanted, args.modules.as_deref(), &machine::work())?;
    println!("vm: kernel {}", kernel.release);
    let script = match args.command.as_slice() {
        [] => format!("export SVC_ORACLE_PACKETS={PACKETS}; {TESTS}"),
        [script] => script.clone(),
        words => words.iter().map(|word| run::quoted(word)).collect::<Vec<_>>().join(" "),
    };
    let parts = build(&toolchain, &script)?;
    let status =
        machine::run(&kernel, &parts, &script, qemu::Size { cpus: 2, memory: args.memory }, limit, &mut |line| {
            println!("{line}")
        })?;
    match status {
        0 => Ok(()),
        status => bail!("`{script}` failed with exit status {status} on kernel {}", kernel.release),
    }
}

/// Builds what a script may run; test binaries, which take longest, only if it names one.
fn build(toolchain: &Toolchain, script: &str) -> Result<Parts> {
    let object = build::kernel_programs(toolchain)?;
    let names = |word: &str| script.split([' ', ';', '&', '|', '(', ')', '\n']).any(|part| part == word);
    let mut parts = Parts { binaries: build::host_binaries(toolchain, &object, false)?, ..Parts::default() };
    if ["packets", "namespaces", "lifecycle"].iter().any(|name| names(name)) {
        parts.tests = test::privileged_binaries(toolchain, &object)?;
    }
    if names("bench") {
        parts.benchmark_programs = Some(build::benchmark_programs(toolchain)?);
    }
    Ok(parts)
}
