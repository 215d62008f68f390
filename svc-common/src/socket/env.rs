//! What the socket hooks need of the world, besides the maps of services.

use crate::{
    env::InsertError,
    maps::{Socket, SocketConfig, SocketKey, SocketNat},
    reason::Reason,
};

/// The world around one system call on a socket.
pub trait Sockets {
    /// The socket's number.
    fn cookie(&mut self) -> u64;

    /// The number of the socket's network namespace.
    fn netns(&mut self) -> u64;

    /// The number of the machine's first network namespace.
    fn first_netns(&mut self) -> u64;

    /// The agent's settings.
    fn settings(&mut self) -> Option<&SocketConfig>;

    /// Whether the sockets of a network namespace are to be left alone.
    fn skips(&mut self, netns: u64) -> bool;

    /// Any number.
    fn random(&mut self) -> u32;

    /// Looks a socket up.
    fn lookup_socket(&mut self, cookie: u64) -> Option<&Socket>;

    /// Writes a socket over whatever is there.
    ///
    /// # Errors
    /// If there is no room.
    fn set_socket(&mut self, cookie: u64, socket: &Socket) -> Result<(), InsertError>;

    /// Removes a socket if it is there.
    fn remove_socket(&mut self, cookie: u64);

    /// Looks a translation up.
    fn lookup_nat(&mut self, key: &SocketKey) -> Option<&SocketNat>;

    /// Writes a translation over whatever is there.
    ///
    /// # Errors
    /// If there is no room.
    fn set_nat(&mut self, key: &SocketKey, nat: &SocketNat) -> Result<(), InsertError>;

    /// Removes a translation if it is there.
    fn remove_nat(&mut self, key: &SocketKey);

    /// Counts a reason. System calls are interrupted by packets, so no count may be lost to those of the packet path.
    fn count_socket(&mut self, reason: Reason);

    /// Counts a connection of a service, likewise.
    fn count_connection(&mut self, service: u32);
}
