//! `/v1/devices`: network devices and what is attached to them.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its index in its namespace.
    pub ifindex: u32,
    /// What it faces.
    pub class: DeviceClass,
    /// How XDP is attached.
    pub xdp: Xdp,
    /// How the tc programs are attached.
    pub tc: Tc,
    /// MTU in bytes.
    pub mtu: u32,
    /// Hardware address; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// What a device faces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceClass {
    /// The network.
    Uplink,
    /// A pod, or a bridge of pods.
    Workload,
    /// Other nodes, through a tunnel.
    Overlay,
    /// Not managed, known for its addresses only.
    Other,
}

impl fmt::Display for DeviceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Uplink => "uplink",
            Self::Workload => "workload",
            Self::Overlay => "overlay",
            Self::Other => "other",
        })
    }
}

/// How XDP is attached to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Xdp {
    /// The mode.
    pub mode: XdpMode,
    /// Why this mode and none before it; empty if there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Where XDP runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, after the driver.
    Generic,
    /// Nowhere.
    Off,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        })
    }
}

/// How the tc programs are attached to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tc {
    /// The kind of attachment.
    pub kind: TcKind,
    /// Why this kind and none before it; empty if there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What holds the tc programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TcKind {
    /// Pinned links.
    Tcx,
    /// Filters of a qdisc, on kernels before 6.6.
    Clsact,
    /// Nothing.
    Off,
}

impl fmt::Display for TcKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Off => "off",
        })
    }
}
