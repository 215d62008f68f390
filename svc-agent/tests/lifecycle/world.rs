//! A node in a network namespace, and agents that run on it. Everything goes when it is dropped.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use aya::maps::MapInfo;
use nix::sys::statfs::{FsType, statfs};
use svc_agent::sys::bpf;
use svc_agent::sys::link::{self, LinkInfo};
use svc_common::maps::spec;

pub const BPF_FS: &str = "/sys/fs/bpf";
const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);
const AGENT: &str = env!("CARGO_BIN_EXE_svc-agent");
const SVCCTL: &str = env!("CARGO_BIN_EXE_svcctl");
const PATIENCE: Duration = Duration::from_secs(30);

/// iproute2 prepares /run/netns when it makes a first namespace, and two at once trip over each other.
static ADDING: Mutex<()> = Mutex::new(());

/// Whether the machine can prove anything; tells why if not.
pub fn able(test: &str) -> bool {
    let reason = if !nix::unistd::geteuid().is_root() {
        "needs root"
    } else if !svc_agent::datapath::embedded() {
        "the agent was built without the kernel programs: `cargo xtask test` builds it with them"
    } else if statfs(BPF_FS).map(|fs| fs.filesystem_type()) != Ok(BPF_FS_MAGIC) {
        "there is no BPF file system: `mount -t bpf bpf /sys/fs/bpf`"
    } else {
        return true;
    };
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(file) = std::env::var_os("SVC_TEST_SKIPS")
        && let Ok(mut file) = fs::OpenOptions::new().create(true).append(true).open(file)
    {
        let _ = file.write_all(format!("{test}: {reason}\n").as_bytes());
    }
    false
}

pub fn ip(args: &str) {
    let output = Command::new("ip").args(args.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        sleep(Duration::from_millis(50));
    }
}

/// A namespace with an uplink `eth0`, whose other end `peer0` is in it as well, a pin directory and a place for files.
pub struct World {
    pub name: String,
    pub files: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("svct-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        {
            let _one_at_a_time = ADDING.lock();
            ip(&format!("netns add {name}"));
        }
        let world = Self { name, files: tempfile::tempdir().unwrap() };
        fs::create_dir(world.files.path().join("manifests")).unwrap();
        world.add_uplink();
        world
    }

    pub fn add_uplink(&self) {
        self.ip("link add eth0 type veth peer name peer0");
        self.ip("addr add 192.0.2.1/24 dev eth0");
        self.ip("link set eth0 up");
        self.ip("link set peer0 up");
        // An end that polls takes what XDP sends: otherwise the agent leaves the device to tc.
        let gro = ["netns", "exec", &self.name, "ethtool", "-K", "peer0", "gro", "on"];
        assert!(Command::new("ip").args(gro).status().unwrap().success());
    }

    pub fn ip(&self, args: &str) {
        ip(&format!("-n {} {args}", self.name));
    }

    pub fn ifindex(&self, device: &str) -> u32 {
        let output = Command::new("ip").args(["-n", &self.name, "-o", "link", "show", device]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split(':').next().unwrap().parse().unwrap()
    }

    pub fn pin_dir(&self) -> PathBuf {
        Path::new(BPF_FS).join(&self.name)
    }

    pub fn manifest(&self, name: &str, text: &str) {
        fs::write(self.files.path().join("manifests").join(name), text).unwrap();
    }

    /// The agent's command line in the namespace.
    fn command(&self, enter: &[&str], socket: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(enter[0]);
        command.args(&enter[1..]).arg(AGENT).arg("run");
        command.arg("--manifests").arg(self.files.path().join("manifests")).arg("--socket").arg(socket);
        command.args(["--node-name", "node-a", "--max-flows", "4096", "--pin-dir"]).arg(self.pin_dir());
        command.arg("--state-dir").arg(socket.with_extension("state"));
        // The hooks see every process of the machine.
        command.args(["--socket-lb", "off"]);
        command.args(args);
        command
    }

    /// Starts an agent that is expected to run, and waits until it does.
    pub fn start(&self, args: &[&str]) -> Agent {
        self.start_by(&["nsenter", &self.net()], args)
    }

    fn net(&self) -> String {
        format!("--net=/run/netns/{}", self.name)
    }

    /// The same, with another command to enter the namespace.
    pub fn start_by(&self, enter: &[&str], args: &[&str]) -> Agent {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let socket = self.files.path().join(format!("{number}.sock"));
        let log = self.files.path().join(format!("{number}.log"));
        let child = self.command(enter, &socket, args).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        let mut agent = Agent { child, socket, log };
        let deadline = Instant::now() + PATIENCE;
        while !agent.svcctl(&["status"]).status.success() {
            let ended = agent.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "the agent does not start: {}", agent.log());
            sleep(Duration::from_millis(50));
        }
        agent
    }

    /// Runs an agent that is expected to give up; returns what it says.
    pub fn refusal(&self, args: &[&str]) -> String {
        let output = ended(self.command(&["nsenter", &self.net()], &self.files.path().join("refused.sock"), args));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{text}");
        text
    }

    pub fn cleanup(&self) -> Output {
        let mut command = Command::new("nsenter");
        command.arg(self.net()).args([AGENT, "cleanup", "--pin-dir"]);
        ended({
            command.arg(self.pin_dir());
            command
        })
    }

    pub fn map_id(&self, name: &str) -> u32 {
        MapInfo::from_pin(self.map(name)).unwrap().id()
    }

    pub fn map(&self, name: &str) -> PathBuf {
        let layout = spec::ALL.iter().find(|map| map.name == name).unwrap().layout;
        self.pin_dir().join("v1/maps").join(format!("{name}-{layout}"))
    }

    pub fn link_pin(&self, device: &str, hook: &str) -> PathBuf {
        self.pin_dir().join("v1/links").join(format!("{}-{hook}", self.ifindex(device)))
    }

    pub fn link(&self, device: &str, hook: &str) -> LinkInfo {
        let pin = self.link_pin(device, hook);
        let link = bpf::open_pin(&pin).unwrap_or_else(|error| panic!("{}: {error}", pin.display()));
        link::info(link.as_fd()).unwrap()
    }
}

/// Runs a command that must end by itself; one that does not is ended.
fn ended(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

impl Drop for World {
    fn drop(&mut self) {
        for directory in ["v1/links", "v1/maps"] {
            for pin in fs::read_dir(self.pin_dir().join(directory)).into_iter().flatten().flatten() {
                let _ = fs::remove_file(pin.path());
            }
        }
        for directory in ["v1/links", "v1/maps", "v1", ""] {
            let _ = fs::remove_dir(self.pin_dir().join(directory));
        }
        let _ = fs::remove_file(self.pin_dir());
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A running agent; killed when dropped.
pub struct Agent {
    child: Child,
    pub socket: PathBuf,
    log: PathBuf,
}

impl Agent {
    pub fn svcctl(&self, args: &[&str]) -> Output {
        Command::new(SVCCTL).arg("--socket").arg(&self.socket).args(args).output().unwrap()
    }

    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let output = self.svcctl(&[args, &["-o", "json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What the status says of a device.
    pub fn device(&self, name: &str) -> Option<serde_json::Value> {
        let status = self.json(&["status"]);
        status["devices"].as_array().unwrap().iter().find(|device| device["name"] == name).cloned()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// As the kernel's out-of-memory killer would.
    pub fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.log()
    }

    /// As a service manager would; returns whether it ended well.
    pub fn stop(mut self) -> bool {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
