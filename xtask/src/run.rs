//! Runs commands. A failure names the command, the end of what it printed, and the remedy.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Lines of a failed command's output that are worth repeating.
const TAIL_LINES: usize = 15;

/// Runs a command quietly and returns what it wrote to its standard output.
///
/// # Errors
/// If it cannot be started or fails; the message ends with `remedy`.
pub fn quiet(command: &mut Command, remedy: &str) -> Result<String> {
    let line = shown(command);
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run `{line}`; remedy: {remedy}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
    printed.push_str(&String::from_utf8_lossy(&output.stderr));
    bail!("`{line}` failed with {}:{}\n  remedy: {remedy}", output.status, tail(&printed))
}

/// Runs a command whose output the user wants to see.
///
/// # Errors
/// If it cannot be started or fails; it has already said why.
pub fn loud(command: &mut Command) -> Result<()> {
    let line = shown(command);
    let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed with {status}");
    }
    Ok(())
}

/// What a command prints, or nothing if it cannot be started or fails: for questions with "no" as an ordinary answer.
pub fn asked(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command as one would type it.
pub fn shown(command: &Command) -> String {
    let mut line = String::new();
    for (key, value) in command.get_envs() {
        // A search path is long, and nearly always the reader's own.
        if let Some(value) = value.filter(|_| key != "PATH") {
            let _ = write!(line, "{}={} ", key.to_string_lossy(), quoted(&value.to_string_lossy()));
        }
    }
    line.push_str(&quoted(&command.get_program().to_string_lossy()));
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&quoted(&arg.to_string_lossy()));
    }
    line
}

/// Whether this process may do what only root may.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Where a program is, looked for as root's shell would, system directories included.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].into_iter().map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// The workspace's root directory.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// A word as a shell would need it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@~%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{word}'") }
}

fn tail(printed: &str) -> String {
    let lines: Vec<&str> = printed.lines().filter(|line| !line.trim().is_empty()).collect();
    let mut text = String::new();
    for line in lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)) {
        let _ = write!(text, "\n    {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_its_output_and_the_remedy() {
        let error = quiet(Command::new("sh").args(["-c", "echo out; echo no >&2; exit 3"]), "do this").unwrap_err();
        let text = format!("{error:#}");
        assert!(text.starts_with("`sh -c 'echo out; echo no >&2; exit 3'` failed with exit status: 3"), "{text}");
        assert!(text.contains("\n    out\n    no\n  remedy: do this"), "{text}");
    }

    #[test]
    fn a_missing_program_is_a_failure_with_a_remedy() {
        let error = quiet(&mut Command::new("svct-no-such-program"), "install it").unwrap_err();
        assert!(format!("{error:#}").contains("cannot run `svct-no-such-program`; remedy: install it"), "{error:#}");
    }

    #[test]
    fn only_the_end_of_a_long_output_is_repeated() {
        let printed: String = (0..100).map(|n| format!("line {n}\n")).collect();
        assert!(!tail(&printed).contains("line 84\n") && tail(&printed).ends_with("line 99"));
    }
}
