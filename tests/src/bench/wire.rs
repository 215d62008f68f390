//! Frames that really go from device to device: a source sends them through a veth into the program under test, which
//! sends them back, and a sink counts them; all on one core.

use anyhow::{Context, Result, ensure};
use svc_agent::datapath::program;
use svc_common::maps::spec;

use super::{
    Bound, Options, Report, Samples, Table,
    packets::{
        driver::{Driver, Subject},
        fill::{self, Way},
        traffic::{Traffic, Version},
    },
};
use crate::oracle::{self, Oracle, Setup, UPLINK};

/// The device that the source sends through; the other end of [`UPLINK`].
const SOURCE: &str = "up1";
/// Where clients' addresses begin.
const CLIENTS: u32 = u32::from_be_bytes([100, 64, 0, 1]);

/// One line of the table.
struct Row {
    name: String,
    subject: Subject,
    version: Version,
    flows: u32,
    /// What comes back, as the sink sees it.
    back: Back,
}

/// What comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Back {
    Nothing,
    AsSent,
    Forwarded,
}

/// The row that the others are compared with.
const UNIT: &str = "MAC swap";

/// Measures it.
///
/// # Errors
/// If there is nothing to measure with, or what comes back is not what is to be measured.
pub fn run(options: &Options) -> Result<Report> {
    let (many, frames): (u32, u32) = if options.quick { (1_024, 20_000) } else { (131_072, 1_000_000) };
    let flows = (2 * many).next_power_of_two();
    let setup = Setup { jiffy_mult: 1, flows, ..Setup::default() };
    let rounds = options.rounds();
    let report = oracle::in_namespace_with(setup, move |oracle| measure(oracle, many, frames, rounds));
    report.context("no root or no kernel programs; remedy: run `cargo xtask bench` as root")?
}

fn measure(oracle: &mut Oracle, many: u32, frames: u32, rounds: u32) -> Result<Report> {
    let mut driver = Driver::load((2 * many).next_power_of_two(), 1_024)?;
    let now = oracle.clock()?;
    for version in Version::ALL {
        let traffic = Traffic::tcp(version, CLIENTS, 1);
        let kinds = [fill::Kind { traffic: &traffic, way: Way::Plain, count: many }];
        fill::flows(oracle, &mut driver, version, &kinds, now)?;
    }
    let row = |name: &str, subject: Subject, version: Version, flows: u32, back: Back| {
        let flows_name = if flows == 1 { "1 flow".to_owned() } else { format!("{flows} flows") };
        let name = if name == UNIT { UNIT.to_owned() } else { format!("{name}, {}, {flows_name}", version.name()) };
        Row { name, subject, version, flows, back }
    };
    let (v4, v6) = (Version::V4, Version::V6);
    let limit = |name: &'static str| Subject::Limit(name);
    let ours = Subject::Ours(program::XDP);
    let rows = [
        row("dropped where it arrives", limit("wire_drop"), v4, 1, Back::Nothing),
        row(UNIT, limit("mac_swap"), v4, 1, Back::AsSent),
        row("limit", limit("v4_xdp"), v4, 1, Back::Forwarded),
        row("replay", ours, v4, 1, Back::Forwarded),
        row("limit", limit("v4_xdp"), v4, many, Back::Forwarded),
        row("replay", ours, v4, many, Back::Forwarded),
        row("limit", limit("v6_xdp"), v6, 1, Back::Forwarded),
        row("replay", ours, v6, 1, Back::Forwarded),
        row("limit", limit("v6_xdp"), v6, many, Back::Forwarded),
        row("replay", ours, v6, many, Back::Forwarded),
    ];
    let (mut table, mut lost) =
        (Table::new("Through a veth and back, one core", "as the columns say"), Samples::default());
    for _ in 0..rounds {
        for row in &rows {
            let traffic = Traffic::tcp(row.version, CLIENTS, 1);
            let flight = driver.fly(oracle, (SOURCE, UPLINK), row.subject, &traffic, (row.flows, frames))?;
            let [as_sent, forwarded] = flight.back;
            let (wanted, unwanted) = match row.back {
                Back::Nothing => (u64::from(frames), as_sent + forwarded),
                Back::AsSent => (as_sent, forwarded),
                Back::Forwarded => (forwarded, as_sent),
            };
            ensure!(unwanted == 0, "{}: {unwanted} of {frames} frames came back otherwise than wanted", row.name);
            table.add(&row.name, "Mpps", f64::from(frames) / flight.ns * 1_000.0);
            table.add(&row.name, "ns per frame", flight.ns / f64::from(frames));
            ensure!(wanted <= u64::from(frames), "{}: {wanted} of {frames} frames came back", row.name);
            let missing = (u64::from(frames) - wanted) as f64;
            table.add(&row.name, "lost", missing);
            if row.subject == ours {
                lost.push(missing);
            }
        }
    }
    let unit = table.samples(UNIT, "Mpps");
    for row in &rows {
        let share = table.samples(&row.name, "Mpps").over(&unit);
        table.set(&row.name, "share of MAC swap", share);
    }
    let mut report = Report::new("wire");
    report.tables.push(table);
    let (_, most) = lost.spread();
    report.goal("frames lost by the datapath, the most of any round", Bound::AtMost(0.0), Samples::from_iter([most]));
    report.notes.push(written(oracle)?);
    Ok(report)
}

/// What a replayed packet writes, and to what kind of map; tests/packets/replay.rs proves that it is nothing else.
fn written(oracle: &Oracle) -> Result<String> {
    let map = oracle.kernel().map(spec::SVC_COUNTERS.name).context("no map `SVC_COUNTERS`")?;
    ensure!(matches!(map, aya::maps::Map::PerCpuArray(_)), "`SVC_COUNTERS` is shared by all CPUs");
    Ok("A replayed packet writes its own flow (packets, bytes: a connection stays on one CPU where the NIC spreads by \
        its hash) and its service's counters of this CPU. No line is shared, so Mpps grow with cores.\n"
        .to_owned())
}
