//! `cargo xtask vm`: the tests, or any command, under another kernel in a virtual machine.

mod guest;
mod kernel;
mod modules;
mod qemu;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{build, run, setup, test};
use guest::Guest;
use kernel::Kernel;

/// Arguments of the task.
#[derive(clap::Args)]
pub struct Args {
    /// A series of Debian's kernels such as 5.10, 6.1, 6.12 or 7.2, or the path of a kernel image
    #[arg(long)]
    kernel: String,
    /// With the path of a kernel image: the directory of its modules (.../lib/modules/RELEASE)
    #[arg(long)]
    modules: Option<PathBuf>,
    /// Seconds after which the machine is stopped
    #[arg(long, default_value_t = 900)]
    limit: u64,
    /// MiB of memory
    #[arg(long, default_value_t = 3072)]
    memory: u32,
    /// Runs in the machine instead of the packet and namespace tests: a line for sh, or a command and its arguments. The
    /// test binaries go by their names (packets, namespaces, lifecycle)
    #[arg(last = true)]
    command: Vec<String>,
}

/// Boots, runs, and ends with the command's status.
///
/// # Errors
/// If the machine cannot be made or does not come to an end in time.
pub fn run(args: &Args) -> Result<()> {
    let toolchain = setup::for_build()?;
    qemu::ensure()?;
    let object = build::kernel_programs(&toolchain)?;
    let binaries = build::host_binaries(&toolchain, &object, false)?;
    let work = build::target_dir().join("vm");
    let kernel = Kernel::find(&args.kernel, args.modules.as_deref(), &work)?;
    println!("vm: kernel {}", kernel.release);
    let mut guest = Guest::new()?;
    for module in modules::WANTED {
        guest.module(&kernel, module)?;
    }
    for program in ["svc-agent", "svcctl", "svc-testpod", "svc-bench"] {
        guest.binary(program, &binaries.join(program))?;
    }
    let tests = test::privileged_binaries(&toolchain, &object)?;
    for (name, file) in &tests {
        guest.binary(name, file)?;
    }
    let script = match args.command.as_slice() {
        [] => "packets && namespaces".to_owned(),
        [script] => script.clone(),
        words => words.iter().map(|word| run::quoted(word)).collect::<Vec<_>>().join(" "),
    };
    let initramfs = work.join(format!("initramfs-{}.cpio", std::process::id()));
    guest.write(&script, &initramfs)?;
    let result = qemu::boot(&kernel.image, &initramfs, args.memory, Duration::from_secs(args.limit));
    let _ = std::fs::remove_file(&initramfs);
    match result.with_context(|| format!("the machine with kernel {}", kernel.release))? {
        0 => Ok(()),
        status => bail!("`{script}` failed with exit status {status} on kernel {}", kernel.release),
    }
}
