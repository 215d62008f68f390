//! bpf-linker, which turns LLVM bitcode into a BPF object.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::run;
use crate::toolchain::Toolchain;

/// The version whose default features use the compiler's own LLVM; later ones want one of the system.
const VERSION: &str = "0.10.3";

/// Installs the linker unless it is there.
///
/// # Errors
/// If it cannot be built.
pub fn ensure(toolchain: &Toolchain) -> Result<Option<String>> {
    let installed = installed();
    if installed.as_deref() == Some(VERSION) {
        return Ok(None);
    }
    let found = installed.map_or_else(|| "not there".to_owned(), |version| format!("found {version}"));
    println!("setup: bpf-linker: {found}, building {VERSION} (about two minutes)");
    let mut install = toolchain.cargo("install");
    // `--force` replaces another version; RUSTFLAGS of the caller's are for his crates.
    install.args(["--quiet", "--locked", "--force", &format!("bpf-linker@{VERSION}")]).env_remove("RUSTFLAGS");
    run::quiet(&mut install, "check that this machine reaches the crate registry, then run the command by hand")?;
    Ok(Some(format!("built {VERSION}")))
}

/// PATH with cargo's own directory of binaries, where rustc then finds the linker.
pub fn search_path() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).chain(cargo_bin()).collect();
    std::env::join_paths(dirs).unwrap_or(path)
}

fn cargo_bin() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"))).map(|home| home.join("bin"))
}

fn installed() -> Option<String> {
    let line = run::asked(Command::new("bpf-linker").arg("--version").env("PATH", search_path()))?;
    line.split_whitespace().nth(1).map(str::to_owned)
}
