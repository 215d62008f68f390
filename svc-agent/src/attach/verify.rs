//! Has programs verified, on all CPUs at once: the kernel takes tenths of a second for each of the larger ones.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::os::fd::AsFd as _;
use std::sync::Mutex;
use std::thread;

use anyhow::Context as _;
use aya::Ebpf;
use aya::programs::{Program, ProgramError};

use super::programs::Loaded;

/// Loads programs of `ebpf`: what came of each.
pub fn load<'a>(ebpf: &mut Ebpf, names: &[&'a str]) -> BTreeMap<&'a str, anyhow::Result<Loaded>> {
    let mut loaded: BTreeMap<_, _> = names
        .iter()
        .map(|name| (*name, Err(anyhow::anyhow!("the kernel programs have no `{name}`; rebuild the agent"))))
        .collect();
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    let queue = Mutex::new(
        ebpf.programs_mut().filter_map(|(own, program)| Some((*names.iter().find(|name| **name == own)?, program))),
    );
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let work = || {
        let mut done = Vec::new();
        while let Some((name, program)) = next() {
            done.push((name, load_one(name, program)));
        }
        done
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus.min(names.len())).map(|_| scope.spawn(work)).collect();
        // A thread that panicked leaves its programs as if they were missing.
        loaded.extend(threads.into_iter().filter_map(|thread| thread.join().ok()).flatten());
    });
    loaded
}

/// The same, where every one is needed.
///
/// # Errors
/// If the kernel refuses one: which, and why.
pub fn load_all<'a>(ebpf: &mut Ebpf, names: &[&'a str]) -> anyhow::Result<BTreeMap<&'a str, Loaded>> {
    load(ebpf, names).into_iter().map(|(name, loaded)| Ok((name, loaded?))).collect()
}

fn load_one(name: &str, program: &mut Program) -> anyhow::Result<Loaded> {
    let refused = || format!("the kernel refuses the program `{name}`");
    match program {
        Program::Xdp(xdp) => verified(|| xdp.load()).with_context(refused)?,
        Program::SchedClassifier(classifier) => verified(|| classifier.load()).with_context(refused)?,
        Program::CgroupSockAddr(call) => verified(|| call.load()).with_context(refused)?,
        Program::CgroupSock(socket) => verified(|| socket.load()).with_context(refused)?,
        _ => anyhow::bail!("`{name}` is of a kind that this agent does not attach; rebuild the agent"),
    }
    let fd = program.fd()?.as_fd().try_clone_to_owned()?;
    Ok(Loaded { id: program.info()?.id(), fd })
}

/// Loads a program. The verifier gives up with EAGAIN while a signal waits for the thread: then it is asked again.
fn verified(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    const ATTEMPTS: u32 = 10;
    for _ in 1..ATTEMPTS {
        match load() {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == std::io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
    load()
}
