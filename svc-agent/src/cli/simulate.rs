//! `svcctl simulate`: a capture through a configuration.

use std::collections::BTreeMap;
use std::io::Write;

use svc_common::reason::Reason;

use super::CliError;
use super::args::Simulate;
use super::human::harmless;
use super::table::Table;
use crate::simulate::{self, CapturedFrame, Fate, Journey, Options, Simulation, World};

/// What was seen.
#[derive(Default)]
struct Sum {
    read: u64,
    written: u64,
    cut: u64,
    fates: BTreeMap<Fate, u64>,
}

/// Runs it and prints the sum.
pub fn run(args: &Simulate, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), CliError> {
    let world = World::new(&Options {
        file: args.world.as_deref(),
        node_name: args.node_name.as_deref(),
        devices: &args.devices,
        side: args.side,
        forwarding: args.forwarding,
    })?;
    let mut simulation = Simulation::new(&args.config, world, args.hook)?;
    for problem in &simulation.problems {
        // Nothing depends on it.
        drop(writeln!(err, "{}", harmless(&problem.to_string())));
    }
    let mut reader = simulate::open(&args.input)?;
    let mut writer = simulate::create(&args.output, &args.input)?;
    let mut sum = Sum::default();
    // What could be read before a fault counts.
    let ended = loop {
        let frame = match reader.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.context(format!("`{}` after {} packets", args.input.display(), sum.read))),
        };
        let journey = simulation.run(&frame);
        sum.read += 1;
        sum.cut += u64::from(frame.is_cut());
        *sum.fates.entry(journey.fate).or_default() += 1;
        if args.verbose {
            tell(sum.read, &frame, &journey, out)?;
        }
        if let Some(bytes) = &journey.frame {
            writer.write(&frame, bytes)?;
            sum.written += 1;
        }
    };
    writer.finish()?;
    print(&sum, &simulation, out)?;
    Ok(ended?)
}

/// One packet in one line.
fn tell(number: u64, frame: &CapturedFrame, journey: &Journey, out: &mut dyn Write) -> std::io::Result<()> {
    let steps = journey.steps.iter().map(|(hook, outcome)| format!("{hook:?} {outcome:?}").to_lowercase());
    let reasons = journey.reasons.iter().map(|reason| reason.code());
    let steps: Vec<_> = steps.chain(reasons.map(str::to_owned)).collect();
    writeln!(out, "{number}: {} bytes, {} ({})", frame.bytes.len(), journey.fate, steps.join(", "))
}

fn print(sum: &Sum, simulation: &Simulation, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "{} packets read, {} written", sum.read, sum.written)?;
    if sum.cut > 0 {
        writeln!(
            out,
            "{} of them were cut short by the capture, and so look malformed: capture whole packets",
            sum.cut
        )?;
    }
    let mut fates = Table::new(["PACKETS", "FATE"], true);
    for (fate, count) in &sum.fates {
        fates.row(vec![count.to_string(), fate.to_string()], out)?;
    }
    fates.flush(out)?;
    let memory = simulation.memory();
    let mut reasons = Table::new(["COUNTED", "REASON"], true);
    for reason in Reason::ALL {
        if let Some(count) = memory.counters.get(reason) {
            reasons.row(vec![count.to_string(), reason.code().to_owned()], out)?;
        }
    }
    if !memory.counters.is_empty() {
        writeln!(out)?;
    }
    reasons.flush(out)?;
    let mut services = Table::new(["SERVICE", "PORT", "NEW", "PACKETS", "BYTES", "REPLIES", "REPLY-BYTES"], true);
    let ids: BTreeMap<_, _> = memory.services.iter().collect();
    for (id, counters) in &ids {
        let key = simulation.programmed().service_port(**id);
        let (name, port) = match &key {
            Some(key) => (format!("{}/{}", key.namespace, key.name), key.port.to_string()),
            None => (id.to_string(), String::new()),
        };
        let counts =
            [counters.new_flows, counters.packets, counters.bytes, counters.reply_packets, counters.reply_bytes];
        services.row([name, port].into_iter().chain(counts.map(|count| count.to_string())).collect(), out)?;
    }
    if !ids.is_empty() {
        writeln!(out)?;
    }
    services.flush(out)
}
