//! The guest: an initramfs of busybox, the programs that tests run, kernel modules, and our own binaries.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::kernel::Kernel;
use super::modules;
use crate::run;

/// Programs of the host that tests run.
const PROGRAMS: &[&str] = &[
    "bash",
    "ip",
    "ss",
    "tc",
    "ethtool",
    "curl",
    "iperf3",
    "nft",
    "ipvsadm",
    "tcpdump",
    "ping",
    "nsenter",
    "chrt",
    "unshare",
    "bpftool",
    "nc.openbsd",
];

/// What the guest's first process does. Its last line tells the host how it ended.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/svc:/bin HOME=/root TERM=dumb RUST_BACKTRACE=0 TMPDIR=/tmp
echo SVC-VM-START
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts /run/netns /tmp /root /var/run
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /run/netns
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
while read -r module; do
    insmod "/modules/$module.ko" 2>/dev/null || echo "vm: no module $module"
done < /modules/order
ip link set lo up
sysctl -q kernel.panic_on_warn=1
cd /svc
sh /command
status=$?
echo "SVC-VM-EXIT $status"
poweroff -f
"#;

/// The files of a guest.
pub struct Guest {
    /// Path without the leading slash, content.
    files: Vec<(String, Vec<u8>)>,
    present: BTreeSet<String>,
    /// Modules in the order in which they can be loaded.
    order: Vec<String>,
}

impl Guest {
    /// A guest with the host's programs in it.
    ///
    /// # Errors
    /// If busybox is missing.
    pub fn new() -> Result<Self> {
        let mut guest = Self { files: Vec::new(), present: BTreeSet::new(), order: Vec::new() };
        let busybox = run::which("busybox").context("no busybox; remedy: apt-get install busybox-static")?;
        guest.file("bin/busybox", std::fs::read(busybox)?);
        for program in PROGRAMS {
            match run::which(program) {
                Some(path) => guest.program(&format!("bin/{program}"), &path)?,
                None => println!("vm: the guest has no {program}, as this machine has none"),
            }
        }
        for table in ["/etc/protocols", "/etc/services"] {
            if let Ok(content) = std::fs::read(table) {
                guest.file(table.trim_start_matches('/'), content);
            }
        }
        Ok(guest)
    }

    /// Adds one of our binaries, without its debug information.
    ///
    /// # Errors
    /// If it has not been built.
    pub fn binary(&mut self, name: &str, path: &Path) -> Result<()> {
        if !path.is_file() {
            return Ok(());
        }
        let stripped = std::env::temp_dir().join(format!("svc-vm-{}-{name}", std::process::id()));
        let strip = run::quiet(Command::new("strip").arg("-o").arg(&stripped).arg(path), "apt-get install binutils");
        let result = strip.and_then(|_| self.program(&format!("svc/{name}"), &stripped));
        let _ = std::fs::remove_file(&stripped);
        result
    }

    /// Adds a file, which can be run if it is a script.
    pub fn file(&mut self, place: &str, content: Vec<u8>) {
        if self.present.insert(place.to_owned()) {
            self.files.push((place.to_owned(), content));
        }
    }

    /// Adds a module and what it depends on; one that the kernel does not have is left out.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn module(&mut self, kernel: &Kernel, name: &str) -> Result<()> {
        let path = format!("modules/{name}.ko");
        if self.present.contains(&path) {
            return Ok(());
        }
        let Some(file) = modules::find(&kernel.modules, name) else { return Ok(()) };
        let module = modules::read(&file)?;
        for needed in modules::depends(&module) {
            self.module(kernel, &needed)?;
        }
        self.order.push(name.to_owned());
        self.file(&path, module);
        Ok(())
    }

    /// Writes the initramfs; its first process runs `script`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(mut self, script: &str, place: &Path) -> Result<()> {
        self.file("init", INIT.into());
        self.file("command", format!("{script}\n").into_bytes());
        self.file("modules/order", format!("{}\n", self.order.join("\n")).into_bytes());
        let mut out = BufWriter::new(File::create(place).with_context(|| format!("cannot make {}", place.display()))?);
        let mut dirs: BTreeSet<String> =
            ["dev", "proc", "sys", "run", "tmp", "root", "var", "etc"].map(str::to_owned).into();
        for (path, _) in &self.files {
            let parents = Path::new(path).ancestors().skip(1).filter_map(Path::to_str);
            dirs.extend(parents.filter(|dir| !dir.is_empty()).map(str::to_owned));
        }
        for (number, dir) in (1u32..).zip(&dirs) {
            cpio::newc::Builder::new(dir).ino(number).mode(0o040_755).write(&mut out, 0).finish()?;
        }
        for (number, (path, content)) in (1_000u32..).zip(&self.files) {
            let entry = cpio::newc::Builder::new(path).ino(number).mode(0o100_755);
            let mut entry = entry.write(&mut out, u32::try_from(content.len())?);
            std::io::Write::write_all(&mut entry, content)?;
            entry.finish()?;
        }
        cpio::newc::trailer(&mut out)?;
        Ok(())
    }

    /// Adds a program and the libraries that it is linked with, where the program expects them.
    fn program(&mut self, place: &str, path: &Path) -> Result<()> {
        self.file(place, std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
        for library in libraries(path) {
            let place = library.to_string_lossy().trim_start_matches('/').to_owned();
            if !self.present.contains(&place) {
                let content = std::fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?;
                self.file(&place, content);
            }
        }
        Ok(())
    }
}

/// The shared libraries of a program, loader included; none if it is linked statically or a script.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let executable = std::fs::metadata(program).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0);
    let listed = executable.then(|| run::asked(Command::new("ldd").arg(program))).flatten().unwrap_or_default();
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
