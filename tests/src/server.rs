//! `svc-testpod` processes as guards.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};

use crate::binaries;
use crate::netns::Netns;
use crate::topology::{Host, World};

/// Port of the HTTP server.
pub const HTTP: u16 = 8080;
/// Port of the TCP and UDP services that answer each line or datagram.
pub const ECHO: u16 = 7000;

/// A running server; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts a server that listens on all addresses of a pod, under the pod's name.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(host: &Host) -> Result<Self> {
        Self::listen(&host.ns, &host.name, None)
    }

    /// Starts a server of any name, on one address or on all.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn listen(ns: &Netns, name: &str, address: Option<IpAddr>) -> Result<Self> {
        let mut command = binaries::command("svc-testpod")?;
        command.args(["--name", name, "--http", &HTTP.to_string(), "--echo", &ECHO.to_string()]);
        if let Some(address) = address {
            command.args(["--listen", &address.to_string()]);
        }
        // It ends with its standard input, so also when this process is killed.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = ns.spawn(&mut command).with_context(|| format!("cannot start the server {name}"))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let server = Self { child };
        if line.trim_end() != "ready" {
            bail!("the server {name} did not come up");
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl World {
    /// Starts a server in every pod.
    ///
    /// # Errors
    /// If one does not come up.
    pub fn start_servers(&self) -> Result<Vec<Server>> {
        self.pods.iter().map(|pod| Server::start(&pod.host)).collect()
    }
}
