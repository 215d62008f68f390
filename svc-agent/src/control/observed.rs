//! Devices and connections as documents.

use std::net::{IpAddr, SocketAddr};

use super::api::{Device, DeviceClass, Family, Flow, FlowState, NextHop, Protocol, ServiceRef, Tc, TcKind, Traffic};
use super::api::{Xdp, XdpMode};
use crate::attach::classes::Class;
use crate::attach::links;
use crate::attach::table::Entry;
use crate::attach::xdp::Place;
use crate::flows::{self, Connection};

impl From<&Entry> for Device {
    fn from(entry: &Entry) -> Self {
        let mac = entry.link.mac;
        Self {
            name: entry.link.name.clone(),
            ifindex: entry.link.index,
            class: entry.class.into(),
            xdp: Xdp { mode: entry.xdp.place.into(), reason: entry.xdp.reason.clone() },
            tc: Tc { kind: entry.tc.kind.into(), reason: entry.tc.reason.clone() },
            mtu: entry.link.mtu,
            mac: if mac == Default::default() { String::new() } else { mac.to_string() },
            addresses: entry.addresses.iter().map(|address| address.addr).collect(),
        }
    }
}

impl From<Class> for DeviceClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Uplink => Self::Uplink,
            Class::Workload => Self::Workload,
            Class::Overlay => Self::Overlay,
            Class::Other => Self::Other,
        }
    }
}

impl From<Option<Place>> for XdpMode {
    fn from(place: Option<Place>) -> Self {
        match place {
            Some(Place::Native) => Self::Native,
            Some(Place::Generic) => Self::Generic,
            None => Self::Off,
        }
    }
}

impl From<links::TcKind> for TcKind {
    fn from(kind: links::TcKind) -> Self {
        match kind {
            links::TcKind::Tcx => Self::Tcx,
            links::TcKind::Clsact => Self::Clsact,
            links::TcKind::Off => Self::Off,
        }
    }
}

impl Flow {
    /// From what the tables hold. `device` names a device by its index. `None` for a protocol that the socket has no
    /// word for; no such connection is ever recorded.
    pub fn from_connection(
        connection: &Connection,
        service: Option<ServiceRef>,
        device: impl Fn(u32) -> Option<String>,
    ) -> Option<Self> {
        let hop =
            |ifindex| NextHop { ifindex, device: device(ifindex), mac: connection.next_hop.map(|mac| mac.to_string()) };
        Some(Self {
            protocol: Protocol::from_number(connection.proto)?,
            family: family(connection.client),
            client: connection.client,
            vip: connection.vip,
            backend: connection.backend,
            snat: connection.snat,
            service,
            state: FlowState::from_bits(connection.state),
            idle_seconds: connection.idle_s.into(),
            forward: connection.forward.into(),
            reverse: connection.reverse.into(),
            next_hop: (connection.ifindex != 0).then(|| hop(connection.ifindex)),
        })
    }
}

impl From<flows::Traffic> for Traffic {
    fn from(traffic: flows::Traffic) -> Self {
        Self { packets: traffic.packets.into(), bytes: traffic.bytes }
    }
}

fn family(addr: SocketAddr) -> Family {
    match addr.ip() {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

#[cfg(test)]
mod tests {
    use svc_common::maps::flow_state;
    use svc_common::net::Mac;

    use super::*;

    #[test]
    fn a_connection_keeps_its_translation_and_its_next_hop() {
        let connection = Connection {
            proto: 17,
            client: "[fd00::9]:5353".parse().unwrap(),
            vip: "[fd00:96::1]:53".parse().unwrap(),
            backend: "[fd00:1::1]:5353".parse().unwrap(),
            snat: Some("[fd00::1]:1024".parse().unwrap()),
            service: 3,
            backend_id: 4,
            state: flow_state::REPLIED | flow_state::ESTABLISHED,
            idle_s: 7,
            forward: flows::Traffic { packets: 1, bytes: 60 },
            reverse: flows::Traffic { packets: 2, bytes: 1200 },
            ifindex: 2,
            next_hop: Some(Mac([2, 0, 0, 0, 0, 9])),
        };
        let flow = Flow::from_connection(&connection, None, |index| (index == 2).then(|| "eth0".into())).unwrap();
        assert_eq!((flow.protocol, flow.family, flow.state), (Protocol::Udp, Family::V6, FlowState::Established));
        assert_eq!((flow.snat, flow.idle_seconds, flow.reverse.bytes), (connection.snat, 7, 1200));
        let hop = NextHop { ifindex: 2, device: Some("eth0".into()), mac: Some("02:00:00:00:00:09".into()) };
        assert_eq!(flow.next_hop, Some(hop));

        let stack = Connection { ifindex: 0, ..connection };
        assert_eq!(Flow::from_connection(&stack, None, |_| None).unwrap().next_hop, None);
        assert_eq!(Flow::from_connection(&Connection { proto: 1, ..stack }, None, |_| None), None);
    }
}
