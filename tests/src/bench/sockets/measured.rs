//! Everything that was measured, and the tables of it.

use std::collections::BTreeMap;

use super::contender::{Contender, row};
use super::load::{Outcome, Task};
use super::services::Services;
use super::stage::From;
use crate::bench::{Report, Samples, Table};

/// What one value says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    /// How much of a task was done in a second.
    Rate(Task),
    /// µs that half of the questions took at most.
    Half(Task),
    /// µs that 99 of 100 questions took at most.
    Most(Task),
    /// µs of CPU time for each.
    Cpu(Task),
    /// ns of a packet of an open connection.
    Established,
    /// ns of the first packet of a connection.
    New,
    /// The same while the tables are full of connections that were never answered.
    Flood,
}

/// The row of the packets that the node drops at once.
pub const RECEIPT: &str = "only received";

/// Samples by place, column and row.
#[derive(Debug, Default)]
pub struct Measured(BTreeMap<(From, Column, String), Samples>);

impl Measured {
    /// Adds the value of a round.
    pub fn push(&mut self, from: From, column: Column, row: &str, value: f64) {
        self.0.entry((from, column, row.to_owned())).or_default().push(value);
    }

    /// Adds what came of a task, and the CPU time that it took.
    pub fn push_outcome(&mut self, from: From, task: Task, row: &str, outcome: Outcome, cpu_us: u64) {
        self.push(from, Column::Rate(task), row, outcome.rate);
        self.push(from, Column::Cpu(task), row, cpu_us as f64 / outcome.count as f64);
        if matches!(task, Task::Connections | Task::TcpRequests | Task::UdpRequests) {
            self.push(from, Column::Half(task), row, outcome.p50_us);
            self.push(from, Column::Most(task), row, outcome.p99_us);
        }
    }

    /// What was measured; nothing if nothing was.
    pub fn get(&self, from: From, column: Column, row: &str) -> Samples {
        self.0.get(&(from, column, row.to_owned())).cloned().unwrap_or_default()
    }

    /// Fills the report with tables whose rows are these contenders.
    pub fn tables(&self, report: &mut Report, contenders: &[Contender]) {
        let rows: Vec<(String, String)> = contenders
            .iter()
            .map(|contender| (contender.to_string(), row(contender.way.limit(), Services(0))))
            .collect();
        for from in From::ALL {
            let title = from.title();
            let mut ratios = Table::new(&format!("{title}, rates"), "ratio to plain routing");
            let mut rates = Table::new(&format!("{title}, rates"), "per second");
            let mut stream = Table::new(&format!("{title}, one TCP stream"), "Gbit/s");
            let mut times = Table::new(&format!("{title}, time of one, half and 99 of 100 take at most"), "us");
            let mut cpu = Table::new(&format!("{title}, CPU time of client, server and kernel for one"), "us");
            let mut path = Table::new(&format!("{title}, the node's whole path"), "ns per packet");
            for (row, limit) in &rows {
                for task in Task::ALL {
                    let name = column_name(task);
                    let samples = self.get(from, Column::Rate(task), row);
                    set(&mut ratios, row, name, samples.over(&self.get(from, Column::Rate(task), limit)));
                    if task == Task::Stream {
                        set(&mut stream, row, name, samples.map(|bytes| bytes * 8.0 / 1e9));
                        continue;
                    }
                    set(&mut rates, row, name, samples);
                    set(&mut times, row, &format!("{name} p50"), self.get(from, Column::Half(task), row));
                    set(&mut times, row, &format!("{name} p99"), self.get(from, Column::Most(task), row));
                    set(&mut cpu, row, name, self.get(from, Column::Cpu(task), row));
                }
            }
            for row in rows.iter().map(|(row, _)| row.as_str()).chain([RECEIPT]) {
                set(&mut path, row, "established", self.get(from, Column::Established, row));
                set(&mut path, row, "new", self.get(from, Column::New, row));
                set(&mut path, row, "new, tables full", self.get(from, Column::Flood, row));
            }
            let tables = [ratios, rates, stream, times, cpu, path];
            report.tables.extend(tables.into_iter().filter(|table| table.rows().next().is_some()));
        }
    }
}

fn set(table: &mut Table, row: &str, column: &str, samples: Samples) {
    if samples != Samples::default() {
        table.set(row, column, samples);
    }
}

fn column_name(task: Task) -> &'static str {
    match task {
        Task::Connections => "connections",
        Task::TcpRequests => "TCP requests",
        Task::UdpRequests => "UDP requests",
        Task::Stream => "TCP stream",
        Task::Datagrams => "UDP packets",
    }
}
