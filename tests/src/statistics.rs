//! What a network namespace's stack has counted: /proc/net/snmp, snmp6 and netstat.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use crate::netns::Netns;

/// Counters by name, `Tcp:InCsumErrors` or `Udp6InCsumErrors`.
#[derive(Clone, Debug, Default)]
pub struct Statistics(BTreeMap<String, u64>);

impl Statistics {
    /// Those of a namespace at this moment.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or its counters not be read.
    pub fn of(ns: &Netns) -> Result<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        let texts = ns.run(|| Ok::<_, std::io::Error>([read("snmp")?, read("netstat")?, read("snmp6")?])).flatten();
        let [snmp, netstat, snmp6] = texts.with_context(|| format!("cannot read the counters of {}", ns.name()))?;
        let mut counters = BTreeMap::new();
        for text in [snmp, netstat] {
            let lines: Vec<&str> = text.lines().collect();
            // A line of names, then a line of values.
            for pair in lines.chunks(2) {
                let [names, values] = pair else { continue };
                let group = names.split(' ').next().unwrap_or_default();
                for (name, value) in names.split(' ').zip(values.split(' ')).skip(1) {
                    // Limits may be negative; they are no counters.
                    counters.insert(format!("{group}{name}"), value.parse().unwrap_or(0));
                }
            }
        }
        for line in snmp6.lines() {
            if let [name, value] = line.split_whitespace().collect::<Vec<_>>()[..] {
                counters.insert(name.to_owned(), value.parse().unwrap_or(0));
            }
        }
        Ok(Self(counters))
    }

    /// A counter; zero if the kernel does not have it.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// What has grown since, of the counters whose names contain one of these.
    pub fn grown<'a>(&'a self, before: &Self, parts: &[&str]) -> Vec<(&'a str, u64)> {
        let of_interest = self.0.iter().filter(|(name, _)| parts.iter().any(|part| name.contains(part)));
        let grown = of_interest.map(|(name, value)| (name.as_str(), value.saturating_sub(before.get(name))));
        grown.filter(|(_, more)| *more > 0).collect()
    }
}
