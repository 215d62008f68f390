//! Local sockets: what their addresses were translated to, and whose sockets are served.

use crate::net::Be16;

/// An address and port as a socket names it. IPv4 is mapped (`::ffff:a.b.c.d`), as sockets of both families meet it.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// The address.
    pub addr: [u8; 16],
    /// The port; zero means that there is no peer here.
    pub port: Be16,
    /// One of [`peer_side`].
    pub side: u8,
    /// Keys are compared byte by byte: always zero.
    pub pad: u8,
}

/// Values of [`Peer::side`].
pub mod peer_side {
    /// What the client dials.
    pub const VIP: u8 = 0;
    /// What serves.
    pub const BACKEND: u8 = 1;
}

/// Key of `SOCKET_NAT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketKey {
    /// The kernel's number of the socket; never used again.
    pub cookie: u64,
    /// What the other end is known as on one side.
    pub peer: Peer,
    /// Keys are compared byte by byte: always zero.
    pub pad: u32,
}

/// Value of `SOCKET_NAT`: what the peer of the key is known as on the other side.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketNat {
    /// The VIP for a backend, the backend for a VIP.
    pub other: Peer,
    /// The socket's next element, that all of them are found when it is closed; port zero in the last.
    pub next: Peer,
    /// The service port.
    pub service: u32,
    /// The backend.
    pub backend: u32,
    /// IANA protocol number.
    pub proto: u32,
}

/// Value of `SOCKETS`; the key is the socket's cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    /// The cookie of its network namespace.
    pub netns: u64,
    /// The first of its elements in `SOCKET_NAT`.
    pub first: Peer,
    /// Always zero.
    pub pad: u32,
}

/// The one value of `SOCKET_CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketConfig {
    /// The cookie of the node's network namespace; zero means the machine's first one.
    pub netns: u64,
    /// One of [`socket_scope`].
    pub scope: u32,
    /// An address of the node that answers nodePorts, looked up in place of loopback addresses; all zero if there is none.
    pub v4: [u8; 4],
    /// The same for IPv6.
    pub v6: [u8; 16],
}

/// Values of [`SocketConfig::scope`].
pub mod socket_scope {
    /// No socket is served.
    pub const OFF: u32 = 0;
    /// Sockets of the node's network namespace are.
    pub const HOST: u32 = 1;
    /// Sockets of all network namespaces are, but for those in `SOCKET_SKIP`.
    pub const ALL: u32 = 2;
}
