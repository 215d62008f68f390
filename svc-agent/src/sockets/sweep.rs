//! What no closing socket will take along: elements that two threads of one process lost against each other, and those
//! beyond what the program removes at once.

use std::collections::HashSet;

use svc_common::maps::SocketKey;

use super::Tables;

/// Finds elements without a socket.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Had no socket the last time: one that was just being made has one by now.
    suspects: HashSet<SocketKey>,
}

impl Sweep {
    /// Removes what had no socket the last time either; returns how much that was.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn run(&mut self, tables: &mut Tables) -> anyhow::Result<usize> {
        let mut keys = Vec::new();
        tables.nat.for_each(|key, _| keys.push(key))?;
        // After the elements, so that every socket that has one of them is seen.
        let mut cookies = HashSet::new();
        tables.sockets.for_each(|cookie, _| {
            cookies.insert(cookie);
        })?;
        let orphans: HashSet<SocketKey> = keys.into_iter().filter(|key| !cookies.contains(&key.cookie)).collect();
        let gone: Vec<_> = orphans.intersection(&self.suspects).copied().collect();
        gone.iter().for_each(|key| tables.nat.remove(key));
        self.suspects = orphans.into_iter().filter(|key| !gone.contains(key)).collect();
        Ok(gone.len())
    }
}
