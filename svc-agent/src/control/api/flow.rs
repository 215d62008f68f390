//! `/v1/flows`: connections and their translation.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use svc_common::maps::flow_state;

use super::{Family, Protocol, ServiceRef};

/// One connection: both of its directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// The protocol.
    pub protocol: Protocol,
    /// The family.
    pub family: Family,
    /// Who dialled.
    pub client: SocketAddr,
    /// What was dialled.
    pub vip: SocketAddr,
    /// Who answers.
    pub backend: SocketAddr,
    /// What the backend sees as the client; absent unless the source is translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snat: Option<SocketAddr>,
    /// The service port; absent if it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// How far the connection is.
    pub state: FlowState,
    /// Seconds since the last packet of either direction.
    pub idle_seconds: u64,
    /// Client to backend.
    pub forward: Traffic,
    /// Backend to client.
    pub reverse: Traffic,
    /// Where packets to the backend leave; absent if the stack forwards them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<NextHop>,
}

/// How many packets and bytes went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets.
    pub bytes: u64,
}

/// Where packets leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextHop {
    /// The device's index.
    pub ifindex: u32,
    /// The device's name, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The neighbour's hardware address; absent if not resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FlowState {
    /// The backend has not answered.
    Unreplied,
    /// The backend has answered, the client has not gone on.
    Replied,
    /// Both talk.
    Established,
    /// One side has finished.
    Closing,
    /// Both sides have finished.
    Closed,
    /// Torn down by either side.
    Reset,
}

impl FlowState {
    /// From the [`svc_common::maps::Flow::state`] of both directions.
    pub fn from_bits(bits: u8) -> Self {
        let has = |bit| bits & bit != 0;
        if has(flow_state::RST) {
            Self::Reset
        } else if has(flow_state::FIN) && has(flow_state::PEER_FIN) {
            Self::Closed
        } else if has(flow_state::FIN) || has(flow_state::PEER_FIN) {
            Self::Closing
        } else if has(flow_state::ESTABLISHED) {
            Self::Established
        } else if has(flow_state::REPLIED) {
            Self::Replied
        } else {
            Self::Unreplied
        }
    }
}

impl fmt::Display for FlowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unreplied => "Unreplied",
            Self::Replied => "Replied",
            Self::Established => "Established",
            Self::Closing => "Closing",
            Self::Closed => "Closed",
            Self::Reset => "Reset",
        })
    }
}
