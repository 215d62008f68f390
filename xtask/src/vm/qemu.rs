//! QEMU: boots a kernel, streams its console, and returns the status that the guest reports.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::apt::{self, Apt};
use crate::run;

const QEMU: &str = "qemu-system-x86_64";
/// What the guest's first process prints first.
const START: &str = "SVC-VM-START";
/// What it prints at the end.
const EXIT: &str = "SVC-VM-EXIT ";
/// A machine whose first process has not started by then does not boot; with KVM it takes a second or two.
const BOOT: Duration = Duration::from_secs(8);

/// Installs QEMU and busybox unless they are there. From the backports where the machine has other parts of QEMU from there.
///
/// # Errors
/// If they cannot be installed.
pub fn ensure() -> Result<()> {
    let packages: Vec<&str> = [(QEMU, "qemu-system-x86"), ("busybox", "busybox-static"), ("strip", "binutils")]
        .iter()
        .filter(|(program, _)| run::which(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    println!("setup: vm: installing {}", packages.join(" "));
    let work = std::env::temp_dir().join(format!("svc-setup-{}", std::process::id()));
    std::fs::create_dir_all(&work)?;
    let release = apt::codename();
    let backports = format!("{release}-backports");
    let result = Apt::of_suites(&work, &[&release, &backports])
        .and_then(|apt| apt.install(&release, &packages).or_else(|_| apt.install(&backports, &packages)));
    let _ = std::fs::remove_dir_all(&work);
    result
}

/// How large a machine is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Processors.
    pub cpus: u32,
    /// MiB of memory.
    pub memory: u32,
}

/// What to boot.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// The bzImage.
    pub kernel: &'a Path,
    /// What it finds as its first file system.
    pub initramfs: &'a Path,
    /// How large it is.
    pub size: Size,
    /// When it is stopped.
    pub limit: Duration,
}

/// Boots a machine and waits for its end; tells each line of its console, and returns the status of the guest's command.
///
/// # Errors
/// If QEMU cannot be run, the guest ends without a status (a panic), or the limit passes.
pub fn boot(machine: &Machine<'_>, told: &mut dyn FnMut(&str)) -> Result<u8> {
    if Path::new("/dev/kvm").exists() {
        match attempt(machine, true, told) {
            Err(Failure::Boot) => told("vm: /dev/kvm does not boot this kernel; by software emulation then"),
            Err(Failure::Other(error)) => return Err(error),
            Ok(status) => return Ok(status),
        }
    }
    match attempt(machine, false, told) {
        Ok(status) => Ok(status),
        Err(Failure::Boot) => bail!("the kernel does not boot; see its console above"),
        Err(Failure::Other(error)) => Err(error),
    }
}

enum Failure {
    /// The guest's first process did not start.
    Boot,
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

fn attempt(machine: &Machine<'_>, kvm: bool, told: &mut dyn FnMut(&str)) -> Result<u8, Failure> {
    let Machine { kernel, initramfs, size, limit } = *machine;
    let mut command = Command::new(run::which(QEMU).unwrap_or_else(|| PathBuf::from(QEMU)));
    command.args(["-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"]);
    command.arg("-smp").arg(size.cpus.to_string());
    command.args(if kvm { ["-accel", "kvm", "-cpu", "host"] } else { ["-accel", "tcg,thread=multi", "-cpu", "max"] });
    command.arg("-m").arg(size.memory.to_string()).arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    // A virtual processor may stand still for long on a busy machine: no watchdog.
    command.args(["-append", "console=ttyS0 loglevel=4 panic=-1 oops=panic mitigations=off nowatchdog net.ifnames=0"]);
    let mut machine = Running(
        command
            .stdin(Stdio::null())
            .stderr(if kvm { Stdio::null() } else { Stdio::inherit() })
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run QEMU")?,
    );
    let console = machine.0.stdout.take().context("no pipe to the console")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        // Consoles print bytes that are not text.
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    let start = Instant::now();
    let mut started = false;
    loop {
        match receiver.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                started |= line.ends_with(START);
                if let Some(status) = line.split_once(EXIT).map(|(_, status)| status) {
                    return Ok(status.trim().parse().context("the guest's status is not a number")?);
                }
                told(&line);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(if !started {
                    Failure::Boot
                } else {
                    anyhow::anyhow!("ended without a status; see its console above").into()
                });
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if !started && kvm && start.elapsed() > BOOT {
            return Err(Failure::Boot);
        }
        if start.elapsed() > limit {
            return Err(anyhow::anyhow!("took longer than {} s and was stopped", limit.as_secs()).into());
        }
    }
}

/// A running QEMU, ended with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
