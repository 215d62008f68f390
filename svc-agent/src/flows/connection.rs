//! A connection: two flows put together.

use std::net::{IpAddr, SocketAddr};

use svc_common::expire;
use svc_common::maps::{Flow, Tuple, flow_flags};
use svc_common::net::{Be16, Mac};

/// What has been seen of a connection, from the point of view of `flow`.
fn joint_state<A>(flow: &Flow<A>, partner: Option<&Flow<A>>) -> u8 {
    partner.map_or(flow.state, |partner| expire::joint_state(flow.state, partner.state, partner.packets > 0))
}

/// Seconds since the last packet of either direction.
fn idle_s<A>(flow: &Flow<A>, partner: Option<&Flow<A>>, now_s: u32) -> u32 {
    let partner = partner.map_or(u32::MAX, |partner| expire::since(now_s, partner.seen_s));
    expire::since(now_s, flow.seen_s).min(partner)
}

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets, modulo 2^32.
    pub packets: u32,
    /// Bytes of IP packets.
    pub bytes: u64,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IANA protocol number.
    pub proto: u8,
    /// Who dialled.
    pub client: SocketAddr,
    /// What was dialled.
    pub vip: SocketAddr,
    /// Who answers.
    pub backend: SocketAddr,
    /// What the backend sees as the client, where the source is translated.
    pub snat: Option<SocketAddr>,
    /// The service port.
    pub service: u32,
    /// The backend's id.
    pub backend_id: u32,
    /// What has been seen, as the client's direction has it.
    pub state: u8,
    /// Seconds since the last packet.
    pub idle_s: u32,
    /// From the client.
    pub forward: Traffic,
    /// From the backend.
    pub reverse: Traffic,
    /// Where packets to the backend leave; zero if the stack forwards them.
    pub ifindex: u32,
    /// The next hop, if known.
    pub next_hop: Option<Mac>,
}

impl Connection {
    pub(super) fn new<A: Copy + Into<IpAddr>>(
        key: &Tuple<A>,
        flow: &Flow<A>,
        partner: Option<&Flow<A>>,
        now_s: u32,
    ) -> Self {
        let at = |addr: A, port: Be16| SocketAddr::new(addr.into(), port.to_host());
        let traffic = |flow: &Flow<A>| Traffic { packets: flow.packets, bytes: flow.bytes };
        Self {
            proto: key.proto,
            client: at(key.src, key.sport),
            vip: at(key.dst, key.dport),
            backend: at(flow.dst, flow.dport),
            snat: (flow.src.into() != key.src.into() && flow.flags & flow_flags::ENCAP == 0)
                .then(|| at(flow.src, flow.sport)),
            service: flow.service,
            backend_id: flow.backend,
            state: joint_state(flow, partner),
            idle_s: idle_s(flow, partner, now_s),
            forward: traffic(flow),
            reverse: partner.map(traffic).unwrap_or_default(),
            ifindex: flow.ifindex,
            next_hop: flow.is_resolved().then_some(flow.dst_mac),
        }
    }
}

#[cfg(test)]
mod tests {
    use svc_common::flow::partner_key;
    use svc_common::maps::flow_state;

    use super::*;

    fn key() -> Tuple<[u8; 4]> {
        Tuple {
            src: [198, 51, 100, 1],
            dst: [192, 0, 2, 1],
            sport: Be16::from_host(40_000),
            dport: Be16::from_host(80),
            proto: 6,
            pad: [0; 3],
        }
    }

    fn flows() -> (Flow<[u8; 4]>, Flow<[u8; 4]>) {
        let forward = Flow {
            src: [10, 0, 0, 1],
            dst: [10, 1, 0, 5],
            sport: Be16::from_host(1_024),
            dport: Be16::from_host(8_080),
            flags: flow_flags::FORWARD,
            seen_s: 100,
            packets: 3,
            bytes: 300,
            ..Flow::default()
        };
        let reverse = Flow {
            src: key().dst,
            dst: key().src,
            sport: key().dport,
            dport: key().sport,
            flags: flow_flags::FORWARD | flow_flags::REVERSE,
            seen_s: 103,
            packets: 2,
            bytes: 900,
            ..Flow::default()
        };
        (forward, reverse)
    }

    #[test]
    fn flows_name_each_other() {
        let (forward, reverse) = flows();
        let back = partner_key(&forward, 6);
        assert_eq!((back.src, back.dport.to_host()), ([10, 1, 0, 5], 1_024));
        assert_eq!(partner_key(&reverse, 6), key());
    }

    #[test]
    fn a_connection_shows_its_translation_and_both_directions() {
        let (forward, reverse) = flows();
        let connection = Connection::new(&key(), &forward, Some(&reverse), 110);
        assert_eq!(connection.client.to_string(), "198.51.100.1:40000");
        assert_eq!(connection.vip.to_string(), "192.0.2.1:80");
        assert_eq!(connection.backend.to_string(), "10.1.0.5:8080");
        assert_eq!(connection.snat.unwrap().to_string(), "10.0.0.1:1024");
        assert_eq!((connection.idle_s, connection.forward.packets, connection.reverse.bytes), (7, 3, 900));
        assert_eq!(connection.state, flow_state::REPLIED);
    }

    #[test]
    fn the_partners_fin_is_the_other_directions() {
        let (mut forward, mut reverse) = flows();
        forward.state = flow_state::FIN;
        reverse.state = flow_state::PEER_FIN;
        assert_eq!(joint_state(&forward, Some(&reverse)) & flow_state::PEER_FIN, 0);
        reverse.state = flow_state::FIN;
        assert_ne!(joint_state(&forward, Some(&reverse)) & flow_state::PEER_FIN, 0);
    }

    #[test]
    fn idleness_survives_the_wrap_of_the_clock_and_a_packet_after_the_reading() {
        let flow = |seen_s| Flow::<[u8; 4]> { seen_s, ..Flow::default() };
        assert_eq!(idle_s(&flow(u32::MAX - 4), None, 5), 10);
        assert_eq!(idle_s(&flow(101), None, 100), 0);
        assert_eq!(idle_s(&flow(40), Some(&flow(90)), 100), 10);
    }
}
