//! The benchmarks; `cargo xtask bench` builds and runs this.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde_json::Value;
use svc_tests::bench::{Options, Report, packets};

/// Measures what the datapath and the agent cost.
#[derive(Parser)]
struct Args {
    /// All of them, one after the other, unless one is named
    #[command(subcommand)]
    what: Option<Benchmark>,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Copy, Subcommand)]
enum Benchmark {
    /// ns per packet of the loaded programs
    Packets,
}

impl Benchmark {
    const ALL: [Self; 1] = [Self::Packets];

    fn run(self, options: &Options) -> Result<Report> {
        match self {
            Self::Packets => packets::run(options).context("bench packets"),
        }
    }
}

fn main() -> Result<()> {
    let Args { what, options } = Args::parse();
    let benchmarks = what.map_or_else(|| Benchmark::ALL.to_vec(), |one| vec![one]);
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
