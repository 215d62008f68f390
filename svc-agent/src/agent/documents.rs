//! What the agent knows, in the words of the control socket.

use std::collections::HashMap;

use svc_common::net::Mac;

use super::view::family_of;
use crate::attach::classes::Class;
use crate::attach::links::TcKind;
use crate::attach::table::Entry;
use crate::attach::xdp::Place;
use crate::control::api::{self, Device, DeviceClass, Flow, FlowState, NextHop, Protocol, ServiceRef, Tc, Xdp, XdpMode};
use crate::flows::{Connection, Traffic};

impl From<&Entry> for Device {
    fn from(entry: &Entry) -> Self {
        Self {
            name: entry.link.name.clone(),
            ifindex: entry.link.index,
            class: entry.class.into(),
            xdp: Xdp {
                mode: match entry.xdp.place {
                    Some(Place::Native) => XdpMode::Native,
                    Some(Place::Generic) => XdpMode::Generic,
                    None => XdpMode::Off,
                },
                reason: entry.xdp.reason.clone(),
            },
            tc: Tc { kind: entry.tc.kind.into(), reason: entry.tc.reason.clone() },
            mtu: entry.link.mtu,
            mac: if entry.link.mac == Mac::default() { String::new() } else { entry.link.mac.to_string() },
            addresses: entry.addresses.iter().map(|address| address.addr).collect(),
        }
    }
}

impl From<Class> for DeviceClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Other => Self::Other,
            Class::Uplink => Self::Uplink,
            Class::Workload => Self::Workload,
            Class::Overlay => Self::Overlay,
        }
    }
}

impl From<TcKind> for api::TcKind {
    fn from(kind: TcKind) -> Self {
        match kind {
            TcKind::Tcx => Self::Tcx,
            TcKind::Clsact => Self::Clsact,
            TcKind::Off => Self::Off,
        }
    }
}

impl From<Traffic> for api::Traffic {
    fn from(traffic: Traffic) -> Self {
        Self { packets: traffic.packets.into(), bytes: traffic.bytes }
    }
}

/// One connection; `None` for a protocol that the socket has no word for, which the datapath never records.
pub fn flow(connection: &Connection, service: Option<ServiceRef>, devices: &HashMap<u32, String>) -> Option<Flow> {
    let next_hop = (connection.ifindex != 0).then(|| NextHop {
        ifindex: connection.ifindex,
        device: devices.get(&connection.ifindex).cloned(),
        mac: connection.next_hop.map(|mac| mac.to_string()),
    });
    Some(Flow {
        protocol: Protocol::from_number(connection.proto)?,
        family: family_of(connection.client.ip()),
        client: connection.client,
        vip: connection.vip,
        backend: connection.backend,
        snat: connection.snat,
        service,
        state: FlowState::from_bits(connection.state),
        idle_seconds: connection.idle_s.into(),
        forward: connection.forward.into(),
        reverse: connection.reverse.into(),
        next_hop,
    })
}
