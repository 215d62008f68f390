//! Direct server return: what a balancing node sends to the backend's node, and what that node makes of it.

mod errors;
mod node_port;
mod send;
mod unpack;

use svc_common::{
    maps::{Config, Frontend, backend_flags, encapsulation, frontend_flags},
    wire::sctp_chunk,
};
use svc_tests::{
    oracle::{NODE, Oracle, UPLINK, WORKLOAD, with_oracle},
    packet::{Frame, assert_frames_eq, inside, inside_geneve},
};

/// A family's addresses.
#[derive(Clone, Copy)]
struct World {
    vip: &'static str,
    /// A pod of another node.
    far: &'static str,
    /// A pod of this node.
    pod: &'static str,
    client: &'static str,
    /// This node.
    node: &'static str,
    /// Another node.
    other: &'static str,
    /// Bytes of an IP header.
    header: usize,
    /// What carries packets to other nodes.
    encapsulation: u32,
}

impl World {
    /// A frame inside of one from `src` to `dst`.
    fn carry(&self, frame: &[u8], src: &str, dst: &str) -> Vec<u8> {
        match self.encapsulation {
            encapsulation::GENEVE => inside_geneve(frame, src, dst, 0xc123),
            _ => inside(frame, src, dst),
        }
    }

    /// Bytes that it takes.
    fn overhead(&self) -> usize {
        self.header + if self.encapsulation == encapsulation::GENEVE { 16 } else { 0 }
    }

    /// Whether `found` is `expected`, from whatever port of those that Geneve packets come from.
    #[track_caller]
    fn assert_carried(&self, found: &[u8], expected: &[u8]) {
        let mut expected = expected.to_vec();
        if self.encapsulation == encapsulation::GENEVE {
            let at = 14 + self.header;
            assert!(found[at] >= 0xc0, "port {:#06x}", u16::from_be_bytes([found[at], found[at + 1]]));
            expected[at..at + 2].copy_from_slice(&found[at..at + 2]);
        }
        assert_frames_eq(found, &expected);
    }
}

const WORLDS: [World; 2] = [
    World {
        vip: "203.0.113.80:80",
        far: "10.244.2.5:8080",
        pod: "10.244.1.5:8080",
        client: "198.51.100.7:40000",
        node: NODE.0,
        other: "192.0.2.77",
        header: 20,
        encapsulation: encapsulation::IPIP,
    },
    World {
        vip: "[2001:db8:80::80]:80",
        far: "[fd00:244:2::5]:8080",
        pod: "[fd00:244:1::5]:8080",
        client: "[2001:db8:7::7]:40000",
        node: NODE.1,
        other: "2001:db8::77",
        header: 40,
        encapsulation: encapsulation::IPIP,
    },
];

/// The address without its port.
fn ip(addr: &str) -> String {
    svc_tests::packet::addr(addr).ip().to_string()
}

fn for_each_world(test: impl Fn(&mut Oracle, World) + Send + Copy + 'static) {
    for world in WORLDS {
        with_oracle(move |oracle| {
            for encapsulation in [encapsulation::IPIP, encapsulation::GENEVE] {
                oracle.reset();
                oracle.forget_neighbours();
                oracle.set_fast(&[UPLINK, WORKLOAD]);
                oracle.set_config(Config { encapsulation, ..oracle.memory.config });
                test(oracle, World { encapsulation, ..world });
            }
        });
    }
}

/// A Service with direct server return, whose backends are on this node or all on others.
fn serve(oracle: &mut Oracle, id: u32, protocol: u8, vip: &str, backends: &[&str], here: bool) {
    oracle.serve(id, protocol, &[vip], backends);
    let flags = frontend_flags::LOAD_BALANCER | frontend_flags::DSR;
    oracle.put_frontend(vip, protocol, Frontend { service: id, external: id, internal: id, flags, affinity_s: 0 });
    for offset in 0..backends.len() as u32 {
        oracle.change_backend_flags(id + offset, |flags| if here { flags | backend_flags::LOCAL } else { flags });
    }
}

/// Flows of either family: established, half-open.
fn flows(oracle: &Oracle) -> (usize, usize) {
    let (v4, v6) = (&oracle.memory.v4, &oracle.memory.v6);
    (v4.flows.len() + v6.flows.len(), v4.embryos.len() + v6.embryos.len())
}

/// A packet of each transport.
fn each_transport(client: &str, to: &str) -> [Frame; 3] {
    [Frame::syn(client, to), Frame::udp(client, to), Frame::sctp(client, to, sctp_chunk::INIT)]
}
