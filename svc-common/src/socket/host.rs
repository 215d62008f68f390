//! The sockets' environment in memory.

use std::collections::{HashMap, HashSet};

use super::Sockets;
use crate::{
    env::InsertError,
    host::Memory,
    maps::{Socket, SocketConfig, SocketKey, SocketNat},
    reason::Reason,
};

/// The maps of sockets, and the socket that calls.
#[derive(Clone, Debug)]
pub struct Tables {
    /// The calling socket.
    pub cookie: u64,
    /// Its network namespace.
    pub netns: u64,
    /// `SOCKET_CONFIG`.
    pub config: SocketConfig,
    /// `SOCKET_SKIP`.
    pub skip: HashSet<u64>,
    /// `SOCKETS`.
    pub sockets: HashMap<u64, Socket>,
    /// `SOCKET_NAT`.
    pub nat: HashMap<SocketKey, SocketNat>,
    /// How many elements fit into `SOCKET_NAT`, and into `SOCKETS`.
    pub capacities: (usize, usize),
    /// What the next random number is.
    pub random: u32,
}

/// The first network namespace.
pub const FIRST_NETNS: u64 = 1;

impl Default for Tables {
    fn default() -> Self {
        Self {
            cookie: 1,
            netns: FIRST_NETNS,
            config: SocketConfig::default(),
            skip: HashSet::new(),
            sockets: HashMap::new(),
            nat: HashMap::new(),
            capacities: (usize::MAX, usize::MAX),
            random: 0,
        }
    }
}

impl Sockets for Memory {
    fn cookie(&mut self) -> u64 {
        self.sockets.cookie
    }

    fn netns(&mut self) -> u64 {
        self.sockets.netns
    }

    fn first_netns(&mut self) -> u64 {
        FIRST_NETNS
    }

    fn settings(&mut self) -> Option<&SocketConfig> {
        Some(&self.sockets.config)
    }

    fn skips(&mut self, netns: u64) -> bool {
        self.sockets.skip.contains(&netns)
    }

    fn random(&mut self) -> u32 {
        self.sockets.random = self.sockets.random.wrapping_add(0x9e37_79b9);
        self.sockets.random
    }

    fn lookup_socket(&mut self, cookie: u64) -> Option<&Socket> {
        self.sockets.sockets.get(&cookie)
    }

    fn set_socket(&mut self, cookie: u64, socket: &Socket) -> Result<(), InsertError> {
        let Tables { sockets, capacities, .. } = &mut self.sockets;
        if !sockets.contains_key(&cookie) && sockets.len() >= capacities.1 {
            return Err(InsertError::Full);
        }
        sockets.insert(cookie, *socket);
        Ok(())
    }

    fn remove_socket(&mut self, cookie: u64) {
        self.sockets.sockets.remove(&cookie);
    }

    fn lookup_nat(&mut self, key: &SocketKey) -> Option<&SocketNat> {
        self.sockets.nat.get(key)
    }

    fn set_nat(&mut self, key: &SocketKey, nat: &SocketNat) -> Result<(), InsertError> {
        let Tables { nat: table, capacities, .. } = &mut self.sockets;
        if !table.contains_key(key) && table.len() >= capacities.0 {
            return Err(InsertError::Full);
        }
        table.insert(*key, *nat);
        Ok(())
    }

    fn remove_nat(&mut self, key: &SocketKey) {
        self.sockets.nat.remove(key);
    }

    fn count_socket(&mut self, reason: Reason) {
        *self.counters.entry(reason).or_default() += 1;
    }

    fn count_connection(&mut self, service: u32) {
        self.services.entry(service).or_default().new_flows += 1;
    }
}
