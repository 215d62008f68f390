//! Debian's archive beside the machine's own sources: other suites, by a temporary apt source. The archive's addresses are
//! those that this machine uses already.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const REMEDY: &str = "give this machine a Debian source in /etc/apt that it reaches and that carries this suite";

/// apt with a source list, index and cache of its own, so that the machine's are neither read nor changed.
pub struct Apt {
    work: PathBuf,
    options: Vec<OsString>,
}

impl Apt {
    /// Reads the index of `suites`; a suite whose name ends in `-security` is looked for in that archive. Everything lies in
    /// `work`, an existing directory.
    ///
    /// # Errors
    /// If the archive cannot be found or reached.
    pub fn of_suites(work: &Path, suites: &[&str]) -> Result<Self> {
        let lists = work.join("lists");
        std::fs::create_dir_all(lists.join("partial"))?;
        let list = work.join("sources.list");
        let signed = if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        let mut lines = String::new();
        for suite in suites {
            let _ = writeln!(lines, "deb {signed}{} {suite} main", own_archive(suite.ends_with("-security"))?);
        }
        std::fs::write(&list, lines)?;
        let options = [
            format!("Dir::Etc::sourcelist={}", list.display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={}", lists.display()),
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            // The toolchain lies in a home directory that apt's own user may not enter.
            "APT::Sandbox::User=root".to_owned(),
        ];
        let options = options.into_iter().flat_map(|o| ["-o".into(), o.into()]).collect();
        let apt = Self { work: work.to_path_buf(), options };
        run::quiet(apt.command("apt-get").arg("update"), REMEDY)?;
        Ok(apt)
    }

    /// The versions of a package, as `apt-cache madison` prints them.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn versions(&self, package: &str) -> Result<String> {
        run::quiet(self.command("apt-cache").args(["madison", package]), REMEDY)
    }

    /// Names of the packages that match a regular expression.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn search(&self, pattern: &str) -> Result<Vec<String>> {
        let found = run::quiet(self.command("apt-cache").args(["search", "--names-only", pattern]), REMEDY)?;
        Ok(found.lines().filter_map(|line| Some(line.split_once(" - ")?.0.to_owned())).collect())
    }

    /// Downloads a package, `name` or `name=version`, and unpacks it into `place`.
    ///
    /// # Errors
    /// If it cannot be had or unpacked.
    pub fn unpack(&self, package: &str, place: &Path) -> Result<()> {
        let download = self.work.join("download");
        let _ = std::fs::remove_dir_all(&download);
        std::fs::create_dir_all(&download)?;
        std::fs::create_dir_all(place)?;
        run::quiet(self.command("apt-get").current_dir(&download).arg("download").arg(package), REMEDY)?;
        let file = std::fs::read_dir(&download)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|ext| ext == "deb"))
            .context("`apt-get download` succeeded without leaving a package")?;
        run::quiet(Command::new("dpkg-deb").arg("-x").arg(&file).arg(place), "apt-get install dpkg")?;
        std::fs::remove_dir_all(&download)?;
        Ok(())
    }

    /// Installs packages from one of the suites, without starting the services that some of them bring.
    ///
    /// # Errors
    /// If apt refuses.
    pub fn install(&self, suite: &str, packages: &[&str]) -> Result<()> {
        let _still = NoServices::now()?;
        let mut apt = self.command("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-y", "--no-install-recommends", "-t", suite, "install"])
            .args(packages);
        run::quiet(&mut apt, "run the command by hand and follow what it says").map(|_| ())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-q").args(&self.options);
        command
    }
}

/// While it lives, packages start no services when they are installed, by the way that Debian's policy has for that. An
/// administrator's own rule is left alone.
struct NoServices {
    rule: Option<&'static Path>,
}

impl NoServices {
    fn now() -> Result<Self> {
        let rule = Path::new("/usr/sbin/policy-rc.d");
        if rule.exists() {
            return Ok(Self { rule: None });
        }
        std::fs::write(rule, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {}", rule.display()))?;
        std::fs::set_permissions(rule, std::fs::Permissions::from_mode(0o755))?;
        Ok(Self { rule: Some(rule) })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(rule) = self.rule {
            let _ = std::fs::remove_file(rule);
        }
    }
}

/// The codename of the running release.
pub fn codename() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("bookworm").to_owned()
}

/// The address of the Debian archive that this machine uses, or of the one with security updates.
fn own_archive(security: bool) -> Result<String> {
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
    let suite = if security { format!("{}-security", codename()) } else { codename() };
    choose(&found, &suite).with_context(|| format!("no Debian source in /etc/apt names the suite `{suite}`; {REMEDY}"))
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
}
