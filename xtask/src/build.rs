//! `cargo xtask build`: the kernel programs, then everything that runs on the host and embeds them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::toolchain::Toolchain;
use crate::{linker, run, setup};

/// The target that the kernel programs are compiled for, little endian like every machine that runs them here.
const BPF_TARGET: &str = "bpfel-unknown-none";

/// The package of the agent's kernel programs.
pub const PROGRAMS: &str = "svc-ebpf";
/// The package of the benchmarks' own.
pub const BENCHMARK_PROGRAMS: &str = "svc-bench-ebpf";

/// Debug info becomes BTF, without which the kernel neither shows the maps' types nor relocates anything.
/// bpf-linker's default, expanding memcpy in order, makes calls of byte loops out of memset and memmove.
const BPF_FLAGS: &str = "-C debuginfo=2 -C link-arg=--btf -C link-arg=--disable-expand-memcpy-in-order";

/// Arguments of the task.
#[derive(clap::Args)]
pub struct Args {
    /// Optimise the agent and svcctl, too; the kernel programs always are
    #[arg(long)]
    release: bool,
    /// Have the kernel programs log each connection and drop, for the agent's log; costs time
    #[arg(long)]
    debug_log: bool,
}

/// Builds all and says where it lies.
///
/// # Errors
/// If something is missing or does not compile.
pub fn run(args: &Args) -> Result<()> {
    let toolchain = setup::for_build()?;
    let object = if args.debug_log { logging_programs(&toolchain)? } else { kernel_programs(&toolchain)? };
    let binaries = host_binaries(&toolchain, &object, args.release)?;
    println!("kernel programs: {}", object.display());
    println!("svc-agent, svcctl, svc-dns: {}", binaries.display());
    Ok(())
}

/// Builds the object with the kernel programs, and beside it the one for older kernels, where a build of the agent looks for it;
/// returns the path of the first.
///
/// # Errors
/// If it does not compile, or comes out without type information.
pub fn kernel_programs(toolchain: &Toolchain) -> Result<PathBuf> {
    let flat = programs(toolchain, PROGRAMS, &target_dir(), &["--features", "flat"])?;
    keep(&flat, &flat.with_file_name("svc-ebpf-flat"))?;
    programs(toolchain, PROGRAMS, &target_dir(), &[])
}

/// The same for the benchmarks' own programs.
///
/// # Errors
/// As [`kernel_programs`].
pub fn benchmark_programs(toolchain: &Toolchain) -> Result<PathBuf> {
    programs(toolchain, BENCHMARK_PROGRAMS, &target_dir(), &[])
}

/// Copies an object before the next one takes its place, unless the copy is the same: whoever embeds it is built again when it changes.
fn keep(object: &Path, place: &Path) -> Result<()> {
    let bytes = std::fs::read(object)?;
    if !std::fs::read(place).is_ok_and(|old| old == bytes) {
        std::fs::write(place, bytes).with_context(|| format!("cannot write {}", place.display()))?;
    }
    Ok(())
}

/// The same with the feature `debug-log`, beside the ordinary ones.
fn logging_programs(toolchain: &Toolchain) -> Result<PathBuf> {
    programs(toolchain, PROGRAMS, &target_dir().join("debug-log"), &["--features", "debug-log"])
}

fn programs(toolchain: &Toolchain, package: &str, target: &Path, more: &[&str]) -> Result<PathBuf> {
    let mut cargo = toolchain.cargo("build");
    cargo.args(["--quiet", "--package", package, "--release", "--target", BPF_TARGET, "-Z", "build-std=core"]);
    cargo.arg("--target-dir").arg(target).args(more);
    run::loud(kernel_environment(&mut cargo)).context("the kernel programs do not build")?;
    let object = target.join(BPF_TARGET).join("release").join(package);
    let bytes = std::fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    if !bytes.windows(5).any(|window| window == b".BTF\0") {
        bail!("{} has no section .BTF; remedy: build it with bpf-linker and {BPF_FLAGS}", object.display());
    }
    Ok(object)
}

/// The command that lints kernel programs for their own target, with these features.
pub fn lint_of_kernel_programs(toolchain: &Toolchain, package: &str, features: &str) -> Command {
    let mut cargo = toolchain.cargo("clippy");
    cargo.args(["--quiet", "--package", package, "--release", "--target", BPF_TARGET, "-Z", "build-std=core"]);
    cargo.args(["--features", features, "--", "-D", "warnings"]);
    kernel_environment(&mut cargo);
    cargo
}

/// Builds the binaries that embed the object; returns their directory.
///
/// # Errors
/// If they do not compile.
pub fn host_binaries(toolchain: &Toolchain, object: &Path, release: bool) -> Result<PathBuf> {
    let mut cargo = toolchain.cargo("build");
    cargo.args(["--quiet", "--package", "svc-agent", "--package", "svc-dns", "--package", "svc-tests", "--bins"]);
    if release {
        cargo.arg("--release");
    }
    run::loud(cargo.env("SVC_EBPF_OBJECT", object)).context("the agent does not build")?;
    Ok(target_dir().join(if release { "release" } else { "debug" }))
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    let workspace = run::workspace();
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), |dir| workspace.join(dir))
}

/// `build-std` is allowed for these commands alone, and the flags reach the BPF target alone: build scripts and macros
/// are compiled for the host, and the caller's RUSTFLAGS are for the host's crates.
fn kernel_environment(cargo: &mut Command) -> &mut Command {
    cargo
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", BPF_FLAGS)
        .env("PATH", linker::search_path())
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
}
