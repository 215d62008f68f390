//! The packet tests on the oldest and the newest kernel, for `cargo xtask test`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::kernel::Kernel;
use super::machine::{self, Parts};
use super::qemu;

/// The oldest and the newest kernel that is supported, as Debian has them.
pub const KERNELS: [&str; 2] = ["5.10", "7.2"];
/// For each: every program and every hook; and on the oldest random histories, which reach every stage. The other packet tests have the same programs
/// verified anew each time, which takes an emulated processor half a minute.
const FILTERS: [&str; 2] = ["kernel:: random_histories", "kernel::"];
/// Packets of the random histories.
const PACKETS: u32 = 3_000;
/// A guest that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(900);
/// Both run at once, and each thread of the random histories has programs of its own verified.
const SIZE: qemu::Size = qemu::Size { cpus: 1, memory: 1_536 };

/// What a guest said, or why there was none.
pub struct Outcome {
    /// The kernel's series.
    pub series: &'static str,
    /// The console's lines and what went wrong; an error if the machine could not be had at all.
    pub result: Result<(Vec<String>, Option<String>)>,
}

/// Runs both guests at once; their consoles are shown with the series before each line.
pub fn run(packets: PathBuf) -> Vec<Outcome> {
    let parts = Parts { tests: vec![("packets".to_owned(), packets)], ..Parts::default() };
    if let Err(error) = qemu::ensure() {
        let why = format!("{error:#}");
        return KERNELS.map(|series| Outcome { series, result: Err(anyhow::anyhow!("no QEMU: {why}")) }).into();
    }
    let found = KERNELS.map(|series| (series, Kernel::find(series, None, &machine::work()).context("no kernel")));
    std::thread::scope(|scope| {
        let guests = found.into_iter().zip(FILTERS).map(|((series, kernel), filters)| {
            let parts = &parts;
            scope.spawn(move || Outcome {
                series,
                result: kernel.and_then(|kernel| one(series, filters, &kernel, parts)),
            })
        });
        let guests: Vec<_> = guests.collect();
        guests.into_iter().filter_map(|guest| guest.join().ok()).collect()
    })
}

fn one(series: &str, filters: &str, kernel: &Kernel, parts: &Parts) -> Result<(Vec<String>, Option<String>)> {
    let script = format!(
        "export SVC_ORACLE_PACKETS={PACKETS} SVC_TEST_SKIPS=/tmp/skips; packets {filters}; status=$?; \
         [ -f /tmp/skips ] && sed 's/^/{SKIP}/' /tmp/skips; exit $status"
    );
    let mut lines = Vec::new();
    let status = machine::run(kernel, parts, &script, SIZE, LIMIT, &mut |line| {
        println!("{series}: {line}");
        lines.push(line.to_owned());
    });
    let problem = match status {
        Ok(0) => None,
        Ok(status) => Some(format!("exit status {status}")),
        Err(error) => Some(format!("{error:#}")),
    };
    Ok((lines, problem))
}

/// Before the name of a test that found at run time that it can prove nothing there.
pub const SKIP: &str = "SVC-VM-SKIP ";
