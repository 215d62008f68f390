//! Endpoints of a Service: EndpointSlices and Endpoints objects become the same thing.

use std::net::IpAddr;

use k8s_openapi::jiff::Timestamp;

use super::{Protocol, ServiceName};

/// What a slice was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SliceOrigin {
    /// An EndpointSlice.
    Slice,
    /// An Endpoints object: not counted where the Service has any EndpointSlice (B75).
    Endpoints,
}

/// The object behind an endpoint (`targetRef`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Its kind, usually `Pod`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid, empty if unknown.
    pub uid: String,
}

/// One endpoint: an address with its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address: only the first of a slice's endpoint counts (B75).
    pub addr: IpAddr,
    /// Ready for new connections; a missing condition means so.
    pub ready: bool,
    /// Serves, ready or not; like `ready` if missing.
    pub serving: bool,
    /// Going away; a missing condition means not.
    pub terminating: bool,
    /// The node it runs on, if known.
    pub node: Option<String>,
    /// The zone it is in, if known.
    pub zone: Option<String>,
    /// The name that DNS gives it below the Service's, if it has one of its own.
    pub hostname: Option<String>,
    /// The object behind it, if known.
    pub target: Option<Target>,
    /// Zones that should use it; empty without a hint.
    pub for_zones: Vec<String>,
    /// Nodes that should use it; empty without a hint.
    pub for_nodes: Vec<String>,
}

/// One port of all endpoints of a slice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlicePort {
    /// Its name, empty if it has none.
    pub name: String,
    /// The endpoints' port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// Endpoints of one Service that share their ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The Service it belongs to.
    pub service: ServiceName,
    /// Its own name; several slices of one Endpoints object share it.
    pub name: String,
    /// Where it was read, for messages: file and document.
    pub origin: String,
    /// What it was read from.
    pub source: SliceOrigin,
    /// `metadata.creationTimestamp`, if known.
    pub created: Option<Timestamp>,
    /// When what made this version of it happened, if whoever wrote it tells.
    pub triggered: Option<Timestamp>,
    /// Ports of every endpoint.
    pub ports: Vec<SlicePort>,
    /// The endpoints, in the object's order.
    pub endpoints: Vec<Endpoint>,
}
