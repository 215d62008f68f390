//! The benchmarks' own programs, loaded: the driver, and what it drives.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRun, TestRunOptions,
    maps::{Array, HashMap, MapData, ProgramArray},
    programs::{Program, ProgramFd, SchedClassifier, Xdp, xdp::XdpMode},
};
use nix::time::{ClockId, clock_gettime};
use svc_common::packet::Hook;

use super::traffic::{Drive, Traffic};
use crate::oracle::Oracle;

/// Names the object file; `cargo xtask bench` sets it.
pub const OBJECT: &str = "SVC_BENCH_OBJECT";

/// A program that gets packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One of the agent's.
    Ours(&'static str),
    /// One of the benchmarks'.
    Limit(&'static str),
}

/// The driver.
pub struct Driver {
    object: Ebpf,
    subjects: [ProgramArray<MapData>; 2],
    /// Frames so far, so that connections that are to be new are.
    next: u64,
}

impl Driver {
    /// Loads it, with tables for `flows` connections, and for `embryos` that are inserted.
    ///
    /// # Errors
    /// If the object is missing or the kernel refuses it.
    pub fn load(flows: u32, embryos: u32) -> Result<Self> {
        let remedy = || format!("{OBJECT} names no object with the benchmarks' programs; run `cargo xtask bench`");
        let path = PathBuf::from(std::env::var_os(OBJECT).with_context(remedy)?);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let mut loader = EbpfLoader::new();
        for table in ["LIMIT_V4", "LIMIT_V6", "PLAIN_V4", "PLAIN_V6"] {
            loader.map_max_entries(table, flows);
        }
        for table in ["INSERT_V4", "INSERT_V6"] {
            loader.map_max_entries(table, embryos);
        }
        let mut object = loader.load(&bytes).context("the benchmarks' programs")?;
        for (name, program) in object.programs_mut() {
            match program {
                Program::Xdp(program) => program.load(),
                Program::SchedClassifier(program) => program.load(),
                _ => Ok(()),
            }
            .with_context(|| format!("program `{name}`"))?;
        }
        // A program that is attached nowhere makes the kernel patch its dispatcher for every test run, milliseconds each.
        // Nothing comes by at the loopback device of a namespace of our own.
        let driver: &mut Xdp = object.program_mut("drive_xdp").context("no driver")?.try_into()?;
        driver.attach("lo", XdpMode::Skb).context("attaching the driver")?;
        let mut array = |name: &str| -> Result<ProgramArray<MapData>> {
            Ok(ProgramArray::try_from(object.take_map(name).with_context(|| format!("no map `{name}`"))?)?)
        };
        let subjects = [array("SUBJECT_XDP")?, array("SUBJECT_TC")?];
        Ok(Self { object, subjects, next: 0 })
    }

    /// Chooses what is driven.
    fn aim(&mut self, oracle: &Oracle, hook: Hook, subject: Subject) -> Result<()> {
        let program = match subject {
            Subject::Ours(name) => oracle.kernel().program(name).with_context(|| format!("no program `{name}`"))?,
            Subject::Limit(name) => self.object.program(name).with_context(|| format!("no program `{name}`"))?,
        };
        let fd: &ProgramFd = program.fd().with_context(|| format!("{subject:?}"))?;
        self.subjects[usize::from(hook != Hook::Xdp)].set(0, fd, 0).with_context(|| format!("driving {subject:?}"))
    }

    /// Runs `packets` packets that come in through `device` through a program: ns of CPU time per packet, the driver's own
    /// included, and the last verdict. What nobody looks at is as many packets before, so that the caches hold what they can.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn time(
        &mut self,
        oracle: &Oracle,
        (hook, device): (Hook, &str),
        subject: Subject,
        traffic: &Traffic,
        (flows, packets, warm): (u32, u32, u32),
    ) -> Result<(f64, u32)> {
        self.aim(oracle, hook, subject)?;
        if warm > 0 {
            self.run(oracle, hook, device, traffic, flows, warm)?;
        }
        let before = cpu_time_ns()?;
        let verdict = self.run(oracle, hook, device, traffic, flows, packets)?;
        let ns = cpu_time_ns()? - before;
        ensure!(verdict != ABORTED[usize::from(hook != Hook::Xdp)], "the driver did not drive {subject:?}");
        Ok((ns as f64 / f64::from(packets), verdict))
    }

    fn run(
        &mut self,
        oracle: &Oracle,
        hook: Hook,
        device: &str,
        traffic: &Traffic,
        flows: u32,
        repeat: u32,
    ) -> Result<u32> {
        let mut settings: Array<_, Drive> = Array::try_from(self.object.map_mut("DRIVE").context("no map `DRIVE`")?)?;
        settings.set(0, traffic.drive(flows, self.next), 0)?;
        let frame = traffic.frame();
        let context = oracle.context(hook, device, frame.len());
        let options =
            TestRunOptions { data_in: Some(&frame), ctx_in: Some(&context), repeat, ..TestRunOptions::default() };
        let result = match hook {
            Hook::Xdp => <&Xdp>::try_from(self.program("drive_xdp")?)?.test_run(options),
            Hook::Ingress | Hook::Egress => <&SchedClassifier>::try_from(self.program("drive_tc")?)?.test_run(options),
        };
        self.next += u64::from(repeat);
        Ok(result.with_context(|| format!("{repeat} test runs at {hook:?}"))?.return_value)
    }

    fn program(&self, name: &str) -> Result<&Program> {
        self.object.program(name).with_context(|| format!("no program `{name}`"))
    }

    /// Writes an element of a limit program's table.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn put<K: aya::Pod, V: aya::Pod>(&mut self, table: &str, key: &K, value: &V) -> Result<()> {
        let map = self.object.map_mut(table).with_context(|| format!("no map `{table}`"))?;
        Ok(HashMap::<_, K, V>::try_from(map)?.insert(key, value, 0)?)
    }
}

/// What the driver returns if it has nothing to drive.
const ABORTED: [u32; 2] = [0, (-2_i32).cast_unsigned()];

/// CPU time of this thread: others that run meanwhile do not count.
fn cpu_time_ns() -> Result<i64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}
