//! `/v1/backends`: backends as they lie in the maps.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Protocol, ServiceRef};

/// One backend. It belongs to one service port: an endpoint that serves two is two backends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Its index in the map of its family.
    pub id: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The protocol, if the service is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The service port it serves; absent for one that only old connections use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// Its state.
    pub state: BackendState,
    /// On this node.
    pub local: bool,
    /// Its part of the table of the whole cluster, in percent: so much of the new connections.
    pub share_percent: f64,
    /// Its part of the table of this node alone, in percent; absent if no frontend uses that table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_share_percent: Option<f64>,
}

/// What a backend is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendState {
    /// New connections.
    Ready,
    /// Going away but serving: old connections, and new ones if there is no other backend.
    Draining,
    /// Going away.
    Terminating,
    /// Neither ready nor going away.
    NotReady,
}

impl BackendState {
    /// From [`svc_common::maps::Backend::flags`].
    pub fn from_flags(flags: u16) -> Self {
        use svc_common::maps::backend_flags::{READY, SERVING, TERMINATING};
        if flags & TERMINATING != 0 {
            if flags & SERVING != 0 { Self::Draining } else { Self::Terminating }
        } else if flags & READY != 0 {
            Self::Ready
        } else {
            Self::NotReady
        }
    }
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "Ready",
            Self::Draining => "Draining",
            Self::Terminating => "Terminating",
            Self::NotReady => "NotReady",
        })
    }
}
