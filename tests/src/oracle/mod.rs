//! The loaded programs and the host compilation of the same pipeline, side by side.
//!
//! Every map write and every frame goes to both; every verdict, every byte and every table must be equal.

mod compare;
pub mod flows;
mod policy;
mod programs;
pub mod random;
mod sweep;
mod tables;
mod verdict;
mod world;

use std::collections::HashMap;

use aya::{
    Ebpf, EbpfLoader, TestRun, TestRunOptions,
    programs::{SchedClassifier, Xdp},
};
use nix::{
    sched::{CloneFlags, CpuSet, sched_getcpu, sched_setaffinity, unshare},
    unistd::Pid,
};
use svc_agent::datapath;
use svc_common::{
    host::{self, Memory},
    maps::spec,
    outcome::Outcome,
    packet::Hook,
    reason::Reason,
    stage::Stage,
};

use self::programs::Stages;
use crate::packet::hex;

/// The device that faces the network.
pub const UPLINK: &str = "up0";
/// The device of the pod `10.244.1.5`, `fd00:244:1::5`.
pub const WORKLOAD: &str = "wl0";
/// Ethernet address of [`UPLINK`].
pub const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
/// Ethernet address of the router on the uplink.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x20];
/// Ethernet address of [`WORKLOAD`].
pub const WORKLOAD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x30];
/// Ethernet address of the pod.
pub const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x40];
/// Source addresses of the uplink.
pub const NODE: (&str, &str) = ("192.0.2.10", "2001:db8::10");

/// Size of the flow tables in these tests.
pub const FLOWS: u32 = 1024;

/// Both compilations and their worlds.
pub struct Oracle {
    /// The loaded programs; none where the host compilation runs alone.
    kernel: Option<Ebpf>,
    stages: Option<Stages>,
    /// The host's world, for what a test wants to look at or to change on the host alone.
    pub memory: Memory,
    devices: HashMap<&'static str, u32>,
    next_row: u32,
    /// Whether the kernel knows the neighbours that it does not know at first.
    knows_neighbours: bool,
    /// Of the aggregate at hand; zero for anything else.
    segment_payload: u32,
    /// The words of `KNOWN` that are not zero.
    known: HashMap<u32, u64>,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What the pipeline decided, as the host compilation says; the kernel's verdict was the one that belongs to it.
    pub outcome: Outcome,
    /// The frame afterwards, the same from both.
    pub bytes: Vec<u8>,
}

/// What differs between those who use an oracle.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// What the programs multiply jiffies by. Zero, for tests, lets the clock stand still at what [`Oracle::set_clock`] says.
    pub jiffy_mult: u64,
    /// Size of each table of established connections.
    pub flows: u32,
    /// Size of each half-open one; if so large that the kernel evicts nothing, the host's are equal, as it does not.
    pub embryos: u32,
    /// Size of what the agent writes: slots, selections, backends; and of the services' counters.
    pub services: u32,
    /// Another build of the programs than the embedded one.
    pub object: Option<&'static [u8]>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { jiffy_mult: 0, flows: FLOWS, embryos: 8192, services: 4096, object: None }
    }
}

/// Runs `test` on a thread with a network namespace of its own and the programs loaded; skips, saying so, without the
/// privilege or the programs.
pub fn with_oracle(test: impl FnOnce(&mut Oracle) + Send + 'static) {
    if in_namespace(test).is_none() {
        eprintln!("SKIPPED: packet tests need root and the kernel programs: run `cargo xtask test` as root");
    }
}

/// The same for anything that returns a value; nothing without the privilege or the programs.
pub fn in_namespace<T: Send>(task: impl FnOnce(&mut Oracle) -> T + Send) -> Option<T> {
    in_namespace_with(Setup::default(), task)
}

/// The same with another set-up.
pub fn in_namespace_with<T: Send>(setup: Setup, task: impl FnOnce(&mut Oracle) -> T + Send) -> Option<T> {
    let joined = std::thread::scope(|scope| {
        let thread = scope.spawn(|| Oracle::in_this_thread(setup).map(|mut oracle| task(&mut oracle)));
        thread.join()
    });
    match joined {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

impl Oracle {
    /// An oracle in this thread, which leaves its network namespace for a new one; nothing without the privilege or the programs.
    fn in_this_thread(setup: Setup) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !datapath::embedded() {
            return None;
        }
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of our own");
        stay_on_one_cpu();
        Some(Self::new(setup))
    }
}

/// What the programs keep for each CPU, the host has once.
fn stay_on_one_cpu() {
    let cpu = sched_getcpu().expect("a CPU");
    let mut cpus = CpuSet::new();
    cpus.set(cpu).expect("its number");
    sched_setaffinity(Pid::from_raw(0), &cpus).expect("the affinity of a thread of ours");
}

impl Oracle {
    fn new(setup: Setup) -> Self {
        world::lay_out();
        let mut loader = EbpfLoader::new();
        loader.override_global(datapath::program::JIFFY_MULT, &setup.jiffy_mult, true);
        for map in [spec::FLOWS_V4, spec::FLOWS_V6] {
            loader.map_max_entries(map.name, setup.flows);
        }
        for map in [spec::EMBRYOS_V4, spec::EMBRYOS_V6] {
            loader.map_max_entries(map.name, setup.embryos);
        }
        for (map, elements) in
            [(spec::FRAGMENTS_V4, 1024), (spec::FRAGMENTS_V6, 1024), (spec::HELD_V4, 256), (spec::HELD_V6, 256)]
        {
            loader.map_max_entries(map.name, elements);
        }
        for map in [spec::SLOTS, spec::SELECTIONS, spec::BACKENDS_V4, spec::BACKENDS_V6, spec::SVC_COUNTERS] {
            loader.map_max_entries(map.name, setup.services);
        }
        let object = setup.object.unwrap_or_else(|| datapath::object().expect("embedded"));
        let mut kernel = loader.load(object).expect("the object loads");
        let stages = Stages::new(&mut kernel);
        Self::with(Some((kernel, stages)))
    }

    /// The host compilation alone, in the same world, for whoever may not load programs.
    pub fn host_only() -> Self {
        Self::with(None)
    }

    fn with(loaded: Option<(Ebpf, Stages)>) -> Self {
        let (kernel, stages) = loaded.unzip();
        let mut oracle = Self {
            kernel,
            stages,
            memory: Memory::default(),
            devices: HashMap::new(),
            next_row: 0,
            knows_neighbours: false,
            segment_payload: 0,
            known: HashMap::new(),
        };
        oracle.memory.v4.flows_capacity = FLOWS as usize;
        oracle.memory.v6.flows_capacity = FLOWS as usize;
        oracle.build_world();
        oracle
    }

    /// The loaded programs and maps.
    pub fn kernel(&self) -> &Ebpf {
        self.kernel.as_ref().expect("a kernel besides the host")
    }

    /// The same, to attach one.
    pub fn kernel_mut(&mut self) -> &mut Ebpf {
        self.kernel.as_mut().expect("a kernel besides the host")
    }

    /// Loads every program of the datapath, for whoever does not run them by [`Oracle::run`].
    pub fn load_all(&mut self) {
        if let Some((kernel, stages)) = self.kernel.as_mut().zip(self.stages.as_mut()) {
            for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                stages.need(kernel, hook, &Stage::ALL);
            }
        }
    }

    /// The context of a test run on a frame of `len` bytes that comes in through (at egress: leaves by) `device`.
    pub fn context(&self, hook: Hook, device: &str, len: usize) -> Vec<u8> {
        context(hook, self.ifindex(device), len, 0)
    }

    /// The datapath's clock, as the loaded programs read it.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn clock(&self) -> anyhow::Result<u32> {
        let clock: &SchedClassifier = self.kernel().program(datapath::program::CLOCK).expect("loaded").try_into()?;
        let frame = [0; 64];
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
        Ok(clock.test_run(options)?.return_value)
    }

    /// The index of a device, also of one that the datapath does not know.
    pub fn ifindex(&self, device: &str) -> u32 {
        let named = || nix::net::if_::if_nametoindex(device).expect("a device of the namespace");
        self.devices.get(device).copied().unwrap_or_else(named)
    }

    /// Runs a frame that comes in through (at egress: leaves by) `device` on both and compares everything.
    #[track_caller]
    pub fn run(&mut self, hook: Hook, device: &str, frame: &[u8]) -> Run {
        self.run_aggregate(hook, device, frame, 0)
    }

    /// The same for an aggregate of packets with `segment_payload` bytes of payload each, if that is not zero.
    #[track_caller]
    pub fn run_aggregate(&mut self, hook: Hook, device: &str, frame: &[u8], segment_payload: u32) -> Run {
        self.segment_payload = segment_payload;
        let run = self.run_both(hook, self.ifindex(device), frame).unwrap_or_else(|difference| panic!("{difference}"));
        self.segment_payload = 0;
        self.assert_equal_worlds();
        run
    }

    /// The same, but of the tables compares only what the host touched.
    ///
    /// # Errors
    /// The first difference.
    pub fn run_both(&mut self, hook: Hook, ifindex: u32, frame: &[u8]) -> Result<Run, String> {
        self.memory.touched.clear();
        let host = self.run_host(hook, ifindex, frame);
        self.one_reason(host.outcome)?;
        if let Some((kernel, stages)) = self.kernel.as_mut().zip(self.stages.as_mut()) {
            stages.need(kernel, hook, &self.memory.touched.stages);
        } else {
            return Ok(host);
        }
        let (verdict, bytes) = self.run_kernel(hook, ifindex, frame);
        if verdict != verdict::of(hook, host.outcome, ifindex) {
            let verdict = verdict::name(hook, verdict);
            return Err(format!("verdict at {hook:?}\n kernel: {verdict}\n   host: {:?}", host.outcome));
        }
        if bytes != host.bytes {
            return Err(format!("frame\n kernel: {}\n   host: {}", hex(&bytes), hex(&host.bytes)));
        }
        match self.difference_in_touched() {
            Some(difference) => Err(difference),
            None => Ok(host),
        }
    }

    /// Of the reasons that were counted for a packet, one at most says what became of it; of one that was dropped, exactly one.
    fn one_reason(&self, outcome: Outcome) -> Result<(), String> {
        let counted = &self.memory.touched.reasons;
        let fate: Vec<_> = counted.iter().copied().filter(|reason| !reason.is_note()).collect();
        // Each of the pieces that a first one releases is noted.
        let notes = counted.iter().filter(|reason| reason.is_note() && **reason != Reason::FragmentReleased).count();
        let right = match outcome {
            Outcome::Drop(reason) => fate == [reason],
            _ => fate.len() <= 1,
        };
        if right && notes <= 4 { Ok(()) } else { Err(format!("{outcome:?}, but counted are {counted:?}")) }
    }

    fn run_host(&mut self, hook: Hook, ifindex: u32, frame: &[u8]) -> Run {
        let (outcome, bytes) = host::run_frame(&mut self.memory, hook, frame, ifindex, self.segment_payload);
        Run { outcome, bytes }
    }

    fn run_kernel(&self, hook: Hook, ifindex: u32, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; frame.len() + 256];
        let context = context(hook, ifindex, frame.len(), self.segment_payload);
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result = match hook {
            Hook::Xdp => {
                let program = self.kernel().program(datapath::program::XDP).expect("loaded");
                TryInto::<&Xdp>::try_into(program).expect("XDP").test_run(options)
            }
            Hook::Ingress | Hook::Egress => {
                let name =
                    if hook == Hook::Ingress { datapath::program::TC_INGRESS } else { datapath::program::TC_EGRESS };
                let program = self.kernel().program(name).expect("loaded");
                TryInto::<&SchedClassifier>::try_into(program).expect("tc").test_run(options)
            }
        };
        let result =
            result.unwrap_or_else(|error| panic!("test run at {hook:?} device {ifindex} of {}: {error:?}", hex(frame)));
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    /// Runs a frame through the XDP program for veth alone: the verdict and the frame.
    pub fn run_veth(&mut self, frame: &[u8]) -> (u32, Vec<u8>) {
        let name = datapath::program::XDP_VETH;
        if self.kernel().program(name).expect(name).fd().is_err() {
            programs::load(self.kernel_mut(), name);
        }
        let context = self.context(Hook::Xdp, UPLINK, frame.len());
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let program: &Xdp = self.kernel().program(name).expect(name).try_into().expect("XDP");
        let result = program.test_run(options).expect("test run");
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }
}

/// The context of a test run; see [`Oracle::context`].
fn context(hook: Hook, ifindex: u32, len: usize, segment_payload: u32) -> Vec<u8> {
    match hook {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        Hook::Xdp => words(&[(1, len as u32), (3, ifindex)], 6),
        // struct __sk_buff, 192 bytes in all: ifindex, gso_segs and gso_size.
        Hook::Ingress | Hook::Egress => {
            let segments = (len as u32).checked_div(segment_payload).unwrap_or(0);
            words(&[(10, ifindex), (41, segments), (44, segment_payload)], 48)
        }
    }
}

/// A context of `len` words that are zero but for some.
fn words(set: &[(usize, u32)], len: usize) -> Vec<u8> {
    let mut words = vec![0u32; len];
    for (index, value) in set {
        words[*index] = *value;
    }
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
