//! A list in the format that was asked for, element by element, so that its length does not matter.

use std::io::Write;

use serde::Serialize;

use super::CliError;
use super::args::{Format, Output};
use super::table::Table;

/// What can be shown in a list.
pub trait Show: Serialize {
    /// The columns.
    const COLUMNS: &'static [Column];

    /// Its rows, each with a cell for every column.
    fn rows(&self) -> Vec<Vec<String>>;
}

/// One column.
pub struct Column {
    /// Its header.
    pub name: &'static str,
    /// Shown by `-o wide` only.
    pub wide: bool,
}

/// A column of every table.
pub const fn column(name: &'static str) -> Column {
    Column { name, wide: false }
}

/// A column of wide tables.
pub const fn wide(name: &'static str) -> Column {
    Column { name, wide: true }
}

/// Prints a list.
pub struct Printer<'a> {
    format: Format,
    columns: &'static [Column],
    table: Table,
    count: usize,
    out: &'a mut dyn Write,
}

impl<'a> Printer<'a> {
    /// For elements of the type `T`.
    pub fn new<T: Show>(output: Output, out: &'a mut dyn Write) -> Self {
        let shown = T::COLUMNS.iter().filter(|column| output.output == Format::Wide || !column.wide);
        let table = Table::new(shown.map(|column| column.name), !output.no_headers);
        Self { format: output.output, columns: T::COLUMNS, table, count: 0, out }
    }

    /// Prints one element.
    pub fn print<T: Show>(&mut self, item: &T) -> Result<(), CliError> {
        match self.format {
            Format::Table | Format::Wide | Format::Name => {
                for row in item.rows() {
                    let shown = row.into_iter().zip(self.columns);
                    let shown = shown.filter(|(_, column)| self.format == Format::Wide || !column.wide);
                    self.table.row(shown.map(|(cell, _)| cell).collect(), self.out)?;
                }
            }
            Format::Json => {
                self.out.write_all(if self.count == 0 { b"{\n  \"items\": [\n" } else { b",\n" })?;
                let text = serde_json::to_string_pretty(item).map_err(std::io::Error::from)?;
                self.out.write_all(indent(&text, "    ").as_bytes())?;
            }
            Format::Yaml => {
                if self.count == 0 {
                    self.out.write_all(b"items:\n")?;
                }
                self.out.write_all(yaml(&[item])?.as_bytes())?;
            }
        }
        self.count += 1;
        Ok(())
    }

    /// Ends the list; returns how many elements it had.
    pub fn finish(mut self) -> Result<usize, CliError> {
        match (self.format, self.count) {
            (Format::Table | Format::Wide | Format::Name, _) => self.table.flush(self.out)?,
            (Format::Json, 0) => self.out.write_all(b"{\n  \"items\": []\n}\n")?,
            (Format::Json, _) => self.out.write_all(b"\n  ]\n}\n")?,
            (Format::Yaml, 0) => self.out.write_all(b"items: []\n")?,
            (Format::Yaml, _) => {}
        }
        Ok(self.count)
    }
}

/// YAML without folded or quoted surprises.
pub fn yaml(value: &impl Serialize) -> Result<String, CliError> {
    let mut options = serde_saphyr::SerializerOptions::default();
    options.prefer_block_scalars = false;
    serde_saphyr::to_string_with_options(value, options).map_err(|error| CliError::Yaml(error.to_string()))
}

fn indent(text: &str, by: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("{by}{line}")).collect();
    lines.join("\n")
}
