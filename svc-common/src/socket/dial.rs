//! A process dials: connect, or a datagram to an address.

use super::{
    Mapped, Sockets,
    record::{key, record},
};
use crate::{
    affinity::{self, Sticky},
    decide,
    env::Env,
    family::{V4, V6},
    maps::{
        FrontendKey, Peer, SocketKey, SocketNat, frontend_flags, peer_side,
        socket_scope::{ALL, HOST},
    },
    net::proto,
    reason::Reason,
};

/// How often another backend is looked for, if one stands for another VIP of this socket, or is just going. The verifier of 5.10
/// follows each attempt anew.
const ATTEMPTS: u32 = if cfg!(feature = "flat") { 3 } else { 16 };

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// It goes where the process said.
    Unchanged,
    /// It goes to the backend that is in the peer's place now.
    Translated,
    /// It fails: the connection is refused.
    Refused,
}

/// A process connects a socket to `peer`. Each time another backend may be chosen.
#[inline(always)]
pub fn connect<E>(env: &mut E, peer: &mut Peer, proto: u8) -> Dialled
where
    E: Env<V4> + Env<V6> + Sockets,
{
    dial(env, peer, proto, false)
}

/// A process sends a datagram to `peer`. All datagrams of a socket to one VIP go to one backend as long as that serves.
#[inline(always)]
pub fn send<E>(env: &mut E, peer: &mut Peer, proto: u8) -> Dialled
where
    E: Env<V4> + Env<V6> + Sockets,
{
    dial(env, peer, proto, true)
}

#[inline(always)]
fn dial<E>(env: &mut E, peer: &mut Peer, proto: u8, sticky: bool) -> Dialled
where
    E: Env<V4> + Env<V6> + Sockets,
{
    if (proto != proto::TCP && proto != proto::UDP) || !peer.is_some() {
        return Dialled::Unchanged;
    }
    let (netns, first) = (env.netns(), env.first_netns());
    let Some(config) = env.settings() else { return Dialled::Unchanged };
    let on_node = netns == if config.netns == 0 { first } else { config.netns };
    let served = match config.scope {
        HOST => on_node,
        ALL => !env.skips(netns),
        _ => false,
    };
    if !served {
        return Dialled::Unchanged;
    }
    let call = Call { netns, on_node, proto, sticky };
    if peer.is_v4() { translate::<V4, E>(env, peer, &call) } else { translate::<V6, E>(env, peer, &call) }
}

/// What is known of the system call.
struct Call {
    netns: u64,
    /// The socket is in the node's own network namespace.
    on_node: bool,
    proto: u8,
    sticky: bool,
}

/// A frontend as far as sockets need it.
struct Served {
    service: u32,
    selection: u32,
    /// Whether all connections of a client go to one backend.
    affinity: bool,
    sticky: Sticky,
}

/// The frontend that was dialled, or what to do without. Loopback addresses have no frontends: for processes of the node, any node address that
/// answers nodePorts stands for them (B35).
#[inline(always)]
fn frontend<F: Mapped, E: Env<F> + Sockets>(env: &mut E, peer: &Peer, call: &Call) -> Result<Served, Dialled> {
    let mut addr = F::narrow(&peer.addr);
    let loopback = F::is_loopback(&addr);
    if loopback {
        addr = env.settings().map_or(addr, F::stand_in);
        if !call.on_node || addr == F::Addr::default() {
            return Err(Dialled::Unchanged);
        }
    }
    // The address first: what is not ours costs one look-up.
    let mut key = FrontendKey::of_address(addr);
    let Some(flags) = env.lookup_frontend(&key).map(|row| row.flags) else {
        return Err(Dialled::Unchanged);
    };
    (key.port, key.proto) = (peer.port, call.proto);
    let Some(frontend) = env.lookup_frontend(&key) else {
        if loopback || flags & frontend_flags::VIP == 0 {
            return Err(Dialled::Unchanged);
        }
        // Otherwise it would leave by the default route (B66).
        env.count_socket(Reason::UnknownPort);
        return Err(Dialled::Refused);
    };
    let flags = frontend.flags;
    let served = Served {
        service: frontend.service,
        selection: frontend.internal,
        affinity: flags & frontend_flags::AFFINITY != 0,
        sticky: Sticky::new(frontend, false),
    };
    if loopback && flags & frontend_flags::KIND != frontend_flags::NODE_PORT {
        return Err(Dialled::Unchanged);
    }
    if flags & frontend_flags::SOURCE_RANGES != 0 {
        // Which address a pod's socket will have is not known before it is routed: the packet path knows.
        let source = env.settings().map_or(F::Addr::default(), F::stand_in);
        if !call.on_node || !env.in_ranges(served.service, &source) {
            return Err(Dialled::Unchanged);
        }
    }
    Ok(served)
}

/// Not inlined: the programs for IPv6 have both families, and each its frame.
#[cfg_attr(feature = "flat", inline(always))]
#[cfg_attr(not(feature = "flat"), inline(never))]
fn translate<F: Mapped, E: Env<F> + Sockets>(env: &mut E, peer: &mut Peer, call: &Call) -> Dialled {
    let served = match frontend::<F, E>(env, peer, call) {
        Ok(served) => served,
        Err(dialled) => return dialled,
    };
    // `peer` is the VIP up to the end.
    let mut key = key(env.cookie(), *peer);
    let mut nat = SocketNat::default();
    if call.sticky
        && let Some(known) = env.lookup_nat(&key)
    {
        nat = *known;
        if serves::<F, E>(env, &nat, served.service) {
            key.peer = nat.other;
            // Another VIP may have taken the backend meanwhile: its answers are this one's from here on.
            if env.lookup_nat(&key).is_none_or(|back| back.other != *peer) {
                nat.other = *peer;
                if record(env, call.netns, &key, &mut nat).is_err() {
                    env.count_socket(Reason::SocketTableFull);
                    return Dialled::Unchanged;
                }
            }
            *peer = key.peer;
            return Dialled::Translated;
        }
    }
    let moved = nat.backend != 0;

    if let Err(reason) = choose::<F, E>(env, &mut key, &mut nat, peer, &served, call.netns) {
        env.count_socket(reason);
        return Dialled::Refused;
    }
    nat.service = served.service;
    nat.proto = u32::from(call.proto);
    nat.other = *peer;
    let mut recorded = record(env, call.netns, &key, &mut nat);
    let backend = key.peer;
    if call.proto == proto::UDP && recorded.is_ok() {
        nat.other = backend;
        key.peer = *peer;
        recorded = record(env, call.netns, &key, &mut nat);
    }
    if recorded.is_err() {
        env.count_socket(Reason::SocketTableFull);
        if call.proto == proto::UDP {
            // Whoever sent it would take the backend's answers for a stranger's.
            return Dialled::Unchanged;
        }
    }
    env.count_socket(if moved { Reason::SocketResteered } else { Reason::SocketTranslated });
    env.count_connection(served.service);
    *peer = backend;
    Dialled::Translated
}

/// Whether a backend that was recorded still serves what was dialled.
#[inline(always)]
fn serves<F: Mapped, E: Env<F>>(env: &mut E, known: &SocketNat, service: u32) -> bool {
    let addr = F::narrow(&known.other.addr);
    known.service == service
        && env.lookup_backend(known.backend).is_some_and(|backend| {
            backend.service == service && backend.addr == addr && backend.port == known.other.port
        })
}

/// Chooses a backend, by chance or by affinity, where the client is the network namespace: where the backend is goes to
/// `key`, its id to `nat`. One that stands for another VIP of this socket is taken by chance only if no other is found, as
/// its answers cannot be told apart then.
///
/// # Errors
/// [`Reason::NoEndpoint`], [`Reason::NoLocalEndpoint`], or [`Reason::BackendGone`] if no slot names a backend that is there.
#[inline(always)]
fn choose<F: Mapped, E: Env<F> + Sockets>(
    env: &mut E,
    key: &mut SocketKey,
    nat: &mut SocketNat,
    vip: &Peer,
    served: &Served,
    netns: u64,
) -> Result<(), Reason> {
    key.peer = Peer::default();
    for _ in 0..ATTEMPTS {
        let random = env.random();
        let mut id = decide::choose::<F, E>(env, served.selection, random)?;
        if served.affinity {
            let now = env.now();
            id = affinity::choose::<F, E>(env, &F::client(netns), &served.sticky, id, now);
        }
        let Some(backend) = env.lookup_backend(id) else { continue };
        if backend.service != served.service {
            continue;
        }
        key.peer = Peer::new(F::widen(&backend.addr), backend.port, peer_side::BACKEND);
        nat.backend = id;
        if served.affinity || env.lookup_nat(key).is_none_or(|nat| nat.other == *vip) {
            break;
        }
    }
    if key.peer.is_some() { Ok(()) } else { Err(Reason::BackendGone) }
}
