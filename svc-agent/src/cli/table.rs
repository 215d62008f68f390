//! Columns in kubectl's look: upper-case headers, no borders, three blanks in between.

use std::io::{self, Write};

use super::human::{harmless, or_none};

/// Rows that are looked at together to find the widths. Beyond, a column may only grow: hundreds of thousands of rows
/// are printed as they come.
const ROWS_AHEAD: usize = 1000;
const GAP: usize = 3;

/// A table that is printed while it is filled.
pub struct Table {
    headers: Option<Vec<String>>,
    widths: Vec<usize>,
    waiting: Vec<Vec<String>>,
}

impl Table {
    /// With these headers; they are shown with the first row only if `show` says so.
    pub fn new(headers: impl IntoIterator<Item = &'static str>, show: bool) -> Self {
        let headers: Vec<String> = headers.into_iter().map(str::to_owned).collect();
        Self { widths: vec![0; headers.len()], headers: show.then_some(headers), waiting: Vec::new() }
    }

    /// Adds a row, as many cells as there are headers.
    ///
    /// # Errors
    /// If rows were due and cannot be written.
    pub fn row(&mut self, cells: Vec<String>, out: &mut dyn Write) -> io::Result<()> {
        self.waiting.extend(self.headers.take());
        self.waiting.push(cells.into_iter().map(|cell| or_none(harmless(&cell))).collect());
        if self.waiting.len() < ROWS_AHEAD { Ok(()) } else { self.flush(out) }
    }

    /// Prints what has not been printed.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn flush(&mut self, out: &mut dyn Write) -> io::Result<()> {
        for row in &self.waiting {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in self.waiting.drain(..) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&self.widths) {
                line.push_str(&format!("{cell:<width$}", width = width + GAP));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(row: &[&str]) -> Vec<String> {
        row.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_blanks() {
        let mut out = Vec::new();
        let mut table = Table::new(["NAME", "TYPE", "PORT(S)"], true);
        table.row(cells(&["web", "NodePort", "80:30080/TCP"]), &mut out).unwrap();
        table.row(cells(&["kubernetes", "", "443/TCP"]), &mut out).unwrap();
        table.flush(&mut out).unwrap();
        let wanted = "NAME         TYPE       PORT(S)\n\
                      web          NodePort   80:30080/TCP\n\
                      kubernetes   <none>     443/TCP\n";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }

    #[test]
    fn headers_can_be_left_out_and_an_empty_table_is_nothing() {
        let mut out = Vec::new();
        let mut table = Table::new(["NAME", "X"], false);
        table.row(cells(&["a", "é"]), &mut out).unwrap();
        table.flush(&mut out).unwrap();
        Table::new(["NAME"], true).flush(&mut out).unwrap();
        assert_eq!(out, "a   é\n".as_bytes());
    }

    #[test]
    fn a_long_table_is_printed_as_it_comes_and_columns_only_grow() {
        let mut out = Vec::new();
        let mut table = Table::new(["A", "B"], true);
        for _ in 0..ROWS_AHEAD {
            table.row(cells(&["aaaa", "b"]), &mut out).unwrap();
        }
        assert!(out.starts_with(b"A      B\naaaa   b\n"));
        table.row(cells(&["a", "b"]), &mut out).unwrap();
        table.flush(&mut out).unwrap();
        assert!(out.ends_with(b"\na      b\n"));
    }
}
