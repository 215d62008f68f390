//! `/v1/events`: what happens to single packets and connections, as it happens.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::ServiceRef;

/// What a client wants to hear of; neither means both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventFilter {
    /// Packets that were dropped.
    #[serde(default)]
    pub drops: bool,
    /// Connections that began or ended.
    #[serde(default)]
    pub flows: bool,
    /// One of so many; every one if absent. Another client may have asked for more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<u32>,
}

impl EventFilter {
    /// Whether it wants events of this kind.
    pub const fn wants(&self, kind: EventKind) -> bool {
        let both = self.drops == self.flows;
        match kind {
            EventKind::Drop => both || self.drops,
            EventKind::Begin | EventKind::End => both || self.flows,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A packet was dropped.
    Drop,
    /// A connection was recorded.
    Begin,
    /// A connection was removed.
    End,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When the agent heard of it, milliseconds since 1970.
    pub time_unix_ms: u64,
    /// What happened.
    pub kind: EventKind,
    /// For drops the counter's name; for ends `timeout` or `replaced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For drops, where: `xdp`, `tc-ingress` or `tc-egress`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// For drops, the device that the packet came in through, at egress the one that it was to leave by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6` or a number.
    pub protocol: String,
    /// For drops the packet's source, for connections the client; the port is zero if there is none.
    pub source: SocketAddr,
    /// For drops the packet's destination, for connections what was dialled.
    pub destination: SocketAddr,
    /// Who answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<SocketAddr>,
    /// What the backend sees as the client; absent unless the source is translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snat: Option<SocketAddr>,
    /// The service port, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// For drops, bytes of the frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_bytes: Option<u32>,
}
