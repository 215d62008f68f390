//! The processes of the load as guards.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Answer, Outcome, Task};
use crate::binaries;
use crate::cgroup::Cgroup;
use crate::netns::{Netns, path_of};

/// A server; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    _process: Process,
}

impl Server {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(ns: &Netns, cgroup: &Cgroup, cpu: usize) -> Result<Self> {
        let mut process = Process::start("serve", ns, cgroup, cpu)?;
        let line = process.read()?;
        if line != "ready" {
            bail!("the server in {} did not come up", ns.name());
        }
        Ok(Self { _process: process })
    }
}

/// A client; it ends when dropped.
#[derive(Debug)]
pub struct Client(Process);

impl Client {
    /// Starts it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(ns: &Netns, cgroup: &Cgroup, cpu: usize) -> Result<Self> {
        Process::start("ask", ns, cgroup, cpu).map(Self)
    }

    /// Has it do a task for so long, UDP from `source` if that is not zero.
    ///
    /// # Errors
    /// If something went wrong, as packets that were lost.
    pub fn run(&mut self, task: Task, to: SocketAddr, time: Duration, source: u16) -> Result<Outcome> {
        let stdin = self.0.child.stdin.as_mut().context("the client has no standard input")?;
        writeln!(stdin, "{task} {to} {} {source}", time.as_millis())?;
        let line = self.0.read()?;
        serde_json::from_str::<Answer>(&line).with_context(|| format!("the client said `{line}`"))?.into_result()
    }
}

#[derive(Debug)]
struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    fn start(role: &str, ns: &Netns, cgroup: &Cgroup, cpu: usize) -> Result<Self> {
        // Neither is to interrupt the other when a packet for it comes: who waits is switched to when the other waits.
        let mut command = Command::new("chrt");
        command.args(["--batch", "0"]).arg(binaries::path("svc-testload")?).arg(role);
        command.arg("--netns").arg(path_of(ns.name())).arg("--cgroup").arg(cgroup.path());
        command.args(["--cpu", &cpu.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot run chrt")?;
        let lines = BufReader::new(child.stdout.take().context("no pipe from svc-testload")?);
        Ok(Self { child, lines })
    }

    fn read(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            bail!("svc-testload ended with {}", self.child.wait()?);
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
