//! Control groups as guards, and sockets that belong to them.
//!
//! The socket hooks see the sockets of one control group. A group of its own keeps an agent under test away from every other
//! process of the machine. A socket belongs to the group of the process that made it: `svc-testsock` makes them on demand,
//! inside of a group and a network namespace, and hands them over.

use std::fs;
use std::io::{self, IoSliceMut, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{self, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::binaries;
use crate::client::PATIENCE;
use crate::netns::{Netns, path_of};
use crate::scratch;

/// A control group of version 2; it goes when dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a group right below the root.
    ///
    /// # Errors
    /// If there is no hierarchy, or the kernel refuses.
    pub fn create() -> Result<Self> {
        let path = root().context("no control group hierarchy of version 2 is mounted")?.join(scratch::name());
        fs::create_dir(&path).with_context(|| format!("cannot make the control group {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes a command into the group: whatever it runs makes its sockets there.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 0 > \"$0\" && exec \"$@\""]).arg(self.path.join("cgroup.procs"));
        command.arg(program).args(args);
        command
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was just killed may still be on its way out.
        for _ in 0..100 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                _ => return,
            }
        }
    }
}

/// Where the hierarchy is mounted.
pub fn root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    mounts.find_map(|fields| match fields.as_slice() {
        [_, path, "cgroup2", ..] => Some(PathBuf::from(path)),
        _ => None,
    })
}

/// What kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A process in a network namespace and a control group that makes sockets; it ends when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    channel: UnixStream,
}

impl Process {
    /// Starts the process, in the group of this one if none is given.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(ns: &Netns, cgroup: Option<&Cgroup>) -> Result<Self> {
        let (channel, theirs) = UnixStream::pair()?;
        channel.set_read_timeout(Some(PATIENCE))?;
        let mut command = binaries::command("svc-testsock")?;
        command.arg("--netns").arg(path_of(ns.name()));
        if let Some(cgroup) = cgroup {
            command.arg("--cgroup").arg(cgroup.path());
        }
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn().context("cannot start svc-testsock")?;
        Ok(Self { child, channel })
    }

    /// Makes a socket.
    ///
    /// # Errors
    /// If the process is gone or the kernel refuses.
    pub fn socket(&self, kind: Kind, v4: bool) -> Result<OwnedFd> {
        (&self.channel).write_all(&[if v4 { b'4' } else { b'6' }, if kind == Kind::Tcp { b't' } else { b'u' }])?;
        let mut byte = [0; 1];
        let mut buffers = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.channel.as_raw_fd(), &mut buffers, Some(&mut space), flags)?;
        let handed = message.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        let socket = owned(handed.context("svc-testsock handed over no socket")?);
        setsockopt(&socket, SendTimeout, &TimeVal::milliseconds(3000))?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(3000))?;
        Ok(socket)
    }
}

impl Process {
    /// Opens a TCP connection.
    ///
    /// # Errors
    /// As `connect` says.
    pub fn connect(&self, to: SocketAddr) -> Result<TcpStream> {
        let socket = self.socket(Kind::Tcp, to.is_ipv4())?;
        dial(&socket, to)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Makes a UDP socket that is bound to any port, of IPv6 for both families if not `v4`.
    ///
    /// # Errors
    /// If the process is gone or the kernel refuses.
    pub fn udp(&self, v4: bool) -> Result<UdpSocket> {
        Ok(UdpSocket::from(self.socket(Kind::Udp, v4)?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `connect`, with the error as it is.
///
/// # Errors
/// As the kernel says.
pub fn dial(socket: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    Ok(socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?)
}

#[expect(unsafe_code, reason = "a socket that came in a message is a number at first")]
fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel made this descriptor for us a moment ago, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
