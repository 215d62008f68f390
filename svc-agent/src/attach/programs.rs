//! Loads the kernel programs over the pinned maps.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use anyhow::Context as _;
use aya::maps::ProgramArray;
use aya::programs::{ProgramType, SchedClassifier};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfLoader};
use nix::time::{ClockId, clock_getres};
use svc_common::maps::{Clock as Seconds, spec};

use super::debug_log::DebugLog;
use super::maps::{Maps, Sizes, check_pins};
use super::pins::PinDir;
use super::verify;
use crate::datapath::program;
use crate::sys::bpf;
use crate::sys::link::SocketHook;

/// A program that the kernel accepted.
#[derive(Debug)]
pub struct Loaded {
    /// Its file descriptor.
    pub fd: OwnedFd,
    /// Its number.
    pub id: u32,
}

/// The loaded programs.
#[derive(Debug)]
pub struct Programs {
    /// Keeps what is attached nowhere; what is attached lives on without it.
    ebpf: Ebpf,
    loaded: BTreeMap<&'static str, Loaded>,
    sockets: SocketPrograms,
    debug_log: Option<DebugLog>,
}

/// The programs of the socket hooks, which a kernel may lack.
#[derive(Debug, Default)]
pub struct SocketPrograms {
    /// Those that the kernel accepted.
    pub loaded: BTreeMap<SocketHook, Loaded>,
    /// Why it did not accept the others.
    pub refused: BTreeMap<SocketHook, String>,
    /// Whether a refused connection is told by its own error, not by EPERM.
    pub tells_refusal: bool,
}

impl Programs {
    /// Adopts or makes the maps, and loads every program of `object` over them, those of the socket hooks only if `sockets`.
    /// Nothing is attached.
    ///
    /// # Errors
    /// If the kernel refuses a map or a program.
    pub fn load(pins: &PinDir, object: &[u8], sizes: Sizes, sockets: bool) -> anyhow::Result<(Self, Maps)> {
        check_pins(pins, object, sizes)?;
        let jiffy_mult = jiffy_mult()?;
        let mut loader = EbpfLoader::new();
        loader.override_global(program::JIFFY_MULT, &jiffy_mult, true);
        let tells_refusal =
            is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval).unwrap_or(false);
        let has_set_retval = u32::from(tells_refusal);
        loader.override_global(program::HAS_SET_RETVAL, &has_set_retval, true);
        for map in spec::ALL {
            loader.map_max_entries(map.name, sizes.capacity(map)).map_pin_path(map.name, pins.map(map));
        }
        let mut ebpf = loader.load(object).context("cannot load the kernel programs' maps")?;
        let debug_log = DebugLog::of(&mut ebpf)?;
        let mut names = vec![
            program::XDP,
            program::XDP_VETH,
            program::TC_INGRESS,
            program::TC_EGRESS,
            program::CLOCK,
            program::SWEEP,
        ];
        names.extend(program::STAGES.iter().flat_map(|(_, names)| names));
        // All of them before the first stage is replaced: if one is refused, the datapath stays as it was.
        let loaded = verify::load_all(&mut ebpf, &names)?;
        let maps = Maps::open(pins)?;
        for (array, names) in program::STAGES {
            let mut array = ProgramArray::try_from(maps.map(&array)?)?;
            for (index, name) in (0..).zip(names) {
                let stage = ebpf.program(name).context("loaded just now")?.fd()?;
                array.set(index, stage, 0).with_context(|| format!("cannot make `{name}` a stage"))?;
            }
        }
        let sockets = if sockets { load_sockets(&mut ebpf, tells_refusal) } else { SocketPrograms::default() };
        Ok((Self { ebpf, loaded, sockets, debug_log }, maps))
    }

    /// The programs of the socket hooks, once.
    pub fn take_sockets(&mut self) -> SocketPrograms {
        std::mem::take(&mut self.sockets)
    }

    /// What reads the lines of a debugging build, once.
    pub fn take_debug_log(&mut self) -> Option<DebugLog> {
        self.debug_log.take()
    }

    /// One of the programs.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn get(&self, name: &str) -> anyhow::Result<&Loaded> {
        self.loaded.get(name).with_context(|| format!("the kernel programs have no `{name}`"))
    }

    /// Whether a program is one of these.
    pub fn owns(&self, program_id: u32) -> bool {
        self.loaded.values().any(|loaded| loaded.id == program_id)
    }

    /// A tc program as aya knows it, for filters where there are no links.
    pub(super) fn classifier(&mut self, name: &str) -> anyhow::Result<&mut SchedClassifier> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("the kernel programs have no `{name}`"))?;
        Ok(program.try_into()?)
    }

    /// The datapath's clock.
    ///
    /// # Errors
    /// If the process has no file descriptor left.
    pub fn clock(&self) -> anyhow::Result<Clock> {
        Ok(Clock(self.get(program::CLOCK)?.fd.try_clone()?))
    }

    /// The program that removes connections.
    ///
    /// # Errors
    /// If the process has no file descriptor left.
    pub fn sweep(&self) -> anyhow::Result<Sweep> {
        Ok(Sweep(self.get(program::SWEEP)?.fd.try_clone()?))
    }
}

/// Loads the programs of the socket hooks; what the kernel refuses is no error, as older ones lack some of the hooks.
fn load_sockets(ebpf: &mut Ebpf, tells_refusal: bool) -> SocketPrograms {
    let mut programs = SocketPrograms { tells_refusal, ..SocketPrograms::default() };
    let names = SocketHook::ALL.map(program::of_sockets);
    let mut loaded = verify::load(ebpf, &names);
    for (hook, name) in SocketHook::ALL.into_iter().zip(names) {
        match loaded.remove(name) {
            Some(Ok(loaded)) => drop(programs.loaded.insert(hook, loaded)),
            Some(Err(error)) => drop(programs.refused.insert(hook, format!("{error:#}"))),
            None => {}
        }
    }
    programs
}

/// The clock that stamps flows, read by running the program `svc_clock`.
#[derive(Debug)]
pub struct Clock(OwnedFd);

impl Clock {
    /// Seconds since an arbitrary start.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn now_s(&self) -> anyhow::Result<Seconds> {
        // The shortest packet that the kernel takes.
        bpf::run(&self.0, &[0; 64]).context("cannot read the datapath's clock")
    }
}

/// The program `svc_sweep`.
#[derive(Debug)]
pub struct Sweep(OwnedFd);

impl Sweep {
    /// Runs it over a frame; the bits of the result say which of the frame's connections were removed.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn run(&self, frame: &[u8]) -> anyhow::Result<u32> {
        bpf::run(&self.0, frame).context("cannot run `svc_sweep`")
    }
}

/// `2^32 / HZ`, with which the programs scale jiffies to seconds.
pub(super) fn jiffy_mult() -> anyhow::Result<u64> {
    // The coarse clocks advance with each jiffy and say so.
    let jiffy = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).context("cannot find out the kernel's HZ")?;
    let jiffy_ns = u64::try_from(jiffy.tv_nsec()).unwrap_or_default();
    anyhow::ensure!(jiffy.tv_sec() == 0 && jiffy_ns > 0, "cannot find out the kernel's HZ: a jiffy of {jiffy}");
    Ok(mult_of_jiffy(jiffy_ns))
}

const fn mult_of_jiffy(jiffy_ns: u64) -> u64 {
    const SECOND_NS: u64 = 1_000_000_000;
    // HZ is a whole number; the nanoseconds of a jiffy are rounded.
    let hz = (SECOND_NS + jiffy_ns / 2) / jiffy_ns;
    (1 << 32) / hz
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jiffies_become_seconds_at_every_usual_hz() {
        for (jiffy_ns, hz) in
            [(10_000_000, 100), (4_000_000, 250), (3_333_333, 300), (1_000_000, 1000), (976_563, 1024)]
        {
            let mult = mult_of_jiffy(jiffy_ns);
            assert_eq!(mult, (1 << 32) / hz, "HZ {hz}");
            let hour = 3_600 * hz;
            assert!((hour * mult) >> 32 >= 3_599, "HZ {hz}");
        }
        assert!(jiffy_mult().unwrap() > 0);
    }
}
