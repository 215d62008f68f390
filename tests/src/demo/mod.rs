//! The demo: a small cluster in network namespaces, the agent on the manifests of `examples/`, real requests.
//!
//! It runs as two processes. The outer one removes what an earlier demo left, starts the inner one, and clears up after
//! it however it ends: done, failed, crashed, or stopped by Ctrl-C. The inner one makes the world and shows it.

mod change;
mod flows;
mod requests;
mod restart;
mod show;
mod stage;

use std::fs::{File, TryLockError};
use std::process::{Child, Command};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};

use show::Show;
use stage::Stage;

/// Locked while a demo runs: a directory that is there anyway, so that no file stays behind.
const LOCK: &str = "/run";

/// Shows the load balancer at work.
#[derive(clap::Parser)]
#[command(name = "cargo xtask demo", bin_name = "cargo xtask demo")]
pub struct Args {
    /// Leave the world up at the end, and say how to play with it
    #[arg(long)]
    keep: bool,
    /// Remove a world that was left up
    #[arg(long, conflicts_with = "keep")]
    down: bool,
    /// Be the inner process
    #[arg(long, hide = true)]
    inner: bool,
}

/// Runs the demo; false if a step did not do what it said, which has been printed.
///
/// # Errors
/// If the demo itself cannot run.
pub fn run(args: &Args) -> Result<bool> {
    if args.inner {
        return perform(args.keep);
    }
    let _alone = alone()?;
    stage::remove();
    if args.down {
        println!("The demo's world is gone.");
        return Ok(true);
    }
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD].into_iter().collect();
    signals.thread_block()?;
    let mut inner = Command::new(std::env::current_exe()?);
    inner.arg("--inner").args(args.keep.then_some("--keep"));
    let good = supervise(inner.spawn().context("cannot start the demo")?, &signals)?;
    if !(good && args.keep) {
        stage::remove();
    }
    Ok(good)
}

/// Makes sure that no other demo runs: they would remove each other's world. The kernel ends the lock with the process.
fn alone() -> Result<File> {
    let lock = File::open(LOCK).with_context(|| format!("cannot open {LOCK}"))?;
    if let Err(TryLockError::WouldBlock) = lock.try_lock() {
        bail!("another demo is running; wait for its end, or stop it");
    }
    Ok(lock)
}

/// Waits until the inner process ends, and ends it first if this one is told to end.
fn supervise(mut inner: Child, signals: &SigSet) -> Result<bool> {
    loop {
        let signal = signals.wait()?;
        if signal == Signal::SIGCHLD {
            if let Some(status) = inner.try_wait()? {
                return Ok(status.success());
            }
        } else {
            // It may make namespaces this very moment: clearing up starts when it is surely dead.
            let _ = inner.kill();
            inner.wait()?;
            println!("\nStopped by {signal}; removing everything.");
            return Ok(false);
        }
    }
}

type Step = fn(&Show, &mut Stage) -> Result<()>;

/// The steps, each of which checks what it shows.
const STEPS: &[(&str, Step)] = &[
    ("A client outside, two nodes, five pods", stage::describe),
    ("The agent starts on the first node, with the manifests of examples/", stage::start_agent),
    ("A pod asks the ClusterIP", requests::from_a_pod),
    ("The client outside asks the nodePort", requests::node_port),
    ("The client outside asks the load balancer address", requests::load_balancer),
    ("A backend is added and one removed while requests run", change::under_load),
    ("The agent is killed and restarted during a download", restart::during_a_download),
    ("One connection in the flow table", flows::of_one_connection),
];

fn perform(keep: bool) -> Result<bool> {
    let show = Show::default();
    let mut stage = Stage::build().context("cannot make the demo's world")?;
    for (number, (title, step)) in STEPS.iter().enumerate() {
        println!("\n== {}. {title}", number + 1);
        if let Err(error) = step(&show, &mut stage) {
            println!("FAILED: {error:#}");
            stage.explain();
            return Ok(false);
        }
    }
    println!("\nAll {} steps did what they said, in {} s.", STEPS.len(), show.elapsed_s());
    if keep {
        stage.keep();
        stage::print_how_to_play();
    }
    Ok(true)
}
