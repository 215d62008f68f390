//! Prints each command before it runs, as one could type it, and a short line of what came of it.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The demo's voice.
#[derive(Debug)]
pub struct Show {
    start: Instant,
}

impl Default for Show {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Show {
    /// Prints what a step found.
    pub fn say(&self, line: &str) {
        println!("  {line}");
    }

    /// Prints a command line without running it.
    pub fn print(&self, line: &str) {
        println!("$ {line}");
    }

    /// Runs a shell command line and returns what it printed.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn sh(&self, line: &str) -> Result<String> {
        self.print(line);
        quietly(line)
    }

    /// Runs a shell command line and repeats what it printed.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn sh_aloud(&self, line: &str) -> Result<String> {
        let output = self.sh(line)?;
        for line in output.lines() {
            self.say(line.trim_end());
        }
        Ok(output)
    }

    /// Seconds since the demo began.
    pub fn elapsed_s(&self) -> u64 {
        self.start.elapsed().as_secs()
    }
}

/// Runs a shell command line unseen and returns what it printed.
///
/// # Errors
/// If it fails, with what it said.
pub fn quietly(line: &str) -> Result<String> {
    let output = shell(line).stdin(Stdio::null()).output().with_context(|| format!("cannot run `{line}`"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("`{line}`: {}: {printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(printed)
}

/// A shell command line as a command.
pub fn shell(line: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-o", "pipefail", "-c", line]);
    command
}
