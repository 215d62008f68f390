//! `svcctl get counters`: what happened to packets, by reason.

use std::io::Write;

use serde::Serialize;
use svc_common::reason::Reason;

use super::CliError;
use super::args::Get;
use super::human::number;
use super::printer::{Column, Printer, Show, column};
use crate::client::Client;
use crate::control::api::Status;

/// One counter.
#[derive(Debug, Serialize)]
struct Counter {
    reason: String,
    count: u64,
    meaning: String,
}

impl Show for Counter {
    const COLUMNS: &'static [Column] = &[column("COUNTER"), column("PACKETS"), column("MEANING")];

    fn rows(&self) -> Vec<Vec<String>> {
        vec![vec![self.reason.clone(), number(self.count), self.meaning.clone()]]
    }
}

/// Prints the counters that are not zero, or all that this version knows; returns how many.
pub async fn run(client: &Client, get: &Get, out: &mut dyn Write) -> Result<usize, CliError> {
    let counted = client.get::<Status>("/v1/status", &()).await?.counters;
    let known = Reason::ALL.iter().map(|reason| (reason.code().to_owned(), meaning(reason.text())));
    let mut counters: Vec<Counter> = known.map(|(reason, meaning)| Counter { reason, count: 0, meaning }).collect();
    for found in counted {
        match counters.iter_mut().find(|counter| counter.reason == found.reason) {
            Some(counter) => counter.count = found.count,
            // Of an agent of another version.
            None => counters.push(Counter { reason: found.reason, count: found.count, meaning: String::new() }),
        }
    }
    let wanted = counters.into_iter().filter(|counter| match &get.name {
        Some(name) => *name == counter.reason,
        None => get.all || counter.count > 0,
    });
    let mut printer = Printer::new::<Counter>(get.output, out);
    for counter in wanted.take(get.limit.unwrap_or(usize::MAX)) {
        printer.print(&counter)?;
    }
    printer.finish()
}

/// The text without the numbers of behaviours, which mean something to developers only.
fn meaning(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.trim();
    while let Some((before, after)) = rest.split_once(" (B") {
        plain.push_str(before);
        rest = match after.split_once(')') {
            Some((inside, after)) if inside.starts_with(|c: char| c.is_ascii_digit()) => after,
            _ => {
                plain.push_str(" (B");
                after
            }
        };
    }
    plain.push_str(rest);
    plain.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meanings_are_for_operators() {
        assert_eq!(
            meaning(" Refused: nobody (B64). Dropped, (Bridge) it (B1, B2)."),
            "Refused: nobody. Dropped, (Bridge) it"
        );
        for reason in Reason::ALL {
            let text = meaning(reason.text());
            let first = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            assert!(
                text.len() > 20 && first.starts_with(char::is_uppercase) && !text.contains("(B"),
                "{reason:?}: {text}"
            );
        }
    }
}
