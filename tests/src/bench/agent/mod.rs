//! What a change costs the agent, with ten Services and with ten thousand: from the source to the maps that packets use.
//!
//! The agent is a process of its own, as on a node. The API server is the one of the tests, over HTTP; what it takes by
//! itself is measured beside. A change is at work when the frontend's slots lead to the new endpoint, which is looked up in
//! the pinned maps as the programs would.

mod eyes;
mod objects;
mod usage;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use svc_agent::sources::kubernetes::kinds::Watched;

use self::eyes::Eyes;
use self::objects::Objects;
use self::usage::Usage;
use super::{Bound, Options, Report, Table};
use crate::agent::Agent;
use crate::apiserver::http::Listening;
use crate::apiserver::{Server, Store};
use crate::topology::{Shape, World};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Endpoints of most Services.
const ENDPOINTS: usize = 10;
/// Endpoints of one Service.
const MANY: usize = 1_000;

/// What is to be measured.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// How many Services there are, one size after the other
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS")]
    services: Vec<usize>,
    /// The sources: all unless some are named
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<Origin>,
}

/// Where the objects come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Origin {
    /// An API server.
    Server,
    /// Files.
    Files,
}

/// How much is measured.
struct Plan {
    sizes: Vec<usize>,
    rounds: u32,
    changes: usize,
    churn: usize,
}

/// Measures all of it.
///
/// # Errors
/// If the agent does not do what is to be measured.
pub fn run(options: &Options, args: &Args) -> Result<Report> {
    let sizes = |default: &[usize]| if args.services.is_empty() { default.to_vec() } else { args.services.clone() };
    let plan = if options.quick {
        Plan { sizes: sizes(&[10, 100]), rounds: 1, changes: 5, churn: 20 }
    } else {
        let rounds = options.rounds.unwrap_or(3);
        Plan { sizes: sizes(&[10, 1_000, 10_000]), rounds, changes: 200, churn: 1_000 }
    };
    let is_wanted = |origin| args.only.is_empty() || args.only.contains(&origin);
    let mut tables = Tables::new();
    for _ in 0..plan.rounds {
        for &size in &plan.sizes {
            let name = format!("{size} services");
            if is_wanted(Origin::Server) {
                from_server(&mut tables, &plan, size, &name).with_context(|| format!("{name}, API server"))?;
            }
            if is_wanted(Origin::Files) {
                from_files(&mut tables, &plan, size, &name).with_context(|| format!("{name}, files"))?;
            }
        }
    }
    Ok(tables.report(&plan))
}

/// What is measured, by what it is measured in.
struct Tables {
    start: Table,
    change: Table,
    work: Table,
    memory: Table,
}

impl Tables {
    fn new() -> Self {
        Self {
            start: Table::new("from the start of the process until all Services are at work", "ms"),
            change: Table::new("one change, until the maps lead there", "ms"),
            work: Table::new("work of the agent for one change", "as named"),
            memory: Table::new("memory", "MiB"),
        }
    }

    fn report(self, plan: &Plan) -> Report {
        let mut report = Report::new("agent");
        let name = |size: Option<&usize>| format!("{} services", size.copied().unwrap_or_default());
        let (small, large) = (name(plan.sizes.first()), name(plan.sizes.last()));
        for row in ["API server, cold", "files, cold"] {
            let what = format!("{row} start with {large}, ms");
            report.goal(what, Bound::AtMost(2_000.0), self.start.samples(row, &large));
        }
        let p99 = |size: &str| self.change.samples("endpoint, API server, p99", size);
        report.goal(format!("one endpoint, p99, {large}, ms"), Bound::AtMost(5.0), p99(&large));
        report.goal(
            format!("the same, above {small}, ms"),
            Bound::AtMost(1.0),
            p99(&large).with(&p99(&small), |a, b| a - b),
        );
        let work = self.work.samples("CPU ms, one change at a time", &large);
        report.goal(format!("CPU for one change, {large}, ms"), Bound::AtMost(2.0), work);
        let memory = self.memory.samples("resident, after churn", &large);
        report.goal(format!("resident memory, {large}, MiB"), Bound::AtMost(200.0), memory);
        report.tables = vec![self.start, self.change, self.work, self.memory];
        report.notes.push(format!(
            "{ENDPOINTS} endpoints each, and one Service with {MANY}; {} changes for each p50 and p99, {} for the churn.",
            plan.changes, plan.churn
        ));
        report
    }
}

fn from_server(tables: &mut Tables, plan: &Plan, size: usize, column: &str) -> Result<()> {
    let world = World::build(Shape { clients: 0, nodes: 1, pods_per_node: 0, ..Shape::default() })?;
    let node = world.node(0)?;
    let store = Store::new();
    store.put(Watched::Node, objects::node());
    let mut objects = Objects::new(size, ENDPOINTS, MANY);
    for (watched, object) in objects.all() {
        store.put(watched, object);
    }
    let server = Server::new(store.clone());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 6443));
    let listening = node.ns.run(|| Listening::start(server, address))??;
    let dir = tempfile::Builder::new().prefix("svct-bench-").tempdir()?;
    let mut agent = Agent::prepare(node, &[])?;
    agent.follow(&listening.kubeconfig(dir.path())?);

    tables.start.add("API server, cold", column, started(&mut agent, size)?);
    let eyes = Eyes::open(agent.pin_dir())?;
    let usage = Usage::of(&agent)?;
    tables.memory.add("resident, after the start", column, usage.resident_mib()?);
    tables.memory.add("maps", column, usage.maps_mib()?);

    // One at a time.
    let (cpu, mut took) = (usage.cpu()?, Vec::new());
    for _ in 0..plan.changes {
        std::thread::sleep(objects.pause());
        let (service, endpoint, slice) = objects.change();
        let begun = Instant::now();
        store.put(Watched::EndpointSlices, slice);
        eyes.wait(service, endpoint)?;
        took.push(ms(begun.elapsed()));
    }
    tables.work.add("CPU ms, one change at a time", column, ms(usage.cpu()?.saturating_sub(cpu)) / plan.changes as f64);
    percentiles(&mut tables.change, "endpoint, API server", column, took);

    // One of the large Service.
    let mut took = Vec::new();
    for _ in 0..plan.changes / 10 + 1 {
        std::thread::sleep(objects.pause());
        let (service, endpoint, slice) = objects.change_large();
        let begun = Instant::now();
        store.put(Watched::EndpointSlices, slice);
        eyes.wait(service, endpoint)?;
        took.push(ms(begun.elapsed()));
    }
    percentiles(&mut tables.change, &format!("endpoint of {MANY}, API server"), column, took);

    // A Service that comes.
    let mut took = Vec::new();
    for _ in 0..plan.changes / 10 + 1 {
        std::thread::sleep(objects.pause());
        let (service, endpoint, made) = objects.make();
        let begun = Instant::now();
        for (watched, object) in made {
            store.put(watched, object);
        }
        eyes.wait(service, endpoint)?;
        took.push(ms(begun.elapsed()));
    }
    percentiles(&mut tables.change, "Service made, API server", column, took);

    // As fast as they can be written.
    let (cpu, calls) = (usage.cpu()?, usage.count_calls());
    let begun = Instant::now();
    let mut last = None;
    for _ in 0..plan.churn {
        let (service, endpoint, slice) = objects.change();
        store.put(Watched::EndpointSlices, slice);
        last = Some((service, endpoint));
    }
    let (service, endpoint) = last.context("no churn")?;
    eyes.wait(service, endpoint)?;
    tables.change.add(&format!("churn of {}, all of it", plan.churn), column, ms(begun.elapsed()));
    tables.work.add("CPU ms, churn", column, ms(usage.cpu()?.saturating_sub(cpu)) / plan.churn as f64);
    if let Some(calls) = calls.and_then(usage::Calls::end) {
        tables.work.add("system calls, churn", column, calls / plan.churn as f64);
    }
    tables.memory.add("resident, after churn", column, usage.resident_mib()?);
    tables.memory.add("peak", column, usage.peak_mib()?);

    agent.kill()?;
    tables.start.add("API server, with the maps of before", column, started(&mut agent, size)?);
    Ok(())
}

fn from_files(tables: &mut Tables, plan: &Plan, size: usize, column: &str) -> Result<()> {
    let world = World::build(Shape { clients: 0, nodes: 1, pods_per_node: 0, ..Shape::default() })?;
    let mut agent = Agent::prepare(world.node(0)?, &[])?;
    let mut objects = Objects::new(size, ENDPOINTS, MANY);
    for (name, text) in objects.files() {
        agent.write(&name, &text)?;
    }
    tables.start.add("files, cold", column, started(&mut agent, size)?);
    let eyes = Eyes::open(agent.pin_dir())?;
    let usage = Usage::of(&agent)?;
    tables.memory.add("resident, files", column, usage.resident_mib()?);
    let (cpu, mut took) = (usage.cpu()?, Vec::new());
    let changes = plan.changes / 4 + 1;
    for _ in 0..changes {
        std::thread::sleep(objects.pause());
        let (service, endpoint, (name, text)) = objects.change_file();
        let begun = Instant::now();
        agent.write(&name, &text)?;
        eyes.wait(service, endpoint)?;
        took.push(ms(begun.elapsed()));
    }
    tables.work.add("CPU ms, one file at a time", column, ms(usage.cpu()?.saturating_sub(cpu)) / changes as f64);
    percentiles(&mut tables.change, "endpoint, file", column, took);
    Ok(())
}

/// Starts the agent; how long until everything is at work.
fn started(agent: &mut Agent, size: usize) -> Result<f64> {
    let begun = Instant::now();
    agent.spawn()?;
    agent.wait_until_ready()?;
    let took = ms(begun.elapsed());
    let found = agent.services()?.len();
    ensure!(found > size, "found {found} services, expected more than {size}");
    Ok(took)
}

fn percentiles(table: &mut Table, what: &str, column: &str, mut took: Vec<f64>) {
    took.sort_by(f64::total_cmp);
    for (name, share) in [("p50", 50), ("p99", 99)] {
        let place = (took.len() * share / 100).min(took.len().saturating_sub(1));
        if let Some(value) = took.get(place) {
            table.add(&format!("{what}, {name}"), column, *value);
        }
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
