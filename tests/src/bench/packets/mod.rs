//! ns per packet of the loaded programs, by `BPF_PROG_TEST_RUN` on one core, next to the least that each job takes.
//!
//! A driver program (tests/ebpf) gives each run the headers of another connection, in random order, and goes on with the
//! program under test by a tail call. What the driver costs with a program that does nothing is subtracted.

pub mod driver;
pub mod fill;
mod plan;
pub mod traffic;

use std::path::PathBuf;

pub use self::driver::OBJECT;

use anyhow::{Context, Result};
use svc_common::packet::Hook;

use self::{
    driver::Driver,
    plan::{Job, NEW_COLUMN, Plan, column},
};
use super::{Bound, Options, Report, Samples, Table};
use crate::oracle::{self, Oracle, Setup};

/// What to measure.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Only rows whose name contains one of these, and what they are compared with
    only: Vec<String>,
    /// Another build of the datapath's programs than the embedded one: an object file
    #[arg(long, value_name = "FILE")]
    programs: Option<PathBuf>,
}

/// Measures all of it.
///
/// # Errors
/// If there is nothing to measure with, or a program did something else than what is to be measured.
pub fn run(options: &Options, args: &Args) -> Result<Report> {
    let plan = Plan::new(options.quick, &args.only);
    let object = args.programs.as_ref().map(|file| {
        let bytes = std::fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?;
        anyhow::Ok(&*bytes.leak())
    });
    // Jiffies pass 2^32 once in months: the programs read the clock, and it stands still.
    let setup = Setup {
        jiffy_mult: 1,
        flows: plan.capacity(),
        embryos: plan.embryos,
        services: (2 * plan.services * 10 + 4096).next_power_of_two(),
        object: object.transpose()?,
    };
    let rounds = options.rounds();
    let report = oracle::in_namespace_with(setup, move |oracle| measure(oracle, &plan, rounds));
    report.context("no root or no kernel programs; remedy: run `cargo xtask bench` as root")?
}

fn measure(oracle: &mut Oracle, plan: &Plan, rounds: u32) -> Result<Report> {
    let mut driver = Driver::load(plan.capacity(), plan.embryos)?;
    oracle.load_all();
    let jobs = plan.prepare(oracle, &mut driver)?;
    let mut raw = Table::default();
    // What is compared with each other is next to each other.
    let mut cells: Vec<_> =
        jobs.iter().flat_map(|job| job.flows(plan).into_iter().map(move |flows| (flows, job))).collect();
    cells.sort_by_key(|(flows, _)| *flows);
    for _ in 0..rounds {
        for (flows, job) in &cells {
            let ns = plan.time(oracle, &mut driver, job, *flows).with_context(|| job.name.clone())?;
            raw.add(&key(job.hook, &job.name), &job.column(*flows), ns);
        }
    }
    Ok(report(plan, &jobs, &raw))
}

/// Subtracts the driver, and compares.
fn report(plan: &Plan, jobs: &[Job], raw: &Table) -> Report {
    let mut report = Report::new("packets");
    let mut driver = Table::new("The driver with an empty program, subtracted from all below", "ns per packet");
    let title = "Less the driver with an empty program";
    let mut net =
        [Hook::Xdp, Hook::Ingress].map(|hook| Table::new(&format!("{title}, {}", hook_name(hook)), "ns per packet"));
    for job in jobs {
        for column in raw.columns() {
            let Some(found) = raw.get(&key(job.hook, &job.name), column) else { continue };
            if job.name == job.base {
                driver.set(&job.name, column, found.clone());
            } else {
                let base = raw.samples(&key(job.hook, &job.base), column);
                net[usize::from(job.hook != Hook::Xdp)].set(&job.name, column, found.with(&base, |a, b| a - b));
            }
        }
    }
    goals(plan, &net, &mut report);
    let [xdp, tc] = net;
    report.tables = vec![driver, xdp, tc];
    report
}

/// Rows of the hooks have the same names.
fn key(hook: Hook, name: &str) -> String {
    format!("{} {name}", hook_name(hook))
}

fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Xdp => "XDP",
        Hook::Ingress | Hook::Egress => "tc",
    }
}

/// What the ratios should be.
fn goals(plan: &Plan, [xdp, tc]: &[Table; 2], report: &mut Report) {
    let one = column(1);
    let most = column(plan.many);
    let mut ratio = |what: &str, table: &Table, (a, b): (&str, &str), column: &str, bound: f64| {
        let measured: Samples = table.samples(a, column).over(&table.samples(b, column));
        if measured == Samples::default() && !plan.only.is_empty() {
            return;
        }
        report.goal(format!("{what}, {column}: {a} / {b}"), Bound::AtMost(bound), measured);
    };
    for (version, proto) in [("IPv4", "TCP"), ("IPv4", "UDP"), ("IPv6", "TCP"), ("IPv6", "UDP")] {
        let (ours, limit) = (format!("{version} {proto} replay"), format!("{version} {proto} limit"));
        ratio("XDP", xdp, (&ours, &limit), &one, 1.3);
        ratio("XDP", xdp, (&ours, &limit), &most, 1.15);
    }
    for column in [&one, &most] {
        ratio("XDP", xdp, ("IPv6 TCP replay", "IPv4 TCP replay"), column, 1.5);
    }
    for version in ["IPv4", "IPv6"] {
        let row = |name: &str| format!("{version} TCP {name}");
        for column in [&one, &most] {
            ratio("tc", tc, (&row("replay"), &row("limit, helpers")), column, 1.3);
        }
        for column in [&one, &most] {
            // As fast, within what rounds differ by.
            ratio("XDP", xdp, (&row("replay, source NAT"), &row("replay")), column, 1.03);
            ratio("XDP", xdp, (&row("replay, 10,000 services"), &row("replay")), column, 1.1);
        }
        for column in [&one, &most] {
            ratio("XDP", xdp, (&row("not ours"), &row("limit, one look-up")), column, 1.5);
            ratio("tc", tc, (&row("not ours"), &row("limit, one look-up")), column, 1.5);
        }
        ratio("XDP", xdp, (&row("first packet, source NAT"), &row("limit, two insertions")), NEW_COLUMN, 1.5);
        ratio("tc", tc, (&row("first packet, from a pod"), &row("limit, two insertions")), NEW_COLUMN, 1.5);
        let (many, few) = (row("first packet, 10,000 services"), row("first packet, source NAT"));
        ratio("XDP", xdp, (&many, &few), NEW_COLUMN, 1.1);
    }
}
