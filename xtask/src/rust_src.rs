//! `rust-src` out of Debian's archive.
//!
//! The package of the right version lies in a newer suite than the machine's and conflicts with the package `rustup`, so
//! it is downloaded and unpacked, not installed.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::apt::Apt;
use crate::toolchain::VERSION;

/// The suite that has `rust-src` of our version.
const SUITE: &str = "trixie-backports";
const REMEDY: &str = "give this machine a Debian source that it reaches and that carries the suite trixie-backports, or \
                      run `rustup component add rust-src` where rustup may download";

/// Unpacks the library source into `place`, all or nothing; returns the package's name and version.
///
/// # Errors
/// If the archive cannot be found or reached, does not have the version, or `place` cannot be written.
pub fn install(place: &Path) -> Result<String> {
    let parent = place.parent().context("the sysroot has no parent directory")?;
    std::fs::create_dir_all(parent)
        .with_context(|| format!("cannot create {}; remedy: run as the owner of the toolchain", parent.display()))?;
    // Beside its destination, so that the last step is a rename within one file system.
    let work = parent.join(format!(".svc-setup-{}", std::process::id()));
    let result = fetch_and_unpack(&work, place);
    let _ = std::fs::remove_dir_all(&work);
    result.context(REMEDY)
}

fn fetch_and_unpack(work: &Path, place: &Path) -> Result<String> {
    let apt = Apt::of_suites(work, &[SUITE])?;
    let table = apt.versions("rust-src")?;
    let Some(version) = pick(&table) else {
        bail!("the suite {SUITE} has no rust-src {VERSION}, only:\n{table}");
    };
    let package = format!("rust-src={version}");
    let unpacked = work.join("unpacked");
    apt.unpack(&package, &unpacked)?;
    let library = unpacked.join(format!("usr/src/rustc-{VERSION}/library"));
    if place.exists() {
        std::fs::remove_dir_all(place).with_context(|| format!("cannot replace {}", place.display()))?;
    }
    std::fs::rename(&library, place)
        .with_context(|| format!("cannot move {} to {}", library.display(), place.display()))?;
    Ok(package)
}

/// The newest packaging of our version in the table that `apt-cache madison` prints, which is sorted newest first.
fn pick(table: &str) -> Option<&str> {
    let wanted = format!("{VERSION}+");
    table.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim).find(|version| version.starts_with(&wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_our_version_is_picked() {
        let table = "  rust-src | 1.96.1+dfsg1-1~bpo13+1 | http://a.example trixie-backports/main amd64 Packages\n\
                     \x20 rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://a.example trixie-backports/main amd64 Packages\n\
                     \x20 rust-src | 1.95.0+dfsg1-1~bpo13+1 | http://a.example trixie-backports/main amd64 Packages\n";
        assert_eq!(pick(table), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(pick(""), None);
    }
}
