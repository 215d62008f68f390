//! The translations of a socket: recorded, asked for, removed with the socket.

use super::Sockets;
use crate::{
    env::InsertError,
    maps::{Peer, Socket, SocketKey, SocketNat, peer_side},
};

/// Most elements that are removed when a socket is closed. The agent's sweep takes the rest; the verifier wants a bound.
const MOST: usize = 128;

#[inline(always)]
pub(super) const fn key(cookie: u64, peer: Peer) -> SocketKey {
    SocketKey { cookie, peer, pad: 0 }
}

/// Records what `key.peer` is known as on the other side, over what was there before.
///
/// Two threads that send by one socket at the same moment may lose one element of the list: the agent's sweep takes it.
///
/// # Errors
/// If there is no room; nothing is recorded then.
#[inline(always)]
pub(super) fn record<E: Sockets>(
    env: &mut E,
    netns: u64,
    key: &SocketKey,
    nat: &mut SocketNat,
) -> Result<(), InsertError> {
    if let Some(known) = env.lookup_nat(key) {
        nat.next = known.next;
        return env.set_nat(key, nat);
    }
    nat.next = Peer::default();
    if let Some(socket) = env.lookup_socket(key.cookie) {
        nat.next = socket.first;
    }
    env.set_nat(key, nat)?;
    let result = env.set_socket(key.cookie, &Socket { netns, first: key.peer, pad: 0 });
    if result.is_err() {
        env.remove_nat(key);
    }
    result
}

/// Puts the VIP that a peer stands for, if it stands for one, in its place: what the process is to be told.
#[inline(always)]
pub fn show<E: Sockets>(env: &mut E, peer: &mut Peer) -> bool {
    let key = key(env.cookie(), peer.on(peer_side::BACKEND));
    let Some(nat) = env.lookup_nat(&key) else { return false };
    *peer = nat.other;
    true
}

/// Removes all that is known of a socket.
#[inline(always)]
pub fn release<E: Sockets>(env: &mut E) {
    let cookie = env.cookie();
    let mut key = key(cookie, Peer::default());
    let Some(socket) = env.lookup_socket(cookie) else { return };
    key.peer = socket.first;
    for _ in 0..MOST {
        let Some(nat) = env.lookup_nat(&key) else { break };
        let next = nat.next;
        env.remove_nat(&key);
        key.peer = next;
    }
    env.remove_socket(cookie);
}
