//! A capture through a configuration, without a kernel: the agent's own sources, policy and compiler fill the datapath's
//! environment in memory, and the host compilation of the pipeline does the rest.
//!
//! What the stack would do with a packet that the programs leave to it is not simulated, but for the way that it takes.

mod capture;
mod journey;
mod store;
#[cfg(test)]
mod tests;
mod world;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::Context as _;
use svc_common::env::Env;
use svc_common::family::{Family, V4, V6};
use svc_common::host::{Memory, Tables};
use svc_common::maps::{MapType, SWEEP_KEYS, Timeouts, Tuple};
use svc_common::packet::Frame;
use svc_common::wire::Header;

pub use self::capture::{CapturedFrame, Reader, Writer};
pub use self::journey::{Fate, Journey};
use self::store::MemoryStore;
pub use self::world::{Options, Side, World};
use crate::controllers::Controllers;
use crate::expire;
use crate::model::Rules;
use crate::reconcile::{Programmed, Reconciler};
use crate::resolve::{Policy, Problem, Resolver};
use crate::sources::manifests::ManifestSource;

/// How often flows that are over are removed, in seconds of the capture.
const SWEEP_S: u32 = 5;

/// Where a simulated packet meets our programs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FirstHook {
    /// XDP on uplinks, then tc
    Xdp,
    /// tc alone
    Tc,
}

/// A node in memory.
#[derive(Debug)]
pub struct Simulation {
    memory: Memory,
    world: World,
    first: FirstHook,
    programmed: Programmed,
    /// What the agent would say of the manifests.
    pub problems: Vec<Problem>,
    /// The capture's first moment, in seconds.
    begin_s: Option<u64>,
    swept_s: u32,
}

impl Simulation {
    /// Loads the manifests of a directory, or of a file, as the agent would on this node.
    ///
    /// # Errors
    /// If what they describe does not fit into the maps.
    pub fn new(manifests: &Path, world: World, first: FirstHook) -> anyhow::Result<Self> {
        anyhow::ensure!(manifests.exists(), "`{}`: no such directory or file", manifests.display());
        let snapshot = ManifestSource::look_once(manifests, "", &Rules::default());
        let snapshot = Controllers::default().complete(snapshot);
        let desired = Resolver::new(Policy::anything()).update(&snapshot, &world.node);
        let mut reconciler = Reconciler::new(MemoryStore::new(world.memory()));
        let report = reconciler.reconcile(&desired);
        if let Some((name, why)) = report.refused.iter().chain(&report.failed).next() {
            anyhow::bail!("Service `{name}`: {why}");
        }
        if let Some(error) = report.error {
            anyhow::bail!("{error}");
        }
        let mut memory = reconciler.store_mut().take();
        world.add_routes(&mut memory, &desired);
        let programmed = reconciler.programmed().clone();
        Ok(Self { memory, world, first, programmed, problems: desired.problems, begin_s: None, swept_s: 0 })
    }

    /// The maps and counters as they are.
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Which service has which id.
    pub const fn programmed(&self) -> &Programmed {
        &self.programmed
    }

    /// Sends one captured frame on its way.
    pub fn run(&mut self, captured: &CapturedFrame) -> Journey {
        // The datapath's clock is 32 bits of seconds from anywhere.
        let at_s = captured.timestamp.as_secs();
        let begin_s = *self.begin_s.get_or_insert(at_s);
        // A capture may go back by a little where its packets come from several CPUs.
        self.memory.now = self.memory.now.max(u32::try_from(at_s.saturating_sub(begin_s)).unwrap_or(u32::MAX));
        if self.memory.now - self.swept_s >= SWEEP_S {
            self.swept_s = self.memory.now;
            sweep::<V4>(&mut self.memory, |memory| &memory.v4);
            sweep::<V6>(&mut self.memory, |memory| &memory.v6);
        }
        self.memory.touched.clear();
        let device = self.world.arrival(captured.interface.as_deref());
        journey::run(&mut self.memory, self.first, device, &captured.bytes)
    }
}

/// Removes what has been silent for too long, in both directions, as the agent and its kernel program do.
fn sweep<F: Family>(memory: &mut Memory, tables: impl Fn(&Memory) -> &Tables<F>)
where
    Memory: Env<F>,
    Tuple<F::Addr>: MapType + Header,
{
    let keys: Vec<_> = tables(memory).flows.keys().chain(tables(memory).embryos.keys()).copied().collect();
    for keys in keys.chunks(SWEEP_KEYS) {
        let frame = expire::frame(keys, F::ETHER_TYPE, &Timeouts::default());
        let _removed = svc_common::expire::sweep::<F, _, _>(&mut Frame::<1>::new(&frame, 0), memory);
    }
}

/// Opens a capture to read.
///
/// # Errors
/// If it cannot be read, or is no capture of Ethernet frames.
pub fn open(path: &Path) -> anyhow::Result<Reader<BufReader<File>>> {
    let file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    Reader::new(BufReader::new(file)).with_context(|| format!("`{}`", path.display()))
}

/// Makes a capture to write; an input is not overwritten.
///
/// # Errors
/// If it cannot be written.
pub fn create(path: &Path, input: &Path) -> anyhow::Result<Writer<std::io::BufWriter<File>>> {
    // An output that does not exist is no input.
    let same = matches!((path.canonicalize(), input.canonicalize()), (Ok(output), Ok(input)) if output == input);
    anyhow::ensure!(!same, "`{}` is the input; name another file for the output", path.display());
    let file = File::create(path).with_context(|| format!("cannot write `{}`", path.display()))?;
    Writer::new(std::io::BufWriter::new(file)).with_context(|| format!("cannot write `{}`", path.display()))
}
