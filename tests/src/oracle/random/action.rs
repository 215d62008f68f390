//! What a step of a history does.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use svc_common::{
    maps::{Frontend, Selection},
    packet::Hook,
};

use super::talk::Talk;
use crate::packet::hex;

/// What a step does.
pub(super) enum Action {
    /// A frame; an aggregate of packets with so much payload each, if `segment_payload` is not zero.
    Frame {
        hook: Hook,
        ifindex: u32,
        bytes: Vec<u8>,
        segment_payload: u32,
    },
    /// A selection becomes a table of these backends of its service.
    Table {
        index: u32,
        service: u32,
        backends: Vec<usize>,
    },
    /// A selection is emptied.
    Empty {
        index: u32,
        selection: Selection,
    },
    RemoveBackend(u32),
    /// Flags of a backend are turned over.
    Flags {
        id: u32,
        flags: u16,
    },
    /// Whether connections are forwarded past the stack.
    Fast {
        uplink: bool,
        workload: bool,
    },
    Epoch,
    /// The agent sweeps some connections, from this one on.
    Sweep(usize),
    Clock(u32),
    Ports {
        min: u16,
        max: u16,
    },
    /// How many connections may begin in a second.
    Limit(u32),
    /// What carries packets to other nodes.
    Encapsulation(u32),
    Frontend {
        vip: SocketAddr,
        proto: u8,
        frontend: Option<Frontend>,
    },
    /// Whom the address of a load balancer serves.
    Range {
        service: u32,
        net: IpAddr,
        bits: u8,
        present: bool,
    },
    /// It is known where ClusterIPs are taken from.
    Networks,
    /// One direction of a connection is evicted.
    Forget(Talk),
    Neighbours(bool),
    /// Leaves room for this many established connections in each family.
    Crowd(u32),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame { hook, ifindex, bytes, segment_payload } => {
                write!(f, "{hook:?} of device {ifindex}, {} bytes: {}", bytes.len(), hex(bytes))?;
                if *segment_payload > 0 { write!(f, " in segments of {segment_payload}") } else { Ok(()) }
            }
            Self::Table { index, service, backends } => {
                write!(f, "selection {index} of service {service}: backends {backends:?}")
            }
            Self::Empty { index, selection } => write!(f, "selection {index}: {selection:?}"),
            Self::RemoveBackend(id) => write!(f, "backend {id} goes"),
            Self::Flags { id, flags } => write!(f, "backend {id} turns over the flags {flags:#x}"),
            Self::Fast { uplink, workload } => write!(f, "past the stack: uplink {uplink}, workload {workload}"),
            Self::Sweep(first) => write!(f, "sweep from {first} on"),
            Self::Epoch => write!(f, "the epoch rises"),
            Self::Clock(seconds) => write!(f, "{seconds} s pass"),
            Self::Ports { min, max } => write!(f, "source ports {min}-{max}"),
            Self::Encapsulation(kind) => write!(f, "encapsulation {kind}"),
            Self::Limit(limit) => write!(f, "{limit} new connections in a second"),
            Self::Frontend { vip, proto, frontend } => write!(f, "frontend {vip} protocol {proto}: {frontend:?}"),
            Self::Range { service, net, bits, present } => {
                write!(f, "service {service} serves {net}/{bits}: {present}")
            }
            Self::Networks => write!(f, "networks of services"),
            Self::Forget(talk) => write!(f, "evicted: {talk:?}"),
            Self::Neighbours(known) => write!(f, "neighbours known: {known}"),
            Self::Crowd(room) => write!(f, "room for {room} established flows"),
        }
    }
}
