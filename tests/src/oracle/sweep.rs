//! The agent's sweep, on both.

use aya::{TestRun, TestRunOptions, programs::SchedClassifier};
use svc_agent::{
    datapath::{self, program},
    expire::frame,
};
use svc_common::{
    expire,
    family::{Family, V4, V6},
    maps::{MapType, Timeouts, Tuple},
    packet::Frame,
};

use super::Oracle;

impl Oracle {
    /// Has these connections looked at and removed if they are over; returns which were, by bit, the same from both.
    #[track_caller]
    pub fn sweep_v4(&mut self, keys: &[Tuple<[u8; 4]>]) -> u32 {
        let frame = frame(keys, V4::ETHER_TYPE, &Timeouts::default());
        let host = expire::sweep::<V4, _, _>(&mut Frame::<1>::new(&frame, 0), &mut self.memory);
        self.compare_sweep(host, &frame)
    }

    /// The same for IPv6.
    #[track_caller]
    pub fn sweep_v6(&mut self, keys: &[Tuple<[u8; 16]>]) -> u32 {
        let frame = frame(keys, V6::ETHER_TYPE, &Timeouts::default());
        let host = expire::sweep::<V6, _, _>(&mut Frame::<1>::new(&frame, 0), &mut self.memory);
        self.compare_sweep(host, &frame)
    }

    #[track_caller]
    fn compare_sweep(&self, host: u32, frame: &[u8]) -> u32 {
        if let Some(difference) = self.sweep_differs(host, frame) {
            panic!("{difference}");
        }
        self.assert_equal_worlds();
        host
    }

    /// Runs the kernel's sweep and compares which connections it removed.
    fn sweep_differs(&self, host: u32, frame: &[u8]) -> Option<String> {
        let program = self.kernel.as_ref()?.program(program::SWEEP).expect("loaded");
        let program: &SchedClassifier = program.try_into().expect("tc");
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let kernel = program.test_run(options).expect("test run").return_value;
        (kernel != host).then(|| format!("removed by a sweep: kernel {kernel:#b}, host {host:#b}"))
    }

    /// Sweeps some of all connections: as many as the kernel takes at once, from the `first` on.
    ///
    /// # Errors
    /// The difference, if the kernel removes others than the host.
    pub fn sweep_some(&mut self, first: usize) -> Result<(), String> {
        let tables = &self.memory.v4;
        let v4 =
            frame(&some(tables.flows.keys().chain(tables.embryos.keys()), first), V4::ETHER_TYPE, &Timeouts::default());
        let tables = &self.memory.v6;
        let v6 =
            frame(&some(tables.flows.keys().chain(tables.embryos.keys()), first), V6::ETHER_TYPE, &Timeouts::default());
        let host = expire::sweep::<V4, _, _>(&mut Frame::<1>::new(&v4, 0), &mut self.memory);
        self.sweep_differs(host, &v4).map_or(Ok(()), Err)?;
        let host = expire::sweep::<V6, _, _>(&mut Frame::<1>::new(&v6, 0), &mut self.memory);
        self.sweep_differs(host, &v6).map_or(Ok(()), Err)
    }
}

/// Keys in an order that is the same each time, which that of a hash map is not.
fn some<'a, A: Copy + 'a>(keys: impl Iterator<Item = &'a Tuple<A>>, first: usize) -> Vec<Tuple<A>>
where
    Tuple<A>: MapType,
{
    let mut keys: Vec<_> = keys.copied().collect();
    keys.sort_by(|a, b| a.bytes().cmp(b.bytes()));
    let first = first.checked_rem(keys.len()).unwrap_or(0);
    keys.rotate_left(first);
    keys.truncate(datapath::sweep_keys());
    keys
}
