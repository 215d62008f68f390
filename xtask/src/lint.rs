//! `cargo xtask lint`: format, lints of either target, documentation. Nothing is tolerated.

use anyhow::{Result, bail};

use crate::{build, run, setup};

/// Checks everything that can be checked without running it.
///
/// # Errors
/// If a check has something to say; the others were made all the same.
pub fn run() -> Result<()> {
    let toolchain = setup::for_build()?;
    let object = build::kernel_programs(&toolchain)?;
    let mut format = toolchain.cargo("fmt");
    format.args(["--all", "--check"]);
    let mut clippy = toolchain.cargo("clippy");
    clippy.args(["--quiet", "--all-targets", "--locked", "--", "-D", "warnings"]).env("SVC_EBPF_OBJECT", &object);
    let mut doc = toolchain.cargo("doc");
    doc.args(["--quiet", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings").env("SVC_EBPF_OBJECT", &object);
    let mut failed = 0;
    let programs = [
        (build::PROGRAMS, ""),
        (build::PROGRAMS, "debug-log"),
        (build::PROGRAMS, "flat"),
        (build::BENCHMARK_PROGRAMS, ""),
    ];
    let programs = programs.map(|(package, features)| build::lint_of_kernel_programs(&toolchain, package, features));
    for mut check in [format].into_iter().chain(programs).chain([clippy, doc]) {
        println!("lint: {}", run::shown(&check));
        if let Err(error) = run::loud(&mut check) {
            println!("lint: {error:#}");
            failed += 1;
        }
    }
    if failed > 0 {
        bail!("{failed} of the checks above failed");
    }
    Ok(())
}
