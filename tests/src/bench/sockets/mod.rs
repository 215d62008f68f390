//! What real sockets get: connections, requests and answers, streams and datagrams over the same topology, with what we do
//! and what packet filters do in between; and what a packet costs on its way through the node.
//!
//! Every contender has a stage of its own, all of them at once, and what is compared is measured in turn: each task goes
//! around all contenders before the next one does. Ratios are those of neighbours in time.

mod contender;
mod goals;
pub mod load;
mod measured;
mod path;
mod rules;
mod services;
mod stage;

use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::contender::{Contender, Way};
use self::load::Task;
use self::measured::{Column, Measured, RECEIPT};
use self::path::{Injector, Packets, SOURCE_PORT};
use self::rules::Filter;
use self::services::Services;
use self::stage::From;
use super::{Options, Report};

/// One of so many packets of the path is the first of a connection: all of them together leave room in every table, as they do
/// on a node that is not flooded.
const NEW_SHARE: u32 = 40;

/// What this benchmark is asked for besides.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How many services there are, of which one is asked
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1_000, 10_000])]
    services: Vec<usize>,
    /// Only these contenders, and what they are compared with
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// Only these: connections, tcp, udp, stream, datagrams, path
    #[arg(long, value_delimiter = ',', value_name = "TASKS")]
    tasks: Vec<String>,
    /// Milliseconds of each task
    #[arg(long, value_name = "MS")]
    millis: Option<u64>,
    /// The CPU on which everything is measured; the last one unless given
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

impl Default for Args {
    fn default() -> Self {
        Self { services: vec![1, 100, 1_000, 10_000], only: Vec::new(), tasks: Vec::new(), millis: None, cpu: None }
    }
}

impl Args {
    fn wants(&self, task: &str) -> bool {
        self.tasks.is_empty() || self.tasks.iter().any(|wanted| wanted == task)
    }

    fn ways(&self, quick: bool) -> Result<Vec<Way>> {
        for name in &self.only {
            if !Way::ALL.iter().any(|way| way.name() == name) {
                let names: Vec<_> = Way::ALL.iter().map(|way| way.name()).collect();
                bail!("--only: found `{name}`, expected some of {}", names.join(","));
            }
        }
        // One of each kind: agents take their time to start.
        let smoke = [Way::Sockets, Way::Peer, Way::Rules(Filter::Nftables)];
        let wanted = |way: Way| match self.only.is_empty() {
            true if quick => smoke.contains(&way),
            true => true,
            false => self.only.iter().any(|name| name == way.name()),
        };
        let limits: Vec<Way> = Way::ALL.into_iter().filter(|way| wanted(*way)).map(Way::limit).collect();
        Ok(Way::ALL.into_iter().filter(|way| wanted(*way) || limits.contains(way)).collect())
    }
}

/// Builds all contenders and measures them.
///
/// # Errors
/// If something cannot be built, or a packet is lost.
pub fn run(options: &Options, args: &Args) -> Result<Report> {
    let mut report = Report::new("sockets");
    let mut bench = Bench::start(options, args, &mut report)?;
    // The first questions learn neighbours and fill caches.
    bench.measure(&mut Measured::default(), Duration::from_millis(10), 2_000)?;
    let (time, packets) = if options.quick { (20, 5_000) } else { (250, 40_000) };
    let time = Duration::from_millis(args.millis.unwrap_or(time));
    let mut measured = Measured::default();
    for _ in 0..options.rounds() {
        bench.measure(&mut measured, time, packets)?;
        // Who comes first after a pause has an advantage: not the same one each time.
        bench.contenders.rotate_left(1);
    }
    if args.wants("path") {
        // The last thing: it leaves full tables behind.
        bench.measure_flood(&mut measured, options.rounds(), packets)?;
    }
    bench.contenders.sort_by_key(Contender::place);
    measured.tables(&mut report, &bench.contenders);
    goals::add(&mut report, &measured, &args.services);
    Ok(report)
}

struct Bench {
    contenders: Vec<Contender>,
    injector: Injector,
    args: Args,
}

impl Bench {
    fn start(options: &Options, args: &Args, report: &mut Report) -> Result<Self> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let cpu = args.cpu.unwrap_or(cpus - 1);
        let injector = Injector::load(cpu)?;
        let mut counts = args.services.clone();
        if options.quick {
            counts.truncate(1);
        }
        let mut contenders = Vec::new();
        for way in args.ways(options.quick)? {
            for &count in counts.iter().take(if way.varies() { counts.len() } else { 1 }) {
                let started = Contender::start(way, Services(count), cpu);
                match started.with_context(|| format!("{} with {count} services", way.name()))? {
                    Ok(contender) => contenders.push(contender),
                    Err(why) => report.notes.push(format!("{}: not available: {why}", way.name())),
                }
            }
        }
        Ok(Self { contenders, injector, args: args.clone() })
    }

    /// One round.
    fn measure(&mut self, measured: &mut Measured, time: Duration, packets: u32) -> Result<()> {
        for from in From::ALL {
            for task in Task::ALL.into_iter().filter(|task| self.args.wants(&task.to_string())) {
                for contender in self.contenders.iter_mut().filter(|contender| contender.way.concerns(from)) {
                    ask(contender, from, task, time, measured).with_context(|| format!("{contender}: {task}"))?;
                }
            }
            if self.args.wants("path") {
                self.measure_path(measured, from, packets)?;
            }
        }
        Ok(())
    }

    fn measure_path(&mut self, measured: &mut Measured, from: From, packets: u32) -> Result<()> {
        for contender in &mut self.contenders {
            if !contender.way.concerns(from) || !contender.way.has_path() {
                continue;
            }
            let to = contender.dialled(from);
            // The connection that the packets of an established one belong to.
            let open = Duration::from_millis(2);
            contender.stage.client(from).run(Task::UdpRequests, to, open, SOURCE_PORT)?;
            let name = contender.to_string();
            for (column, packets, count) in
                [(Column::Established, Packets::Established, packets), (Column::New, Packets::New, packets / NEW_SHARE)]
            {
                let ns = self.injector.measure(&contender.stage, from, to, packets, count);
                let ns = ns.with_context(|| format!("{name}: the path, {column:?}"))?;
                measured.push(from, column, &name, ns);
                if contender.way == Way::Plain {
                    let ns = self.injector.measure_receipt(&contender.stage, from, packets, count)?;
                    measured.push(from, column, RECEIPT, ns);
                }
            }
        }
        Ok(())
    }

    /// First packets once more, where tables are full of connections of which nothing else comes.
    fn measure_flood(&mut self, measured: &mut Measured, rounds: u32, packets: u32) -> Result<()> {
        for round in 0..=rounds {
            for from in From::ALL {
                for contender in self.contenders.iter().filter(|c| c.way.concerns(from) && c.way.has_path()) {
                    let to = contender.dialled(from);
                    // The first ones fill the tables.
                    let count = if round == 0 { packets } else { packets / 5 };
                    let ns = self.injector.measure(&contender.stage, from, to, Packets::New, count);
                    let ns = ns.with_context(|| format!("{contender}: the path, a flood"))?;
                    if round != 0 {
                        measured.push(from, Column::Flood, &contender.to_string(), ns);
                    }
                }
            }
        }
        Ok(())
    }
}

fn ask(contender: &mut Contender, from: From, task: Task, time: Duration, measured: &mut Measured) -> Result<()> {
    let to = contender.dialled(from);
    let before = contender.stage.cpu_us()?;
    let outcome = contender.stage.client(from).run(task, to, time, 0)?;
    let cpu_us = contender.stage.cpu_us()? - before;
    measured.push_outcome(from, task, &contender.to_string(), outcome, cpu_us);
    Ok(())
}
