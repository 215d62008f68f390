//! The benchmarks; `cargo xtask bench` builds and runs this.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde_json::Value;
use svc_tests::bench::{Options, Report, agent, packets, sockets, wire};

/// Measures what the datapath and the agent cost.
#[derive(Parser)]
struct Args {
    /// All of them, one after the other, unless one is named
    #[command(subcommand)]
    what: Option<Benchmark>,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Subcommand)]
enum Benchmark {
    /// ns per packet of the loaded programs
    Packets(packets::Args),
    /// Frames from device to device, through the XDP program and back
    Wire,
    /// What real sockets get, and ns per packet through the whole node, beside plain routing and packet filters
    Sockets(sockets::Args),
    /// What a change costs the agent
    Agent(agent::Args),
}

impl Benchmark {
    /// Every benchmark as it is without arguments.
    fn all() -> Vec<Self> {
        vec![
            Self::Packets(packets::Args::default()),
            Self::Wire,
            Self::Sockets(sockets::Args::default()),
            Self::Agent(agent::Args::default()),
        ]
    }

    fn run(&self, options: &Options) -> Result<Report> {
        match self {
            Self::Packets(args) => packets::run(options, args).context("bench packets"),
            Self::Wire => wire::run(options).context("bench wire"),
            Self::Sockets(args) => sockets::run(options, args).context("bench sockets"),
            Self::Agent(args) => agent::run(options, args).context("bench agent"),
        }
    }
}

fn main() -> Result<()> {
    let Args { what, options } = Args::parse();
    let benchmarks = what.map_or_else(Benchmark::all, |one| vec![one]);
    let mut reports = Vec::new();
    for benchmark in benchmarks {
        let report = benchmark.run(&options)?;
        println!("{report}");
        reports.push(report.to_json());
    }
    if let Some(file) = options.json {
        let text = serde_json::to_string_pretty(&Value::from(reports))?;
        std::fs::write(&file, text).with_context(|| format!("cannot write `{}`", file.display()))?;
    }
    Ok(())
}
