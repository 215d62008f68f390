//! Makes sockets in a network namespace and a control group, and hands them over the Unix socket that is its standard input:
//! two bytes ask for one, `4` or `6` and `t` or `u`. It ends when the other end does.

use std::fs::{self, File};
use std::io::{IoSlice, Read};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socket};

/// Makes sockets on demand, for tests.
#[derive(Parser)]
struct Args {
    /// Network namespace to enter
    #[arg(long, value_name = "FILE")]
    netns: PathBuf,
    /// Control group to join
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(cgroup) = args.cgroup {
        fs::write(cgroup.join("cgroup.procs"), "0").context("cannot join the control group")?;
    }
    let netns = File::open(&args.netns).context("cannot open the network namespace")?;
    setns(netns, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
    let stdin = std::io::stdin();
    let mut wanted = [0; 2];
    while stdin.lock().read_exact(&mut wanted).is_ok() {
        let [family, kind] = wanted;
        let family = if family == b'4' { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let kind = if kind == b't' { SockType::Stream } else { SockType::Datagram };
        let made = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
        let rights = [made.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&rights)];
        sendmsg::<()>(stdin.as_raw_fd(), &[IoSlice::new(b".")], &rights, MsgFlags::empty(), None)?;
    }
    Ok(())
}
