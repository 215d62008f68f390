//! Puts the kernel programs into the agent.
//!
//! `SVC_EBPF_OBJECT` names the object file that `cargo xtask build` made. Without it the object is empty: everything
//! that needs no kernel builds and tests, and `svc-agent run` says what is missing.

use std::path::PathBuf;
use std::{env, fs, process};

const OBJECT: &str = "SVC_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT}");
    let Some(out) = env::var_os("OUT_DIR").map(|dir| PathBuf::from(dir).join("svc-ebpf.o")) else {
        fail("cargo did not set OUT_DIR");
    };
    let object = match env::var_os(OBJECT).filter(|path| !path.is_empty()).map(PathBuf::from) {
        None => Vec::new(),
        Some(path) => {
            println!("cargo::rerun-if-changed={}", path.display());
            fs::read(&path).unwrap_or_else(|error| {
                fail(&format!("cannot read `{}`, named by {OBJECT}: {error}; run `cargo xtask build`", path.display()))
            })
        }
    };
    if let Err(error) = fs::write(&out, object) {
        fail(&format!("cannot write `{}`: {error}", out.display()));
    }
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    process::exit(1)
}
