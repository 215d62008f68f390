//! Benchmarks: everything that a table compares is measured in turn in one run, since machines differ and are noisy.

pub mod packets;

use serde_json::{Value, json};

/// One line of a table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub name: &'static str,
    /// ns per packet, one value per round.
    pub ns: Vec<f64>,
}

impl Row {
    fn sorted(&self) -> Vec<f64> {
        let mut ns = self.ns.clone();
        ns.sort_by(f64::total_cmp);
        ns
    }

    /// The middle value.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Lowest and highest value.
    pub fn spread(&self) -> (f64, f64) {
        let sorted = self.sorted();
        (sorted.first().copied().unwrap_or(f64::NAN), sorted.last().copied().unwrap_or(f64::NAN))
    }
}

/// Prints rows with their ratios to the row `unit`.
pub fn print(title: &str, unit: &str, rows: &[Row]) {
    let base = rows.iter().find(|row| row.name == unit).map_or(f64::NAN, Row::median);
    println!("{title}\n");
    println!("{:<44} {:>10} {:>17} {:>12}", "", "ns/packet", "lowest-highest", format!("x {unit}"));
    for row in rows {
        let (low, high) = row.spread();
        let spread = format!("{low:.1}-{high:.1}");
        println!("{:<44} {:>10.1} {:>17} {:>12.2}", row.name, row.median(), spread, row.median() / base);
    }
    println!();
}

/// The same as JSON.
pub fn to_json(unit: &str, rows: &[Row]) -> Value {
    let base = rows.iter().find(|row| row.name == unit).map_or(f64::NAN, Row::median);
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let (low, high) = row.spread();
            json!({
                "name": row.name, "ns": row.median(), "lowest": low, "highest": high,
                "ratio": row.median() / base, "rounds": row.ns,
            })
        })
        .collect();
    json!({ "unit": unit, "rows": rows })
}
