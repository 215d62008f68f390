//! One process of the control plane as a guard, with its log.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::Netns;

/// A running process; it is killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Mutex<Child>,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program in a namespace; its log is in `dir`.
    pub(super) fn start(ns: &Netns, program: &Path, args: &[String], dir: &Path, name: &str) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(program);
        command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = ns.spawn(&mut command).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child: Mutex::new(child), name: name.to_owned(), log })
    }

    /// Says why it ended, if it did.
    pub(super) fn check(&self) -> Result<()> {
        let ended = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner).try_wait()?;
        match ended {
            Some(status) => bail!("{} ended with {status}; its log:\n{}", self.name, self.log_tail()),
            None => Ok(()),
        }
    }

    /// Ends it in good order.
    pub(super) fn stop(self) -> Result<()> {
        let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("{} does not end", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(15)).copied().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            eprintln!("{} said:\n{}", self.name, self.log_tail());
        }
    }
}
