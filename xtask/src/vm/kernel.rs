//! Kernels: Debian's cloud flavour of a series, fetched once, or an image that the user names.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::apt::Apt;

/// Suites of Debian that have had kernels, oldest first.
const SUITES: &[&str] = &[
    "bullseye",
    "bullseye-security",
    "bookworm",
    "bookworm-security",
    "bookworm-backports",
    "trixie",
    "trixie-security",
    "forky",
];

/// A kernel and its modules.
#[derive(Debug)]
pub struct Kernel {
    /// What `uname -r` says.
    pub release: String,
    /// The bzImage.
    pub image: PathBuf,
    /// The directory with its modules.
    pub modules: PathBuf,
}

impl Kernel {
    /// Finds the kernel: an image by its path, or the newest of a series, in `work` or from Debian.
    ///
    /// # Errors
    /// If there is no such kernel.
    pub fn find(wanted: &str, modules: Option<&Path>, work: &Path) -> Result<Self> {
        if wanted.contains('/') {
            let modules = modules.context("--kernel PATH needs --modules DIR, the directory lib/modules/RELEASE")?;
            let release = modules.file_name().context("--modules names no directory")?.to_string_lossy().into_owned();
            return Ok(Self { release, image: wanted.into(), modules: modules.into() });
        }
        if !wanted.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())) {
            bail!("`{wanted}` is neither a series such as 6.12 nor a path");
        }
        let place = work.join("kernels").join(wanted);
        if let Ok(kernel) = Self::in_dir(&place) {
            return Ok(kernel);
        }
        println!("vm: fetching Debian's kernel {wanted}");
        let scratch = work.join(format!("fetch-{}", std::process::id()));
        let result = fetch(wanted, &scratch, &place);
        let _ = std::fs::remove_dir_all(&scratch);
        result?;
        Self::in_dir(&place)
    }

    /// The kernel that was unpacked into `dir`.
    fn in_dir(dir: &Path) -> Result<Self> {
        let modules = ["lib/modules", "usr/lib/modules"]
            .iter()
            .filter_map(|sub| dir.join(sub).read_dir().ok()?.next()?.ok())
            .map(|entry| entry.path())
            .next()
            .with_context(|| format!("{} has no modules", dir.display()))?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Since 7.x the image lies beside its modules.
        let image = [dir.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")]
            .into_iter()
            .find(|image| image.is_file())
            .with_context(|| format!("{} has no image", dir.display()))?;
        Ok(Self { release, image, modules })
    }
}

fn fetch(series: &str, scratch: &Path, place: &Path) -> Result<()> {
    std::fs::create_dir_all(scratch)?;
    let apt = Apt::of_suites(scratch, SUITES)?;
    let dots = series.replace('.', "\\.");
    let images = apt.search(&format!("^linux-(image|binary)-{dots}[.+][^-]*(-[0-9]+)?-cloud-amd64$"))?;
    let newest = newest(&images).with_context(|| format!("Debian has no cloud kernel {series} in {SUITES:?}"))?;
    let _ = std::fs::remove_dir_all(place);
    let unpacked = scratch.join("unpacked");
    match newest.strip_prefix("linux-binary-") {
        Some(rest) => {
            apt.unpack(newest, &unpacked)?;
            apt.unpack(&format!("linux-modules-{rest}"), &unpacked)?;
        }
        None => apt.unpack(newest, &unpacked)?,
    }
    if let Some(parent) = place.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::rename(&unpacked, place).with_context(|| format!("cannot move the kernel to {}", place.display()))
}

/// The package with the highest version; `linux-binary` wins, as the `linux-image` of that version has no image any more.
fn newest(packages: &[String]) -> Option<&String> {
    packages.iter().max_by_key(|name| {
        let numbers: Vec<u32> = name.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        (numbers, name.starts_with("linux-binary-"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_is_taken() {
        let pick = |names: &[&str]| newest(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).cloned();
        let old = ["linux-image-5.10.0-9-cloud-amd64", "linux-image-5.10.0-46-cloud-amd64"];
        assert_eq!(pick(&old).as_deref(), Some(old[1]));
        let new = ["linux-binary-7.2.12+deb14-cloud-amd64", "linux-image-7.2.12+deb14-cloud-amd64"];
        assert_eq!(pick(&new).as_deref(), Some(new[0]));
        assert_eq!(pick(&[]), None);
    }
}
