//! The benchmarks' own programs, loaded: the driver, and what it drives.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRun, TestRunOptions,
    maps::{Array, HashMap, MapData, PerCpuArray, ProgramArray},
    programs::{Program, ProgramFd, SchedClassifier, TestRunAttrs, Xdp, xdp::XdpMode},
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

/// What became of frames that went from device to device.
#[derive(Clone, Copy, Debug)]
pub struct Flight {
    /// How long it took.
    pub ns: f64,
    /// How many came back as they were sent but for their Ethernet addresses, and how many forwarded.
    pub back: [u64; 2],
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
        self.set(traffic.drive(flows, self.next))?;
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

    /// Sends `frames` frames through `source` to the device at its other end, `target`, whose XDP program is the subject.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn fly(
        &mut self,
        oracle: &mut Oracle,
        (source, target): (&str, &str),
        subject: Subject,
        traffic: &Traffic,
        (flows, frames): (u32, u32),
    ) -> Result<Flight> {
        let sink: &mut Xdp = self.object.program_mut("wire_sink").context("no sink")?.try_into()?;
        let sinking =
            sink.attach(source, XdpMode::Driver).with_context(|| format!("attaching the sink to {source}"))?;
        let program = match subject {
            Subject::Ours(name) => oracle.kernel_mut().program_mut(name),
            Subject::Limit(name) => self.object.program_mut(name),
        };
        let program: &mut Xdp = program.with_context(|| format!("no program {subject:?}"))?.try_into()?;
        let attached = program.attach(target, XdpMode::Driver).with_context(|| format!("attaching to {target}"))?;
        let before = self.sunk()?;
        self.set(traffic.drive(flows, self.next))?;
        self.next += u64::from(frames);
        let (frame, context) = (traffic.frame(), oracle.context(Hook::Xdp, source, traffic.frame().len()));
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(64),
            ..TestRunOptions::default()
        };
        let began = Instant::now();
        <&Xdp>::try_from(self.program("wire_source")?)?.test_run(options).context("live frames")?;
        let ns = began.elapsed().as_nanos() as f64;
        // What is still under way is a few frames.
        std::thread::sleep(Duration::from_millis(5));
        let after = self.sunk()?;
        let program = match subject {
            Subject::Ours(name) => oracle.kernel_mut().program_mut(name),
            Subject::Limit(name) => self.object.program_mut(name),
        };
        let program: &mut Xdp = program.context("no program")?.try_into()?;
        program.detach(attached)?;
        let sink: &mut Xdp = self.object.program_mut("wire_sink").context("no sink")?.try_into()?;
        sink.detach(sinking)?;
        Ok(Flight { ns, back: [after[0] - before[0], after[1] - before[1]] })
    }

    /// Frames that have come back: not forwarded, forwarded.
    fn sunk(&self) -> Result<[u64; 2]> {
        let sink: PerCpuArray<_, u64> = PerCpuArray::try_from(self.object.map("SINK").context("no map `SINK`")?)?;
        Ok([sink.get(&0, 0)?.iter().sum(), sink.get(&1, 0)?.iter().sum()])
    }

    fn set(&mut self, drive: Drive) -> Result<()> {
        let mut settings: Array<_, Drive> = Array::try_from(self.object.map_mut("DRIVE").context("no map `DRIVE`")?)?;
        Ok(settings.set(0, drive, 0)?)
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
