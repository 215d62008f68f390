//! The agent's sweep, on both.

use aya::{TestRun, TestRunOptions, programs::SchedClassifier};
use svc_agent::{datapath::program, expire::frame};
use svc_common::{
    expire,
    family::{Family, V4, V6},
    maps::{Timeouts, Tuple},
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
        let program: &SchedClassifier = self.kernel().program(program::SWEEP).expect("loaded").try_into().expect("tc");
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let kernel = program.test_run(options).expect("test run").return_value;
        assert_eq!(kernel, host, "which connections the kernel and the host removed");
        self.assert_equal_worlds();
        host
    }
}
