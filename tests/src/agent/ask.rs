//! What an agent answers on its control socket, and waiting for an answer.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use svc_agent::control::api::{Backend, BackendState, Device, Flow, List, Service as ShownService, Status};

use super::{Agent, PATIENCE};
use crate::binaries;
use crate::manifest::Service;

impl Agent {
    /// Waits until the maps have a Service's frontends, and exactly its endpoints.
    ///
    /// # Errors
    /// If the agent does not get there.
    pub fn wait_for_service(&self, service: &Service) -> Result<()> {
        let wanted = service.ready_backends();
        self.wait(&format!("service {} with {wanted:?}", service.name), |agent| {
            let shown = agent.services()?.into_iter().find(|shown| shown.name == service.name);
            let ports = shown.map_or(0, |shown| shown.ports.len());
            // Each port is there once for each family.
            Ok(ports == 2 * service.ports.len() && agent.ready_backends(&service.name)? == wanted)
        })
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// If it never is.
    pub fn wait(&self, what: &str, is_so: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let result = is_so(self);
            if matches!(result, Ok(true)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let status = self.status().map(|status| format!("{:?}", status.sync));
                bail!("waited in vain for {what}: {result:?}; {status:?}; the agent's log:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The agent at a glance.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn status(&self) -> Result<Status> {
        self.get("/v1/status")
    }

    /// Services as resolved.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn services(&self) -> Result<Vec<ShownService>> {
        Ok(self.get::<List<_>>("/v1/services")?.items)
    }

    /// Backends of one Service as they lie in the maps.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn backends(&self, service: &str) -> Result<Vec<Backend>> {
        Ok(self.get::<List<_>>(&format!("/v1/backends?service={service}"))?.items)
    }

    /// Network devices.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn devices(&self) -> Result<Vec<Device>> {
        Ok(self.get::<List<_>>("/v1/devices")?.items)
    }

    /// Live connections, as `svcctl get flows` shows them.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn flows(&self) -> Result<Vec<Flow>> {
        let output = self.svcctl()?.args(["get", "flows", "-o", "json"]).output()?;
        if !output.status.success() {
            bail!("svcctl get flows: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_slice::<List<_>>(&output.stdout)?.items)
    }

    /// `svcctl` with this agent's socket.
    ///
    /// # Errors
    /// If it has not been built.
    pub fn svcctl(&self) -> Result<Command> {
        let mut command = binaries::command("svcctl")?;
        command.arg("--socket").arg(self.socket());
        Ok(command)
    }

    fn ready_backends(&self, service: &str) -> Result<BTreeSet<SocketAddr>> {
        let ready = self.backends(service)?.into_iter().filter(|backend| backend.state == BackendState::Ready);
        Ok(ready.map(|backend| SocketAddr::new(backend.address, backend.port)).collect())
    }

    /// One request to the control socket. HTTP/1.0 is answered without chunks.
    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let mut stream = UnixStream::connect(self.socket()).context("cannot connect to the control socket")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: agent\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no body")?;
        if head.split(' ').nth(1) != Some("200") {
            bail!("{path}: {answer}");
        }
        serde_json::from_str(body).with_context(|| format!("{path}: {body}"))
    }
}
