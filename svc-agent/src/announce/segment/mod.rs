//! Addresses on a segment that the node shares with clients or routers: one node answers ARP requests and neighbour
//! solicitations for each, and tells everybody when it begins to.

pub mod answerer;
mod arp;
pub mod devices;
pub mod elect;
mod ndp;
pub mod peers;

#[cfg(test)]
mod ndp_tests;
