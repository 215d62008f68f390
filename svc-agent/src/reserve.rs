//! Keeps local sockets off nodePorts: `net.ipv4.ip_local_reserved_ports` names ports that the kernel gives nobody as a
//! source port (B31). The administrator's own entries stay.
//!
//! Which of the entries are ours is remembered in a pinned map, which outlives the agent as the datapath does.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Context as _;
use aya::maps::{Array, Map, MapData};
use svc_common::maps::{PORT_WORDS, spec};

use crate::attach::maps::Maps;
use crate::attach::pins::PinDir;

/// The setting, of the network namespace of this process; both families go by it.
const SETTING: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

type Ports = BTreeSet<u16>;

/// The reserved ports of this node.
pub struct Reserved {
    ours: Array<MapData, [u64; PORT_WORDS]>,
}

impl Reserved {
    /// With what an earlier agent remembered.
    ///
    /// # Errors
    /// If the map is missing or of another shape.
    pub fn open(maps: &Maps) -> anyhow::Result<Self> {
        Ok(Self { ours: Array::try_from(maps.map(&spec::RESERVED_PORTS)?)? })
    }

    /// Reserves these ports and no others of ours. Writes nothing if that is so already.
    ///
    /// # Errors
    /// If the setting cannot be read or written.
    pub fn set(&mut self, wanted: &Ports) -> anyhow::Result<()> {
        let text = fs::read_to_string(SETTING).with_context(|| format!("cannot read {SETTING}"))?;
        let current = parse(&text).with_context(|| format!("cannot understand {SETTING}: `{}`", text.trim()))?;
        let ours = self.remembered()?;
        let (ports, claimed) = merge(&current, &ours, wanted);
        if ports != current {
            // Remembered before they are there, and until they are gone: nobody takes them for the administrator's.
            self.remember(&ours.union(&claimed).copied().collect())?;
            fs::write(SETTING, format(&ports)).with_context(|| format!("cannot write {SETTING}"))?;
        }
        if ports != current || claimed != ours {
            self.remember(&claimed)?;
        }
        Ok(())
    }

    fn remembered(&self) -> anyhow::Result<Ports> {
        let words = self.ours.get(&0, 0).context("cannot read `RESERVED_PORTS`")?;
        let bits =
            words.iter().enumerate().flat_map(|(at, word)| (0..64).map(move |bit| (at * 64 + bit, word >> bit & 1)));
        Ok(bits.filter(|(_, set)| *set == 1).filter_map(|(port, _)| u16::try_from(port).ok()).collect())
    }

    fn remember(&mut self, ports: &Ports) -> anyhow::Result<()> {
        let mut words = [0; PORT_WORDS];
        for port in ports {
            if let Some(word) = words.get_mut(usize::from(port / 64)) {
                *word |= 1 << (port % 64);
            }
        }
        self.ours.set(0, words, 0).context("cannot write `RESERVED_PORTS`")
    }
}

/// Gives back what an agent reserved, for `cleanup`.
///
/// # Errors
/// If the setting cannot be read or written.
pub fn release(pins: &PinDir) -> anyhow::Result<()> {
    // Without a map nothing was reserved.
    let Ok(data) = MapData::from_pin(pins.map(&spec::RESERVED_PORTS)) else { return Ok(()) };
    Reserved { ours: Array::try_from(Map::from_map_data(data)?)? }.set(&Ports::new())
}

/// What the setting shall say, and which of that is ours.
fn merge(current: &Ports, ours: &Ports, wanted: &Ports) -> (Ports, Ports) {
    let others: Ports = current.difference(ours).copied().collect();
    let claimed = wanted.difference(&others).copied().collect();
    (&others | &claimed, claimed)
}

/// `8080,30000-30010`
fn parse(text: &str) -> Option<Ports> {
    let mut ports = Ports::new();
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        ports.extend(first.parse::<u16>().ok()?..=last.parse().ok()?);
    }
    Some(ports)
}

fn format(ports: &Ports) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for &port in ports {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
            _ => ranges.push((port, port)),
        }
    }
    let ranges: Vec<_> = ranges
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    // An empty write changes nothing; a line end clears.
    ranges.join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b31_what_the_administrator_reserved_stays() {
        let ports = |text: &str| parse(text).unwrap();
        let check = |current: &str, ours: &str, wanted: &str, expected: &str, claimed: &str| {
            let (found, mine) = merge(&ports(current), &ports(ours), &ports(wanted));
            assert_eq!((format(&found), mine), (format!("{expected}\n"), ports(claimed)), "{current} {ours} {wanted}");
        };
        check("", "", "30080", "30080", "30080");
        check("8080,9000-9002\n", "", "30080,30081", "8080,9000-9002,30080-30081", "30080-30081");
        check("8080,30080-30081", "30080-30081", "30081", "8080,30081", "30081");
        check("8080,30080", "30080", "", "8080", "");
        check("30080", "", "30080", "30080", "");
        check("30080", "", "", "30080", "");
        check("8080", "30080", "30080", "8080,30080", "30080");
        check("65535", "", "65534", "65534-65535", "65534");
        assert_eq!((parse("many"), parse("1-"), parse("70000")), (None, None, None));
    }
}
