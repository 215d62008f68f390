//! What a process uses, as the kernel counts it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::agent::Agent;

/// A process.
pub struct Usage {
    dir: PathBuf,
    pid: u32,
}

impl Usage {
    /// The agent's.
    ///
    /// # Errors
    /// If it does not run.
    pub fn of(agent: &Agent) -> Result<Self> {
        let pid = agent.pid().context("the agent does not run")?;
        Ok(Self { dir: PathBuf::from(format!("/proc/{pid}")), pid })
    }

    /// Time on a CPU of all threads that there are.
    ///
    /// # Errors
    /// If it ended.
    pub fn cpu(&self) -> Result<Duration> {
        let mut sum = 0;
        for thread in std::fs::read_dir(self.dir.join("task"))? {
            // A thread may end meanwhile.
            let text = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
            sum += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(sum))
    }

    /// Memory of its own: pages of maps that it has mapped are the maps'.
    ///
    /// # Errors
    /// If it ended.
    pub fn resident_mib(&self) -> Result<f64> {
        self.status("RssAnon")
    }

    /// The most that it ever had, mapped pages of maps included.
    ///
    /// # Errors
    /// If it ended.
    pub fn peak_mib(&self) -> Result<f64> {
        self.status("VmHWM")
    }

    /// Memory of all maps that it has open, each once.
    ///
    /// # Errors
    /// If it ended.
    pub fn maps_mib(&self) -> Result<f64> {
        let mut maps = BTreeMap::new();
        for file in std::fs::read_dir(self.dir.join("fdinfo"))? {
            let text = std::fs::read_to_string(file?.path()).unwrap_or_default();
            let field = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|value| value.trim().parse::<u64>().ok())
            };
            if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
                maps.insert(id, bytes);
            }
        }
        Ok(maps.values().sum::<u64>() as f64 / f64::from(1 << 20))
    }

    /// Counts system calls until it is told to end; `None` without perf.
    pub fn count_calls(&self) -> Option<Calls> {
        let mut command = Command::new("perf");
        command.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &self.pid.to_string()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().ok()?;
        // It says nothing when it has begun.
        std::thread::sleep(Duration::from_millis(300));
        Some(Calls(child))
    }

    fn status(&self, field: &str) -> Result<f64> {
        let text = std::fs::read_to_string(self.dir.join("status"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib = line.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        Ok(kib.with_context(|| format!("/proc has no {field}"))? / 1024.0)
    }
}

/// A count under way.
pub struct Calls(Child);

impl Calls {
    /// Ends it; how many there were.
    pub fn end(self) -> Option<f64> {
        kill(Pid::from_raw(i32::try_from(self.0.id()).ok()?), Signal::SIGINT).ok()?;
        let output = self.0.wait_with_output().ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.lines().find(|line| line.contains("sys_enter"))?.split(',').next()?.parse().ok()
    }
}
