//! `/v1/status`: the agent at a glance.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Device;

/// The agent, its devices, maps and counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// For how long it has been running.
    pub uptime_seconds: u64,
    /// The node's name.
    pub node_name: String,
    /// The node's zone, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Where programs, links and maps are pinned.
    pub pin_dir: String,
    /// The running kernel, as `uname -r` says.
    pub kernel_release: String,
    /// What is done in another way because the kernel is older than that way, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel_notes: Vec<String>,
    /// Whether what was asked for is in the maps.
    pub sync: Sync,
    /// What comes over a connection, by kind, and how fresh it is; empty where objects come from files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceStatus>,
    /// Raised whenever anything a flow was derived from may have changed.
    pub epoch: u32,
    /// The devices, by name.
    pub devices: Vec<Device>,
    /// The hooks that connect local sockets straight to backends.
    #[serde(default)]
    pub sockets: SocketHooks,
    /// The routes for a routing daemon; absent if there shall be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<Announced>,
    /// The addresses that this node answers for on shared segments; absent if there shall be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<Segment>,
    /// How full the maps are.
    pub maps: Vec<MapUsage>,
    /// What happened to packets, by reason; those that never happened may be left out.
    pub counters: Vec<ReasonCount>,
}

/// How far the maps follow the sources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sync {
    /// Seconds since the maps were last brought up to date; absent before the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_seconds_ago: Option<u64>,
    /// Services whose change is not in the maps yet.
    pub pending: u64,
    /// Every source has delivered a first complete list; until then nothing is removed.
    pub complete: bool,
    /// Why the last attempt failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Services that are not programmed as asked.
    #[serde(default)]
    pub refused: Vec<Refused>,
    /// Faults of the sources, each with its file, document, object and field.
    #[serde(default)]
    pub problems: Vec<String>,
    /// What is no fault but may surprise, likewise.
    #[serde(default)]
    pub notices: Vec<String>,
}

/// One kind of objects that comes over a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// The kind, as Kubernetes calls the resource.
    pub kind: String,
    /// The API server that was asked last.
    pub server: String,
    /// Changes are told as they happen.
    pub connected: bool,
    /// A full list was taken once.
    pub complete: bool,
    /// How many objects are known.
    pub objects: u64,
    /// Seconds since the last full list; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_list_seconds_ago: Option<u64>,
    /// Seconds since anything was heard; an idle connection is heard of about every minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event_seconds_ago: Option<u64>,
    /// Why the connection was lost, until there is one again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A Service that is not programmed as asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// The hooks that connect local sockets straight to backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SocketHooks {
    /// Whose sockets are served: `off`, `host` or `all`.
    pub scope: String,
    /// The control group that the hooks are attached to; empty if they are not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cgroup: String,
    /// The hooks that are attached.
    #[serde(default)]
    pub attached: Vec<String>,
    /// How many network namespaces are left alone.
    #[serde(default)]
    pub skipped_namespaces: u64,
    /// Why it is not all that was asked for, or what does not work on this kernel; empty if there is nothing to tell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// The routes for a routing daemon, one for each address of a load balancer that this node serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announced {
    /// The routing table.
    pub table: u32,
    /// How many addresses.
    pub addresses: u64,
    /// The node is going away, or left out by its label: there is no route.
    #[serde(default)]
    pub leaving: bool,
    /// Why the routes are not what they should be; empty if they are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// The addresses of load balancers whose ARP requests and neighbour solicitations this node answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// The devices.
    pub devices: Vec<String>,
    /// How many addresses this node would answer for, were it alone.
    pub possible: u64,
    /// Those that it answers for.
    pub held: Vec<IpAddr>,
    /// The nodes that come before this one for some address, and are asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
    /// The node is going away, or left out by its label: it answers for nothing.
    #[serde(default)]
    pub leaving: bool,
    /// What is not as it should be; empty if all is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Another node that may answer for addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// How many addresses it would answer for; absent if it does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<u64>,
    /// Why it does not tell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// How full one map is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapUsage {
    /// Its name.
    pub name: String,
    /// Elements in use; absent if not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// Elements that fit.
    pub capacity: u64,
}

/// How often one thing happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReasonCount {
    /// The code of the [`svc_common::reason::Reason`].
    pub reason: String,
    /// Packets.
    pub count: u64,
}
