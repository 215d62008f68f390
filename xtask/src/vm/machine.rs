//! One machine from its parts: the guest's files, the boot, the end.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::guest::Guest;
use super::kernel::Kernel;
use super::{modules, qemu};
use crate::build;

/// Ours in a guest, besides the tests.
const PROGRAMS: &[&str] =
    &["svc-agent", "svcctl", "svc-testpod", "svc-testsock", "svc-testkernel", "svc-testload", "svc-bench"];

/// Scripts of a guest, which run like programs. By bash: the shell of busybox takes its own `ip` for that of iproute2.
const SCRIPTS: &[(&str, &str)] = &[
    ("pktgen", concat!("#!/bin/bash\n", include_str!("pktgen.sh"))),
    ("bench", "#!/bin/bash\nSVC_BENCH_OBJECT=/svc/benchmark-programs exec svc-bench \"$@\"\n"),
];

/// What has been built.
#[derive(Debug, Default)]
pub struct Parts {
    /// The directory of our programs.
    pub binaries: PathBuf,
    /// The test binaries that need root, by name.
    pub tests: Vec<(String, PathBuf)>,
    /// The benchmarks' kernel programs, if they are wanted.
    pub benchmark_programs: Option<PathBuf>,
}

/// Where kernels are kept.
pub fn work() -> PathBuf {
    build::target_dir().join("vm")
}

/// Boots a kernel and runs a script; tells each line of the console, and returns the script's status.
///
/// # Errors
/// If the machine cannot be made, panics, or takes longer than `limit`.
pub fn run(
    kernel: &Kernel,
    parts: &Parts,
    script: &str,
    size: qemu::Size,
    limit: Duration,
    told: &mut dyn FnMut(&str),
) -> Result<u8> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mut guest = Guest::new()?;
    for module in modules::WANTED {
        guest.module(kernel, module)?;
    }
    for program in PROGRAMS {
        guest.binary(program, &parts.binaries.join(program))?;
    }
    for (name, file) in &parts.tests {
        guest.binary(name, file)?;
    }
    for (name, script) in SCRIPTS {
        guest.file(&format!("svc/{name}"), script.as_bytes().to_vec());
    }
    if let Some(object) = &parts.benchmark_programs {
        let content = std::fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
        guest.file("svc/benchmark-programs", content);
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let initramfs = work().join(format!("initramfs-{}-{number}.cpio", std::process::id()));
    guest.write(script, &initramfs)?;
    let machine = qemu::Machine { kernel: &kernel.image, initramfs: &initramfs, size, limit };
    let result = qemu::boot(&machine, told);
    let _ = std::fs::remove_file(&initramfs);
    result.with_context(|| format!("the machine with kernel {}", kernel.release))
}
