//! Benchmarks: everything that a table compares is measured in turn in one run, since machines differ and are noisy.
//!
//! A benchmark fills a [`Report`]: tables by name of row and column, one value per round, and goals. It knows nothing of
//! how that is printed or written.

pub mod agent;
pub mod packets;
mod report;
mod samples;
pub mod sockets;
mod table;
pub mod wire;

use std::path::PathBuf;

pub use self::{
    report::{Bound, Goal, Report},
    samples::Samples,
    table::Table,
};

/// What every benchmark is asked for.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// A smoke run: one short round, which measures nothing that means anything
    #[arg(long, global = true)]
    pub quick: bool,
    /// Rounds; every row of a table is measured once in each
    #[arg(long, global = true, value_name = "N")]
    pub rounds: Option<u32>,
    /// Also write the result here, as JSON
    #[arg(long, global = true, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Options {
    /// How many rounds to measure.
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 7 }).max(1)
    }
}
