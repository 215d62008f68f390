//! The library source that `-Z build-std` compiles for the kernel: `rust-src` of exactly the compiler's version.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::run;
use crate::rust_src;
use crate::toolchain::{self, Toolchain};

/// Where cargo looks for it, below the sysroot.
const PLACE: &str = "lib/rustlib/src/rust/library";

/// Puts the source in its place unless it is there: by rustup if it may download, else from Debian.
///
/// # Errors
/// If neither way works.
pub fn ensure(toolchain: &Toolchain) -> Result<Option<String>> {
    let place = toolchain.sysroot.join(PLACE);
    if is_complete(&place) {
        return Ok(None);
    }
    if toolchain::may_download() {
        println!("setup: rust-src: installing by rustup");
        let name = toolchain.name();
        let mut add = Command::new("rustup");
        add.args(["component", "add", "rust-src", "--toolchain", &name]);
        match run::quiet(&mut add, "trying Debian's package instead") {
            Ok(_) if is_complete(&place) => return Ok(Some("installed by rustup".to_owned())),
            Ok(_) => {
                println!("setup: rust-src: rustup says that it is installed, but {} is not there", place.display())
            }
            Err(error) => println!("setup: rust-src: {error:#}"),
        }
    }
    println!("setup: rust-src: fetching Debian's package of {}", toolchain::VERSION);
    let package = rust_src::install(&place)?;
    Ok(Some(format!("unpacked {package} into {}", place.display())))
}

/// A half-copied tree would fail late and obscurely: the lock file and the crate that is built must both be there.
fn is_complete(place: &Path) -> bool {
    place.join("Cargo.lock").is_file() && place.join("core/src/lib.rs").is_file()
}
