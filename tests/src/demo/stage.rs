//! The demo's world: who is where, and the agent in it.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::show::{self, Show};
use crate::binaries;
use crate::netns;
use crate::server::{ECHO, HTTP};
use crate::topology::{Host, Shape, World};

/// What the names of the demo's namespaces begin with.
const NAME: &str = "svc-demo";
/// Manifests, control socket, log.
const RUN_DIR: &str = "/run/svc-demo";
/// The agent's maps and links.
const PIN_DIR: &str = "/sys/fs/bpf/svc-demo";
/// Names of the pods with servers, as in `examples/`; the last one is not a backend from the start.
const SERVERS: [&str; 4] = ["web-1", "web-2", "web-3", "web-4"];

/// The demo's world, with everything that runs in it.
#[derive(Debug)]
pub struct Stage {
    world: World,
    agent: Option<Child>,
    servers: Vec<Child>,
}

impl Stage {
    /// Makes the cluster and starts the servers in its pods.
    ///
    /// # Errors
    /// If the kernel or a tool refuses something.
    pub fn build() -> Result<Self> {
        let mut world = World::build(Shape { name: Some(NAME.to_owned()), ..Shape::default() })?;
        // One more pod on the first node: it only asks.
        world.add_pod(0)?;
        let mut stage = Self { world, agent: None, servers: Vec::new() };
        for (name, pod) in SERVERS.iter().zip(&stage.world.pods) {
            stage.servers.push(spawn_server(name, &pod.host)?);
        }
        let manifests = manifests();
        std::fs::create_dir_all(&manifests).with_context(|| format!("cannot create {}", manifests.display()))?;
        for entry in std::fs::read_dir("examples").context("cannot read examples/; remedy: run from the repository")? {
            let path = entry?.path();
            if let (Some(name), true) = (path.file_name(), path.extension().is_some_and(|ext| ext == "yaml")) {
                std::fs::copy(&path, manifests.join(name))?;
            }
        }
        Ok(stage)
    }

    /// Starts the agent as a process of the first node.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn_agent(&mut self, show: &Show) -> Result<()> {
        let program = shown_path("svc-agent")?;
        let args = format!(
            "run --manifests {RUN_DIR}/manifests --state-dir {RUN_DIR}/state --node-name node-0 --pin-dir {PIN_DIR} \
             --socket {} --socket-lb off",
            socket()
        );
        show.print(&format!("{} {program} {args} &", enter("node-0")));
        let log = File::options().create(true).append(true).open(log())?;
        let mut agent = Command::new(program);
        agent.args(args.split(' ')).stderr(log.try_clone()?);
        let child = spawn_detached(self.world.node(0)?, &mut agent, log.into())?;
        self.agent = Some(child);
        Ok(())
    }

    /// Waits until the agent has done all that the manifests ask for.
    ///
    /// # Errors
    /// If it ends, or does not get there.
    pub fn wait_for_agent(&mut self) -> Result<()> {
        let ctl = ctl()?;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let ready = show::quietly(&format!("{ctl} status -o json"))
                .ok()
                .and_then(|json| serde_json::from_str::<svc_agent::control::api::Status>(&json).ok())
                .is_some_and(|status| status.sync.complete && status.sync.last_success_seconds_ago.is_some());
            if ready {
                return Ok(());
            }
            if let Some(status) = self.agent.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("the agent ended with {status}");
            }
            if Instant::now() > deadline {
                bail!("the agent is not ready after 20 s");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the agent as a crash would.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill_agent(&mut self, show: &Show) -> Result<()> {
        let mut agent = self.agent.take().context("the agent does not run")?;
        show.print(&format!("kill -9 {}    # the agent", agent.id()));
        agent.kill()?;
        agent.wait()?;
        Ok(())
    }

    /// Runs something while a pod has no server.
    ///
    /// # Errors
    /// If there is no pod of that name, or its server does not start again.
    pub fn without_server(&mut self, name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
        let index = SERVERS.iter().position(|&server| server == name).context("no such server")?;
        let server = self.servers.get_mut(index).context("the server does not run")?;
        server.kill()?;
        server.wait()?;
        let result = run();
        *server = spawn_server(name, &self.world.pods.get(index).context("no such pod")?.host)?;
        result
    }

    /// Leaves everything up when the stage is dropped.
    pub fn keep(&mut self) {
        self.world.keep();
    }

    /// Prints what helps to understand a failure.
    pub fn explain(&self) {
        let log = std::fs::read_to_string(log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        println!("The end of the agent's log:");
        for line in lines.iter().skip(lines.len().saturating_sub(20)) {
            println!("  {line}");
        }
    }
}

/// The step that shows who is where.
pub fn describe(show: &Show, stage: &mut Stage) -> Result<()> {
    let world = &stage.world;
    let place = |host: &Host, note: &str| {
        show.say(&format!("{:<18} {:<15} {:<16} {note}", host.ns.name(), host.v4.to_string(), host.v6.to_string()));
    };
    place(world.client()?, "outside, on the nodes' network");
    for (number, node) in world.nodes.iter().enumerate() {
        place(node, "uplink eth0");
        let first = number * 2;
        for (index, pod) in world.pods.iter().enumerate().filter(|(_, pod)| pod.node == number) {
            let note = match SERVERS.get(index) {
                Some(name) if index >= first && index < first + 2 => format!("pod {name}, HTTP server"),
                _ => "pod that asks".to_owned(),
            };
            place(&pod.host, &format!("  {note}"));
        }
    }
    show.sh_aloud(&format!("{} ip -brief address show dev eth0", enter("node-0"))).map(drop)
}

/// The step that starts the agent.
pub fn start_agent(show: &Show, stage: &mut Stage) -> Result<()> {
    stage.spawn_agent(show)?;
    stage.wait_for_agent()?;
    let ctl = ctl()?;
    let devices = show.sh_aloud(&format!("{ctl} get devices"))?;
    if !devices.contains("eth0") {
        bail!("the uplink eth0 is not among the agent's devices");
    }
    let services = show.sh_aloud(&format!("{ctl} get services"))?;
    for service in ["web", "echo"] {
        if !services.contains(service) {
            bail!("the Service `{service}` is not among the agent's");
        }
    }
    Ok(())
}

/// The beginning of a command line that runs in a namespace of the demo.
pub fn enter(host: &str) -> String {
    format!("nsenter --net=/run/netns/{NAME}-{host}")
}

/// `svcctl` with the demo's socket.
///
/// # Errors
/// If it has not been built.
pub fn ctl() -> Result<String> {
    Ok(format!("{} --socket {}", shown_path("svcctl")?, socket()))
}

/// The directory of manifests that the agent watches.
pub fn manifests() -> PathBuf {
    Path::new(RUN_DIR).join("manifests")
}

/// A binary's path, relative to where the demo runs if it lies below.
///
/// # Errors
/// If it has not been built.
pub fn shown_path(name: &str) -> Result<String> {
    let path = binaries::path(name)?;
    let here = std::env::current_dir()?;
    Ok(path.strip_prefix(here).unwrap_or(&path).display().to_string())
}

/// Removes every trace of a demo: processes, namespaces, pins, files.
pub fn remove() {
    for name in netns::list(&format!("{NAME}-")) {
        netns::remove(&name);
    }
    for dir in [PIN_DIR, RUN_DIR] {
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// What to do with a world that stays.
pub fn print_how_to_play() {
    let ctl = ctl().unwrap_or_default();
    let (client, pod, node) = (enter("client-0"), enter("pod-0-2"), enter("node-0"));
    println!(
        "\nThe world stays up. To play with it:\n  \
         {client} curl http://192.168.60.80/          # from outside\n  \
         {pod} curl 'http://[fd00:96::80]/'      # from a pod\n  \
         {node} tcpdump -ni eth0                  # on the wire\n  \
         {ctl} status\n  \
         {ctl} get flows -o wide\n  \
         $EDITOR {RUN_DIR}/manifests/web.yaml         # every change is live\n  \
         less {RUN_DIR}/log                           # what the agent says\n  \
         cargo xtask demo --down                      # remove it"
    );
}

fn socket() -> String {
    format!("{RUN_DIR}/control.sock")
}

fn log() -> PathBuf {
    Path::new(RUN_DIR).join("log")
}

fn spawn_server(name: &str, host: &Host) -> Result<Child> {
    let mut server = binaries::command("svc-testpod")?;
    server.args(["--stay", "--name", name, "--http", &HTTP.to_string(), "--echo", &ECHO.to_string()]);
    // Whoever reads the demo's output must not wait for servers that stay up.
    server.stderr(Stdio::null());
    spawn_detached(host, &mut server, Stdio::null())
}

/// Starts a process that a Ctrl-C at the terminal does not reach, and that may outlive the demo. Whatever runs in one of
/// the demo's namespaces ends with the namespace.
fn spawn_detached(host: &Host, command: &mut Command, stdout: Stdio) -> Result<Child> {
    command.stdin(Stdio::null()).stdout(stdout).process_group(0);
    host.ns.spawn(command).with_context(|| format!("cannot start {command:?}"))
}
