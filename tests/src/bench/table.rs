//! A table of samples by name of row and column.

use std::fmt;

use serde_json::{Value, json};

use super::Samples;

/// Rows and columns come in the order in which they were first filled.
#[derive(Clone, Debug, Default)]
pub struct Table {
    title: String,
    unit: String,
    columns: Vec<String>,
    rows: Vec<(String, Vec<Samples>)>,
}

impl Table {
    /// An empty one; `unit` is that of every cell.
    pub fn new(title: &str, unit: &str) -> Self {
        Self { title: title.to_owned(), unit: unit.to_owned(), ..Self::default() }
    }

    /// Adds the value of one round to a cell.
    pub fn add(&mut self, row: &str, column: &str, value: f64) {
        self.cell(row, column).push(value);
    }

    /// Replaces a cell.
    pub fn set(&mut self, row: &str, column: &str, samples: Samples) {
        *self.cell(row, column) = samples;
    }

    /// What was measured there, if anything was.
    pub fn get(&self, row: &str, column: &str) -> Option<&Samples> {
        let column = self.columns.iter().position(|name| name == column)?;
        let (_, cells) = self.rows.iter().find(|(name, _)| name == row)?;
        cells.get(column).filter(|samples| **samples != Samples::default())
    }

    /// The same, with nothing where nothing was measured.
    pub fn samples(&self, row: &str, column: &str) -> Samples {
        self.get(row, column).cloned().unwrap_or_default()
    }

    /// The names of the rows.
    pub fn rows(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|(name, _)| name.as_str())
    }

    /// The names of the columns.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(String::as_str)
    }

    fn cell(&mut self, row: &str, column: &str) -> &mut Samples {
        let column = position_or_push(&mut self.columns, |name| name == column, || column.to_owned());
        let row = position_or_push(&mut self.rows, |(name, _)| name == row, || (row.to_owned(), Vec::new()));
        let cells = &mut self.rows[row].1;
        cells.resize(cells.len().max(column + 1), Samples::default());
        &mut cells[column]
    }

    /// All of it.
    pub fn to_json(&self) -> Value {
        let rows: Vec<_> = self.rows.iter().map(|(name, cells)| self.row_to_json(name, cells)).collect();
        json!({ "title": self.title, "unit": self.unit, "rows": rows })
    }

    fn row_to_json(&self, name: &str, cells: &[Samples]) -> Value {
        let measured = self.columns.iter().zip(cells).filter(|(_, samples)| **samples != Samples::default());
        let cells: serde_json::Map<_, _> =
            measured.map(|(column, samples)| (column.clone(), samples.to_json())).collect();
        json!({ "name": name, "cells": cells })
    }
}

fn position_or_push<T>(list: &mut Vec<T>, is: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> usize {
    list.iter().position(is).unwrap_or_else(|| {
        list.push(new());
        list.len() - 1
    })
}

/// A figure with as many digits as mean something.
fn figure(value: f64) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl fmt::Display for Table {
    /// Each cell is the median, with the lowest and the highest value behind it if there was more than one round.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |samples: &Samples| {
            let (low, high) = samples.spread();
            let median = figure(samples.median());
            if low == high || low.is_nan() { median } else { format!("{median} ({}-{})", figure(low), figure(high)) }
        };
        let cells: Vec<(&str, Vec<String>)> =
            self.rows.iter().map(|(name, cells)| (name.as_str(), cells.iter().map(text).collect())).collect();
        let first = cells.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let width = |column: usize| {
            let longest = cells.iter().filter_map(|(_, row)| row.get(column)).map(String::len).max().unwrap_or(0);
            longest.max(self.columns[column].chars().count())
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        writeln!(f, "{}, {}: median (lowest-highest)\n", self.title, self.unit)?;
        write!(f, "{:first$}", "")?;
        for (name, width) in self.columns.iter().zip(&widths) {
            write!(f, "  {name:>width$}")?;
        }
        writeln!(f)?;
        for (name, row) in &cells {
            write!(f, "{name:first$}")?;
            for (cell, width) in row.iter().zip(&widths) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_every_cell_under_its_column() {
        let mut table = Table::new("replay", "ns");
        for value in [10.0, 12.0, 11.0] {
            table.add("ours", "1 flow", value);
        }
        table.add("limit", "1,024 flows", 123.4);
        let text = table.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "replay, ns: median (lowest-highest)");
        assert_eq!(lines[2], "                 1 flow  1,024 flows");
        assert_eq!(lines[3], "ours   11.0 (10.0-12.0)");
        assert_eq!(lines[4], "limit                 -          123");
        assert!(table.get("ours", "1,024 flows").is_none());
        assert!(table.get("limit", "1 flow").is_none());
    }

    #[test]
    fn json_has_every_round() {
        let mut table = Table::new("replay", "ns");
        table.add("ours", "1 flow", 1.0);
        table.add("ours", "1 flow", 2.0);
        let rounds = table.to_json().pointer("/rows/0/cells/1 flow/rounds").cloned();
        assert_eq!(rounds, Some(json!([1.0, 2.0])));
    }
}
