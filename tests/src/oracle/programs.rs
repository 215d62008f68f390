//! The programs that are loaded: the ordinary path at once, each stage when a packet first needs it, as verifying all of them
//! takes seconds.

use std::collections::BTreeSet;

use aya::{
    Ebpf,
    maps::{MapData, ProgramArray},
    programs::{Program, ProgramError, SchedClassifier, Xdp},
};
use svc_agent::datapath::program;
use svc_common::{packet::Hook, stage::Stage};

/// Stand for stages that are not loaded. What they do no stage does: give the clock as the verdict, swap the Ethernet
/// addresses. So a packet that takes a stage in the kernel alone is a difference like any other.
const STRANGERS: [&str; 3] = ["limit_mac_swap", program::CLOCK, program::CLOCK];

/// The arrays of stages by hook. Emptied by the kernel when the last handle is closed.
pub struct Stages {
    arrays: Vec<ProgramArray<MapData>>,
    loaded: BTreeSet<&'static str>,
}

impl Stages {
    /// Loads the ordinary path, and fills the arrays with strangers.
    pub fn new(kernel: &mut Ebpf) -> Self {
        let ordinary = [program::XDP, program::TC_INGRESS, program::TC_EGRESS, program::CLOCK, program::SWEEP];
        for name in ordinary.into_iter().chain(["limit_empty", "limit_mac_swap"]) {
            load(kernel, name);
        }
        let mut arrays = Vec::new();
        for ((array, names), stranger) in program::STAGES.iter().zip(STRANGERS) {
            let programs = kernel.take_map(array.name).expect(array.name);
            let mut programs = ProgramArray::try_from(programs).expect(array.name);
            for index in 0..names.len() {
                put(kernel, &mut programs, index, stranger);
            }
            arrays.push(programs);
        }
        Self { arrays, loaded: BTreeSet::new() }
    }

    /// Loads stages of a hook unless they are.
    pub fn need(&mut self, kernel: &mut Ebpf, hook: Hook, stages: &[Stage]) {
        for stage in stages {
            let index = *stage as usize;
            let (_, names) = &program::STAGES[hook as usize];
            let name = names[index];
            if self.loaded.insert(name) {
                load(kernel, name);
                put(kernel, &mut self.arrays[hook as usize], index, name);
            }
        }
    }
}

fn put(kernel: &Ebpf, programs: &mut ProgramArray<MapData>, index: usize, name: &str) {
    let fd = kernel.program(name).expect(name).fd().expect("loaded");
    programs.set(index as u32, fd, 0).expect(name);
}

/// Loads a program. The verifier gives up with EAGAIN when a signal waits for the thread; then it is asked again.
pub fn load(kernel: &mut Ebpf, name: &str) {
    for _ in 0..10 {
        let loaded = match kernel.program_mut(name).expect(name) {
            Program::Xdp(program) => Xdp::load(program),
            Program::SchedClassifier(program) => SchedClassifier::load(program),
            _ => panic!("{name} is of another kind"),
        };
        match loaded {
            Ok(()) => return,
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{name}: {error:?}"),
        }
    }
    panic!("{name}: the verifier was interrupted ten times");
}
