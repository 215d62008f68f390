//! The benchmarks; `cargo xtask bench` builds and runs this.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use svc_tests::{
    bench::{self, packets},
    oracle,
};

/// Measures the datapath.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// ns per packet of the loaded programs
    Packets {
        /// A smoke run: one short round
        #[arg(long)]
        quick: bool,
        /// Also write the result here, as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

fn main() -> Result<()> {
    let What::Packets { quick, json } = Args::parse().what;
    let (rounds, count) = if quick { (1, 10_000) } else { (9, 500_000) };
    let rows = oracle::in_namespace(move |oracle| packets::run(oracle, rounds, count));
    let Some(rows) = rows else {
        bail!("nothing measured: benchmarks need root and the kernel programs: run `cargo xtask bench` as root");
    };
    let rows = rows?;
    bench::print("XDP, BPF_PROG_TEST_RUN, one core, one flow", packets::UNIT, &rows);
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&bench::to_json(packets::UNIT, &rows))?;
        std::fs::write(&file, text).with_context(|| format!("cannot write `{}`", file.display()))?;
    }
    Ok(())
}
