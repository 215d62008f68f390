//! The load of `bench sockets`: a server or a client in a network namespace, a control group and on a CPU. It ends with its
//! standard input.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::unistd::Pid;
use svc_tests::bench::sockets::load;

/// Serves or asks, for benchmarks.
#[derive(Parser)]
struct Args {
    /// What to be
    role: Role,
    /// Network namespace to enter
    #[arg(long, value_name = "FILE")]
    netns: PathBuf,
    /// Control group to join
    #[arg(long, value_name = "DIR")]
    cgroup: PathBuf,
    /// CPU to stay on
    #[arg(long, value_name = "N")]
    cpu: usize,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Role {
    /// The server
    Serve,
    /// The client
    Ask,
}

fn main() -> Result<()> {
    let args = Args::parse();
    fs::write(args.cgroup.join("cgroup.procs"), "0").context("cannot join the control group")?;
    let netns = File::open(&args.netns).context("cannot open the network namespace")?;
    setns(netns, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
    let mut cpus = CpuSet::new();
    cpus.set(args.cpu).context("no such CPU")?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("cannot stay on one CPU")?;
    match args.role {
        Role::Serve => load::serve(),
        Role::Ask => load::answer_questions(),
    }
}
