//! Services of local sockets: what a process dials becomes a backend's address before there is a packet, and what it is
//! told about its peer becomes the VIP again. The packet path never meets such a connection.
//!
//! `SOCKET_NAT` has two elements for each translation of a socket: the one of the backend says which VIP it stands for,
//! the one of the VIP says which backend a datagram socket sticks to. They form a list that begins in `SOCKETS`, so that
//! all of them go when the socket is closed (B70).

mod address;
mod dial;
mod env;
#[cfg(any(test, feature = "host"))]
pub mod host;
mod record;
#[cfg(test)]
mod tests;

pub use address::Mapped;
pub use dial::{Dialled, connect, send};
pub use env::Sockets;
pub use record::{release, show};
