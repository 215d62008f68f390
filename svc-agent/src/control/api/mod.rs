//! The documents of the control socket. JSON names are camelCase; fields are only ever added, so clients ignore
//! unknown ones.

mod backend;
mod device;
mod event;
mod filter;
mod flow;
mod names;
mod object;
mod selector;
mod service;
mod status;
mod trace;

use serde::{Deserialize, Serialize};

pub use backend::{Backend, BackendState};
pub use device::{Device, DeviceClass, Tc, TcKind, Xdp, XdpMode};
pub use event::{Event, EventFilter, EventKind};
pub use filter::{AddressMatch, FlowFilter, ObjectFilter};
pub use flow::{Flow, FlowState, NextHop, Traffic};
pub use names::{NamedEndpoint, NamedObject, NamedPort, NamedService, NamesLine, NamesSynced};
pub use object::{
    ChangeQuery, ChangedObject, Changes, ObjectAction, ObjectEvent, ObjectEventType, ObjectList, ObjectQuery,
};
pub use selector::Selector;
pub use service::{Endpoint, EndpointCounts, Frontend, FrontendKind, Service, ServiceEndpoints, ServicePort};
pub use status::{Announced, MapUsage, Peer, ReasonCount, Refused, Segment, SocketHooks, SourceStatus, Status, Sync};
pub use trace::{Trace, TraceRequest, TracedBackend, TracedFrontend, TracedHook, Translation};

/// A list, as `/v1/services` and its like answer it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct List<T> {
    /// The elements.
    pub items: Vec<T>,
}

/// The body of every answer that is not a success, and the last line of a stream that broke off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was wrong, what was expected.
    pub error: String,
}

/// One port of one Service, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `spec.ports[].name`; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub port_name: String,
    /// `spec.ports[].port`.
    pub port: u16,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// From the IANA number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            svc_common::net::proto::TCP => Some(Self::Tcp),
            svc_common::net::proto::UDP => Some(Self::Udp),
            svc_common::net::proto::SCTP => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

impl std::str::FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|protocol| protocol.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("found the protocol `{text}`, expected TCP, UDP or SCTP"))
    }
}
