//! Network namespaces as guards: made by name, entered by threads and commands, gone when dropped.
//!
//! Names begin with the process id of who made them, so that what a killed process left behind is found and removed.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// iproute2 prepares /run/netns when it makes a first namespace, and two at once trip over each other.
static ADDING: Mutex<()> = Mutex::new(());

/// A network namespace with a name.
#[derive(Debug)]
pub struct Netns {
    name: String,
    handle: File,
    /// Whether it goes when the guard goes.
    owned: bool,
}

impl Netns {
    /// Makes a namespace with `lo` up and without duplicate address detection, so that addresses are usable at once.
    ///
    /// # Errors
    /// If the name is taken or the kernel refuses.
    pub fn create(name: &str) -> Result<Self> {
        {
            let _one_at_a_time = ADDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            run(Command::new("ip").args(["netns", "add", name]))?;
        }
        let mut ns = Self::open(name)?;
        ns.owned = true;
        ns.sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        ns.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// Takes hold of a namespace that is there already, and leaves it there.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn open(name: &str) -> Result<Self> {
        let path = path_of(name);
        let handle = File::open(&path).with_context(|| format!("cannot open the namespace {}", path.display()))?;
        Ok(Self { name: name.to_owned(), handle, owned: false })
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Leaves the namespace in place when the guard is dropped.
    pub fn keep(&mut self) {
        self.owned = false;
    }

    /// Runs a closure on a thread inside the namespace. Sockets that it opens stay there.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.handle, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a command inside the namespace; mounts and processes are those outside.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the command not started.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        // A child inherits the namespace of the thread that forks it.
        self.run(|| command.spawn()).flatten()
    }

    /// Runs a command inside the namespace to its end.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the command not started.
    pub fn output(&self, command: &mut Command) -> io::Result<Output> {
        self.run(|| command.output()).flatten()
    }

    /// Carries out `ip` commands, one a line.
    ///
    /// # Errors
    /// If one fails, with what `ip` said.
    pub fn ip(&self, commands: &str) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run `ip`")?;
        child.stdin.take().context("no pipe to `ip`")?.write_all(commands.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("ip in {}: {}; commands were:\n{commands}", self.name, String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Writes a setting below /proc/sys.
    ///
    /// # Errors
    /// If there is no such setting.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let file = PathBuf::from("/proc/sys").join(key);
        self.run(|| std::fs::write(&file, value))
            .flatten()
            .with_context(|| format!("sysctl {key}={value} in {}", self.name))
    }

    /// Switches offloads of a device on or off, as `ethtool -K` does.
    ///
    /// # Errors
    /// If the device has no such offload.
    pub fn offload(&self, device: &str, settings: &[&str]) -> Result<()> {
        let output = self.output(Command::new("ethtool").args(["-K", device]).args(settings))?;
        if !output.status.success() {
            bail!("ethtool -K {device} {settings:?} in {}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.owned {
            remove(&self.name);
        }
    }
}

/// Ends the processes in a namespace, by their ids, and removes it. What is gone already is fine.
pub fn remove(name: &str) {
    let listed = Command::new("ip").args(["netns", "pids", name]).stderr(Stdio::null()).output();
    if let Ok(output) = listed {
        for pid in String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.trim().parse().ok()) {
            if Pid::from_raw(pid) != Pid::this() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}

/// Names of all namespaces that begin so.
pub fn list(prefix: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}

/// Where a namespace's handle lies.
pub fn path_of(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
