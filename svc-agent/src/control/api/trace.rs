//! `/v1/trace`: what the loaded programs would do with a packet.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{BackendState, DeviceClass, FrontendKind, NextHop, Protocol, ServiceRef};

/// Which packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TraceRequest {
    /// Its protocol: TCP or UDP.
    pub protocol: Protocol,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes to.
    pub destination: SocketAddr,
    /// Name of the device that it comes in through; the first uplink if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// What the programs would do with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes to.
    pub destination: SocketAddr,
    /// Name of the device that it comes in through.
    pub device: String,
    /// What the device faces.
    pub class: DeviceClass,
    /// What was sent: `SYN`, `ACK` or `datagram`.
    pub packet: String,
    /// The live flow that it belongs to: `established` or `half-open`; absent for a new connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<String>,
    /// What is dialled; absent if that is none of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frontend: Option<TracedFrontend>,
    /// Who gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<TracedBackend>,
    /// Source and destination afterwards; absent if nothing was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translation: Option<Translation>,
    /// Where the programs would send it; absent if they leave that to the stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<NextHop>,
    /// The programs that saw it, in order.
    pub hooks: Vec<TracedHook>,
    /// What they counted, by reason.
    pub counted: Vec<String>,
    /// The sum of it.
    pub verdict: String,
}

/// A frontend and the policy that applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TracedFrontend {
    /// The kind of address.
    pub kind: FrontendKind,
    /// The service port, if the agent knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// Whether the packet counts as coming from outside.
    pub external: bool,
    /// Whether only endpoints on this node are used.
    pub local_set: bool,
    /// Index of the selection.
    pub selection: u32,
    /// How many backends it has.
    pub backends: usize,
    /// Session affinity in seconds; absent without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_seconds: Option<u32>,
}

/// A chosen backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TracedBackend {
    /// Its index in the map of its family.
    pub id: u32,
    /// Its address and port.
    pub address: SocketAddr,
    /// Its state.
    pub state: BackendState,
    /// On this node.
    pub local: bool,
}

/// Addresses and ports of a translated packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translation {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes to.
    pub destination: SocketAddr,
}

/// One program's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedHook {
    /// `xdp`, `tc ingress` or `tc egress`.
    pub hook: String,
    /// As the kernel names it.
    pub verdict: String,
}
