//! Connected UDP sockets whose backend is gone: nothing else would ever tell them, as they name no address any more (B69).
//!
//! TCP ends by itself, and an unconnected socket's next datagram goes elsewhere: both are left alone.

use std::collections::{BTreeSet, HashMap};

use svc_common::family::{V4, V6};
use svc_common::maps::{Peer, SocketKey, SocketNat, peer_side};
use svc_common::net::proto;
use svc_common::socket::Mapped as _;
use tracing::debug;

use super::{Tables, namespaces};
use crate::apply::kernel::KernelStore;
use crate::sys::netns;
use crate::sys::sock_diag::SockDiag;

/// Sockets that were told of a backend that does not serve them any more.
#[derive(Debug, Default)]
pub struct Lost {
    /// What they were told, by their cookies.
    peers: HashMap<u64, Vec<Peer>>,
    /// Where they are.
    netns: BTreeSet<u64>,
}

impl Lost {
    /// Finds them.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn find(tables: &Tables, store: &KernelStore) -> anyhow::Result<Self> {
        let mut lost = Self::default();
        tables.nat.for_each(|key, nat| {
            if key.peer.side == peer_side::BACKEND && nat.proto == u32::from(proto::UDP) && !serves(store, &key, &nat) {
                lost.peers.entry(key.cookie).or_default().push(key.peer);
            }
        })?;
        if !lost.is_empty() {
            tables.sockets.for_each(|cookie, socket| {
                if lost.peers.contains_key(&cookie) {
                    lost.netns.insert(socket.netns);
                }
            })?;
        }
        Ok(lost)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}

/// Whether the backend that a socket was told of is still there, for the same service port.
fn serves(store: &KernelStore, key: &SocketKey, nat: &SocketNat) -> bool {
    if key.peer.is_v4() {
        let addr = V4::narrow(&key.peer.addr);
        let backend = store.backend_v4(nat.backend);
        backend.is_some_and(|it| it.addr == addr && it.port == key.peer.port && it.service == nat.service)
    } else {
        let addr = V6::narrow(&key.peer.addr);
        let backend = store.backend_v6(nat.backend);
        backend.is_some_and(|it| it.addr == addr && it.port == key.peer.port && it.service == nat.service)
    }
}

/// Ends the connected ones among them; returns how many, and why some could not be.
///
/// `own` is the cookie of the agent's network namespace.
pub fn end(lost: &Lost, own: Option<u64>) -> (usize, Option<String>) {
    let (mut ended, mut reason) = (0, None);
    let mut take = |result: std::io::Result<usize>| match result {
        Ok(count) => ended += count,
        Err(error) => reason = Some(explained(&error)),
    };
    if own.is_none_or(|own| lost.netns.contains(&own)) {
        take(SockDiag::open().and_then(|diag| end_in(&diag, lost)));
    }
    let mut elsewhere: BTreeSet<u64> = lost.netns.iter().copied().filter(|netns| Some(*netns) != own).collect();
    for file in if elsewhere.is_empty() { Vec::new() } else { namespaces::all() } {
        // A netlink socket stays in the namespace that it was opened in.
        let opened = netns::inside(&file, || Ok((netns::cookie().ok(), SockDiag::open()?)));
        match opened {
            Ok((cookie, diag)) if cookie.is_none_or(|cookie| elsewhere.remove(&cookie)) => take(end_in(&diag, lost)),
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                take(Err(error));
                break;
            }
            Err(error) => debug!(%error, "cannot look into a network namespace"),
        }
    }
    (ended, reason)
}

fn end_in(diag: &SockDiag, lost: &Lost) -> std::io::Result<usize> {
    let mut ended = 0;
    for socket in diag.connected()? {
        let Some((addr, port)) = socket.peer() else { continue };
        let told = lost.peers.get(&socket.cookie()).into_iter().flatten();
        if !told.into_iter().any(|peer| peer.addr == addr && peer.port.to_host() == port) {
            continue;
        }
        match diag.destroy(&socket) {
            Ok(()) => ended += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ended)
}

fn explained(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "entering other network namespaces takes CAP_SYS_ADMIN".into(),
        Some(libc::EOPNOTSUPP) => "this kernel cannot end sockets (CONFIG_INET_DIAG_DESTROY)".into(),
        Some(libc::ENOENT) => "this kernel does not tell UDP sockets (CONFIG_INET_UDP_DIAG)".into(),
        _ => error.to_string(),
    }
}
