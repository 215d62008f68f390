//! `rust-src` out of Debian's archive, by a temporary apt source beside the machine's own.
//!
//! The package of the right version lies in a newer suite than the machine's and conflicts with the package `rustup`, so
//! it is downloaded and unpacked, not installed. The archive's address is the one that this machine uses already.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;
use crate::toolchain::VERSION;

/// The suite that has `rust-src` of our version.
const SUITE: &str = "trixie-backports";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const REMEDY: &str = "give this machine a Debian source that it reaches and that carries the suite trixie-backports, or \
                      run `rustup component add rust-src` where rustup may download";

/// Unpacks the library source into `place`, all or nothing; returns the package's name and version.
///
/// # Errors
/// If the archive cannot be found or reached, does not have the version, or `place` cannot be written.
pub fn install_rust_src(place: &Path) -> Result<String> {
    let parent = place.parent().context("the sysroot has no parent directory")?;
    std::fs::create_dir_all(parent)
        .with_context(|| format!("cannot create {}; remedy: run as the owner of the toolchain", parent.display()))?;
    // Beside its destination, so that the last step is a rename within one file system.
    let work = parent.join(format!(".svc-setup-{}", std::process::id()));
    let result = fetch_and_unpack(&work, place);
    let _ = std::fs::remove_dir_all(&work);
    result
}

fn fetch_and_unpack(work: &Path, place: &Path) -> Result<String> {
    let apt = Apt::new(work, &own_archive()?)?;
    run::quiet(apt.command("apt-get").arg("update"), REMEDY)?;
    let table = run::quiet(apt.command("apt-cache").args(["madison", "rust-src"]), REMEDY)?;
    let Some(version) = pick(&table) else {
        bail!("the suite {SUITE} has no rust-src {VERSION}, only:\n{table}\n  remedy: {REMEDY}");
    };
    let package = format!("rust-src={version}");
    run::quiet(apt.command("apt-get").current_dir(work).arg("download").arg(&package), REMEDY)?;
    let file = std::fs::read_dir(work)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ext| ext == "deb"))
        .context("`apt-get download` succeeded without leaving a package")?;
    let unpacked = work.join("unpacked");
    run::quiet(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&unpacked), "apt-get install dpkg")?;
    let library = unpacked.join(format!("usr/src/rustc-{VERSION}/library"));
    if place.exists() {
        std::fs::remove_dir_all(place).with_context(|| format!("cannot replace {}", place.display()))?;
    }
    std::fs::rename(&library, place)
        .with_context(|| format!("cannot move {} to {}", library.display(), place.display()))?;
    Ok(package)
}

/// apt with a source list, index and cache of its own, so that the machine's are neither read nor changed.
struct Apt {
    options: Vec<OsString>,
}

impl Apt {
    fn new(work: &Path, archive: &str) -> Result<Self> {
        let lists = work.join("lists");
        std::fs::create_dir_all(lists.join("partial"))?;
        let list = work.join("sources.list");
        let signed = if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        std::fs::write(&list, format!("deb {signed}{archive} {SUITE} main\n"))?;
        let options = [
            format!("Dir::Etc::sourcelist={}", list.display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={}", lists.display()),
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            // The toolchain lies in a home directory that apt's own user may not enter.
            "APT::Sandbox::User=root".to_owned(),
        ];
        Ok(Self { options: options.into_iter().flat_map(|o| ["-o".into(), o.into()]).collect() })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-q").args(&self.options);
        command
    }
}

/// The newest packaging of our version in the table that `apt-cache madison` prints, which is sorted newest first.
fn pick(table: &str) -> Option<&str> {
    let wanted = format!("{VERSION}+");
    table.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim).find(|version| version.starts_with(&wanted))
}

/// The address of the Debian archive that this machine uses.
fn own_archive() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(parts) = std::fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(parts.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    let mut found = Vec::new();
    for file in &files {
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        match file.extension().and_then(|ext| ext.to_str()) {
            Some("sources") => found.extend(paragraphs(&text)),
            Some("list") => found.extend(text.lines().filter_map(one_line)),
            _ => {}
        }
    }
    let codename = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = codename.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("bookworm");
    choose(&found, codename)
        .with_context(|| format!("no Debian source in /etc/apt names the suite `{codename}`; {REMEDY}"))
}

/// One source: its addresses and suites.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
}

/// The first address that serves the running release itself: neither its security suite nor somebody else's archive.
fn choose(sources: &[Source], codename: &str) -> Option<String> {
    let ours = |suite: &String| suite == codename || suite == "stable";
    sources.iter().find(|source| source.suites.iter().any(ours)).and_then(|source| source.uris.first().cloned())
}

/// Sources of a deb822 file: paragraphs of `Key: value`, where a line that starts with a space continues the value.
fn paragraphs(text: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let text: String =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{}\n", line.trim_end())).collect();
    for paragraph in text.split("\n\n") {
        let mut fields: Vec<(String, Vec<String>)> = Vec::new();
        for line in paragraph.lines() {
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    value.extend(words(line));
                }
            } else if let Some((key, value)) = line.split_once(':') {
                fields.push((key.to_ascii_lowercase(), words(value)));
            }
        }
        let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let binary = field("types").is_some_and(|types| types.iter().any(|kind| kind == "deb"));
        let enabled = field("enabled").is_none_or(|value| value.first().is_none_or(|word| word != "no"));
        if let (true, true, Some(uris), Some(suites)) = (binary, enabled, field("uris"), field("suites")) {
            found.push(Source { uris, suites });
        }
    }
    found
}

/// A source in the form `deb [options] address suite components`.
fn one_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source { uris: vec![words.next()?], suites: vec![words.next()?] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_read_from_either_form() {
        let deb822 = "# Debian\nTypes: deb deb-src\n# snapshot\nURIs: http://a.example/debian\nSuites: bookworm\n  bookworm-updates\n\
                      Components: main\n\nTypes: deb\nURIs: http://a.example/security\nSuites: bookworm-security\n";
        let rows = [
            (paragraphs(deb822), Some("http://a.example/debian")),
            (
                paragraphs("Types: deb\nURIs: mirror+file:/etc/apt/mirrors/debian.list\nSuites: bookworm\n"),
                Some("mirror+file:/etc/apt/mirrors/debian.list"),
            ),
            (paragraphs("Enabled: no\nTypes: deb\nURIs: http://b.example/\nSuites: bookworm\n"), None),
            (paragraphs("Types: deb-src\nURIs: http://b.example/\nSuites: bookworm\n"), None),
            (
                one_line("deb [arch=amd64 signed-by=/k.gpg] http://c.example/debian bookworm main contrib")
                    .into_iter()
                    .collect(),
                Some("http://c.example/debian"),
            ),
            (one_line("deb http://c.example/debian-security bookworm-security main").into_iter().collect(), None),
            (one_line("deb https://other.example/apt nodistro main").into_iter().collect(), None),
            (one_line("# deb http://c.example/debian bookworm main").into_iter().collect(), None),
        ];
        for (sources, expected) in rows {
            assert_eq!(choose(&sources, "bookworm").as_deref(), expected, "{sources:?}");
        }
    }

    #[test]
    fn exactly_our_version_is_picked() {
        let table = "  rust-src | 1.96.1+dfsg1-1~bpo13+1 | http://a.example trixie-backports/main amd64 Packages\n\
                     \x20 rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://a.example trixie-backports/main amd64 Packages\n\
                     \x20 rust-src | 1.95.0+dfsg1-1~bpo13+1 | http://a.example trixie-backports/main amd64 Packages\n";
        assert_eq!(pick(table), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(pick(""), None);
    }
}
