//! `svc-agent` processes as guards, each with its own manifests, pins and control socket.

mod ask;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use svc_agent::control::api::TcKind;

use crate::binaries;
use crate::manifest::Service;
use crate::netns::Netns;
use crate::scratch;
use crate::topology::Host;

/// How long an agent may take to be ready: on an emulated processor the kernel verifies programs for minutes. One that ends is
/// not waited for.
const READY: Duration = Duration::from_secs(300);

/// How long an agent may take for anything it is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where an agent's objects come from.
#[derive(Debug)]
enum Source {
    Manifests,
    Kubeconfig(PathBuf),
    /// As in a Pod: a directory with token and certificate, and the API server that the kubelet would name.
    Account(PathBuf, SocketAddr),
}

/// Runs the rest of its arguments where a Pod finds its service account. What is mounted is seen by it alone.
const AS_POD: &str = r#"set -e
account=$1; shift
run=$(readlink -f /var/run)
mount -t tmpfs tmpfs "$run"
mkdir -p "$run/secrets/kubernetes.io/serviceaccount"
mount --bind "$account" "$run/secrets/kubernetes.io/serviceaccount"
exec "$@""#;

/// An agent on a node. When dropped, it is killed and its pins are removed.
#[derive(Debug)]
pub struct Agent {
    child: Option<Child>,
    ns: Netns,
    node: String,
    args: Vec<String>,
    source: Source,
    /// A command that starts it, with its arguments; empty for none.
    launcher: Vec<String>,
    /// Manifests, control socket and log.
    dir: tempfile::TempDir,
    pin_dir: PathBuf,
}

impl Agent {
    /// Starts an agent on a node and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready.
    pub fn start(node: &Host) -> Result<Self> {
        Self::start_with(node, &[])
    }

    /// The same, with further arguments.
    ///
    /// # Errors
    /// If it does not become ready.
    pub fn start_with(node: &Host, args: &[&str]) -> Result<Self> {
        let mut agent = Self::prepare(node, args)?;
        agent.spawn()?;
        agent.wait_until_ready()?;
        Ok(agent)
    }

    /// All that an agent needs, but not the process: for manifests that are to be there from the start.
    ///
    /// # Errors
    /// If its directory cannot be made.
    pub fn prepare(node: &Host, args: &[&str]) -> Result<Self> {
        let name = scratch::name();
        let dir = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir()?;
        std::fs::create_dir(dir.path().join("manifests"))?;
        Ok(Self {
            child: None,
            ns: Netns::open(node.ns.name())?,
            node: node.name.clone(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            source: Source::Manifests,
            launcher: Vec::new(),
            dir,
            pin_dir: scratch::pin_dir(&name),
        })
    }

    /// Starts the process; also after [`Agent::kill`], to see what it makes of what it finds.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let program = binaries::path("svc-agent")?;
        let mut command = match (&self.source, self.launcher.split_first()) {
            (Source::Account(account, server), _) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "--propagation", "slave", "sh", "-c", AS_POD, "sh"]).arg(account);
                command.env("KUBERNETES_SERVICE_HOST", server.ip().to_string());
                command.env("KUBERNETES_SERVICE_PORT", server.port().to_string());
                command.arg(program);
                command
            }
            (Source::Manifests | Source::Kubeconfig(_), Some((launcher, args))) => {
                let mut command = Command::new(launcher);
                command.args(args).arg(program);
                command
            }
            (Source::Manifests | Source::Kubeconfig(_), None) => binaries::command("svc-agent")?,
        };
        command.arg("run").arg("--socket").arg(self.socket());
        match &self.source {
            Source::Manifests => command.arg("--manifests").arg(self.manifests()),
            Source::Kubeconfig(file) => command.arg("--kubeconfig").arg(file),
            Source::Account(..) => command.arg("--kubernetes"),
        };
        command.arg("--pin-dir").arg(&self.pin_dir).args(["--node-name", &self.node]);
        command.arg("--state-dir").arg(self.dir.path().join("state"));
        // Small tables: many agents run at once, and the kernel allocates them whole.
        command.args(["--max-flows", "16384"]);
        // The hooks see every process of the machine: tests of sockets give a control group of their own.
        command.args(["--socket-lb", "off"]).args(&self.args);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(self.ns.spawn(&mut command).context("cannot start svc-agent")?);
        Ok(())
    }

    /// Waits until it has read all manifests, written the maps and attached to the devices.
    ///
    /// # Errors
    /// If that takes too long, or it ends.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        self.wait_until_ready_for(READY)
    }

    /// The same, for who gives it so much to read that it may take longer.
    ///
    /// # Errors
    /// If that takes too long, or it ends.
    pub fn wait_until_ready_for(&mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let ready = self.status().is_ok_and(|status| {
                let attached = status.devices.iter().any(|device| device.tc.kind != TcKind::Off);
                status.sync.complete && status.sync.last_success_seconds_ago.is_some() && attached
            });
            if ready {
                return Ok(());
            }
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(status) = ended {
                bail!("svc-agent ended with {status}; its log:\n{}", self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("svc-agent is not ready after {patience:?}: {:?}; its log:\n{}", self.status(), self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the process as a crash would; everything that is pinned stays.
    ///
    /// # Errors
    /// If it was not running.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the agent is not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Kills it, starts it again and waits until it is ready.
    ///
    /// # Errors
    /// If it does not come back.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.spawn()?;
        self.wait_until_ready()
    }

    /// Has it follow an API server instead of manifests, from the next start on.
    pub fn follow(&mut self, kubeconfig: &Path) {
        self.source = Source::Kubeconfig(kubeconfig.to_owned());
    }

    /// Has it follow an API server as a Pod does, from the next start on: `account` has `token` and `ca.crt`.
    pub fn follow_as_pod(&mut self, account: &Path, server: SocketAddr) {
        self.source = Source::Account(account.to_owned(), server);
    }

    /// Has another command start it, which has to become the agent, from the next start on.
    pub fn set_launcher(&mut self, launcher: &[&str]) {
        self.launcher = launcher.iter().map(|&arg| arg.to_owned()).collect();
    }

    /// Ends the process as a service manager would, and waits for its end.
    ///
    /// # Errors
    /// If it was not running, or does not end well.
    pub fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the agent is not running")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        let status = child.wait()?;
        anyhow::ensure!(status.success(), "svc-agent ended with {status}; its log:\n{}", self.log_tail());
        Ok(())
    }

    /// Replaces the further arguments from the next start on.
    pub fn set_args(&mut self, args: &[&str]) {
        self.args = args.iter().map(|&arg| arg.to_owned()).collect();
    }

    /// The same, with further arguments, which win over those that it had.
    ///
    /// # Errors
    /// If it does not come back.
    pub fn restart_with(&mut self, args: &[&str]) -> Result<()> {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self.restart()
    }

    /// Removes everything that the agent has pinned, as `svc-agent cleanup` does.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn cleanup(&self) -> Result<()> {
        let mut command = binaries::command("svc-agent")?;
        let output = self.ns.output(command.arg("cleanup").arg("--pin-dir").arg(&self.pin_dir))?;
        if !output.status.success() {
            bail!("svc-agent cleanup: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Writes these Services and waits until the maps have them and no others' endpoints.
    ///
    /// # Errors
    /// If the agent does not get there.
    pub fn apply(&self, services: &[&Service]) -> Result<()> {
        for service in services {
            self.write(&format!("{}.yaml", service.name), &service.yaml())?;
        }
        for service in services {
            self.wait_for_service(service)?;
        }
        Ok(())
    }

    /// Puts a file into the manifests directory, as a whole.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let draft = self.dir.path().join(file);
        std::fs::write(&draft, text)?;
        std::fs::rename(&draft, self.manifests().join(file))?;
        Ok(())
    }

    /// Removes a file from the manifests directory.
    ///
    /// # Errors
    /// If it is not there.
    pub fn remove(&self, file: &str) -> Result<()> {
        Ok(std::fs::remove_file(self.manifests().join(file))?)
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// The directory of manifests.
    pub fn manifests(&self) -> PathBuf {
        self.dir.path().join("manifests")
    }

    /// Where maps and links are pinned.
    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// The process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The end of what the agent said.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(20)).copied().collect::<Vec<_>>().join("\n")
    }

    /// All that the agent said.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the agent on {} said:\n{}", self.node, self.log_tail());
        }
        // Unlinking a pinned link detaches its program.
        let _ = std::fs::remove_dir_all(&self.pin_dir);
    }
}
