//! Puts the kernel programs into the agent.
//!
//! `SVC_EBPF_OBJECT` names the object file that `cargo xtask build` made. Without it the object is empty: everything
//! that needs no kernel builds and tests, and `svc-agent run` says what is missing.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

const OBJECT: &str = "SVC_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT}");
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        fail("cargo did not set OUT_DIR");
    };
    let object = env::var_os(OBJECT).filter(|path| !path.is_empty()).map(PathBuf::from);
    put(object.as_deref(), &out.join("svc-ebpf.o"));
    // Beside it lies the one for older kernels, if it was made.
    let flat = object.map(|path| path.with_file_name("svc-ebpf-flat")).filter(|path| path.exists());
    put(flat.as_deref(), &out.join("svc-ebpf-flat.o"));
}

/// Copies an object, or makes an empty one.
fn put(object: Option<&Path>, place: &Path) {
    let bytes = match object {
        None => Vec::new(),
        Some(path) => {
            println!("cargo::rerun-if-changed={}", path.display());
            fs::read(path).unwrap_or_else(|error| {
                fail(&format!("cannot read `{}`, named by {OBJECT}: {error}; run `cargo xtask build`", path.display()))
            })
        }
    };
    if let Err(error) = fs::write(place, bytes) {
        fail(&format!("cannot write `{}`: {error}", place.display()));
    }
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    process::exit(1)
}
