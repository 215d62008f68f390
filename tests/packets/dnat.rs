//! Connections to backends that the stack reaches: destination NAT and its reverse.

use svc_common::{net::proto, outcome::Outcome, packet::Hook};
use svc_tests::{
    oracle::{Oracle, ROUTER_MAC, UPLINK, UPLINK_MAC, WORKLOAD, with_oracle},
    packet::{Frame, assert_frames_eq},
};

use crate::ways::{Way, in_each_family, on_each_way};

/// VIP, backend on this node, client outside; in both families.
const WORLDS: [(&str, &str, &str); 2] = [
    ("10.96.0.10:80", "10.244.1.5:8080", "198.51.100.7:40000"),
    ("[fd00:96::10]:80", "[fd00:244:1::5]:8080", "[2001:db8:7::7]:40000"),
];

/// How a packet that opens a connection is made.
type Open = fn(&str, &str) -> Frame;

#[test]
fn b10_reply_carries_the_address_the_client_dialled() {
    with_oracle(|oracle| {
        for (id, (vip, backend, client)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            let request = Frame::syn(client, vip);
            let run = oracle.run(Hook::Ingress, UPLINK, &request.build());
            assert_eq!(run.outcome, Outcome::Deliver);
            assert_frames_eq(&run.bytes, &request.clone().to(backend).build());

            let reply = Frame::tcp(backend, client).flags("S.");
            let run = oracle.run(Hook::Egress, UPLINK, &reply.build());
            assert_eq!(run.outcome, Outcome::Deliver);
            assert_frames_eq(&run.bytes, &reply.from(vip).build());

            for _ in 0..3 {
                let data = Frame::tcp(client, vip);
                let run = oracle.run(Hook::Ingress, UPLINK, &data.build());
                assert_frames_eq(&run.bytes, &data.to(backend).build());
                let data = Frame::tcp(backend, client);
                let run = oracle.run(Hook::Egress, UPLINK, &data.build());
                assert_frames_eq(&run.bytes, &data.from(vip).build());
            }
            // Where the reply comes in from the pod, it is left alone: the stack sees client and backend.
            let run = oracle.run(Hook::Ingress, WORKLOAD, &Frame::tcp(backend, client).build());
            assert_eq!(run.outcome, Outcome::Pass);
        }
    });
}

#[test]
fn b10_datagrams_are_translated_both_ways() {
    with_oracle(|oracle| {
        for (id, (vip, backend, client)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::UDP, &[vip], &[backend]);
            for _ in 0..3 {
                let query = Frame::udp(client, vip);
                let run = oracle.run(Hook::Ingress, UPLINK, &query.build());
                assert_frames_eq(&run.bytes, &query.to(backend).build());
                let answer = Frame::udp(backend, client);
                let run = oracle.run(Hook::Egress, UPLINK, &answer.build());
                assert_frames_eq(&run.bytes, &answer.from(vip).build());
            }
        }
    });
}

#[test]
fn b04_a_udp_checksum_of_zero_stays_zero() {
    on_each_way(|oracle, way| {
        oracle.serve(100, proto::UDP, &[way.vip], &[way.backend]);
        for _ in 0..3 {
            let query = Frame::udp(way.client, way.vip).zero_checksum();
            let run = way.request(oracle, &query);
            assert_frames_eq(&run.bytes, &way.to(&query, way.backend));
            let answer = Frame::udp(way.backend, way.seen).zero_checksum();
            let run = way.reply(oracle, &answer);
            assert_frames_eq(&run.bytes, &way.back(&answer));
        }
    });
}

#[test]
fn b04_a_computed_udp_checksum_of_zero_is_sent_as_ones() {
    on_each_way(|oracle, way| {
        oracle.serve(100, proto::UDP, &[way.vip], &[way.backend]);
        // One of these payloads makes the translated checksum zero; the builder sends that as 0xFFFF.
        let mut ones = 0;
        for word in 0..=u16::MAX {
            let query = Frame::udp(way.client, way.vip).payload(&word.to_be_bytes());
            let expected = way.to(&query, way.backend);
            let at = expected.len() - 4;
            if expected[at..at + 2] != [0xff, 0xff] {
                continue;
            }
            ones += 1;
            let run = way.request(oracle, &query);
            assert_frames_eq(&run.bytes, &expected);
        }
        assert_eq!(ones, 1, "one word of the payload makes the sum 0xFFFF");
    });
}

#[test]
fn b11_one_number_is_another_service_for_each_protocol() {
    on_each_way(|oracle, way| {
        let opens: [(u8, Open); 3] =
            [(proto::TCP, Frame::syn), (proto::UDP, Frame::udp), (proto::SCTP, |src, dst| Frame::sctp(src, dst, 1))];
        let protocols = (100..).step_by(100).zip(opens).zip([way.backend, way.other, way.third]);
        for ((id, (protocol, _)), backend) in protocols.clone() {
            oracle.serve(id, protocol, &[way.vip], &[backend]);
        }
        for ((id, (_, open)), backend) in protocols.clone() {
            let frame = open(way.client, way.vip);
            let run = way.request(oracle, &frame);
            assert_frames_eq(&run.bytes, &way.to(&frame, backend));
            let counted = oracle.memory.services[&id];
            assert_eq!((counted.packets, counted.new_flows), (1, 1), "service {id}");
        }
        // Each goes without the others.
        let mut gone = Vec::new();
        for ((id, (protocol, _)), _) in protocols.clone() {
            oracle.remove_frontend(way.vip, protocol);
            oracle.raise_epoch();
            gone.push(id);
            let (client, _) = way.port(20_000 + gone.len() as u32);
            for ((id, (_, open)), backend) in protocols.clone() {
                let frame = open(&client, way.vip);
                // The address that it goes to, as there may be an answer that refuses it.
                let at = if way.vip.starts_with('[') { 38..54 } else { 30..34 };
                let run = way.request(oracle, &frame);
                let reached = run.bytes[at.clone()] == way.to(&frame, backend)[at];
                assert_eq!(reached, !gone.contains(&id), "service {id} without {gone:?}: {run:?}");
            }
        }
    });
}

/// Another VIP of the family.
fn another(vip: &str) -> &'static str {
    if vip.starts_with('[') { "[fd00:96::20]:80" } else { "10.96.0.20:80" }
}

/// One client port towards two VIPs that share a backend.
fn two_vips(open: fn(&str, &str) -> Frame, protocol: u8) {
    on_each_way(move |oracle, way| {
        let vips = [way.vip, another(way.vip)];
        oracle.serve(100, protocol, &vips[..1], &[way.backend]);
        oracle.serve(200, protocol, &vips[1..], &[way.backend]);
        let ways = vips.map(|vip| Way { vip, ..way });
        let first = way.request(oracle, &open(way.client, vips[0]));
        assert_frames_eq(&first.bytes, &way.to(&open(way.client, vips[0]), way.backend));
        let second = way.request(oracle, &open(way.client, vips[1]));
        let l4 = if second.bytes[12] == 0x08 { 34 } else { 54 };
        let port = u16::from_be_bytes([second.bytes[l4], second.bytes[l4 + 1]]);
        assert_ne!(port, 20_000, "the second connection needs another source port");
        let (client, seen) = way.port(port.into());
        let expected = open(if way.elsewhere { &seen } else { &client }, vips[1]);
        let expected = if way.elsewhere { expected.ttl(63).macs(UPLINK_MAC, ROUTER_MAC) } else { expected };
        assert_frames_eq(&second.bytes, &expected.to(way.backend).build());

        for (seen, way) in [way.seen, &seen].into_iter().zip(ways) {
            let answer = open(way.backend, seen);
            let run = way.reply(oracle, &answer);
            assert_frames_eq(&run.bytes, &way.back(&answer.to(way.client)));
        }
    });
}

#[test]
fn b12_one_client_port_reaches_one_backend_through_two_vips() {
    two_vips(Frame::tcp, proto::TCP);
    two_vips(Frame::udp, proto::UDP);
}

#[test]
fn b12_a_finished_connection_gives_its_port_to_the_next() {
    in_each_family(|oracle, way| {
        let other = another(way.vip);
        oracle.serve(100, proto::TCP, &[way.vip], &[way.backend]);
        oracle.serve(200, proto::TCP, &[other], &[way.backend]);
        way.request(oracle, &Frame::syn(way.client, way.vip));
        way.reply(oracle, &Frame::tcp(way.backend, way.client).flags("R."));
        let run = way.request(oracle, &Frame::syn(way.client, other));
        assert_frames_eq(&run.bytes, &Frame::syn(way.client, way.backend).build());
        let reply = Frame::tcp(way.backend, way.client).flags("S.");
        let run = way.reply(oracle, &reply);
        assert_frames_eq(&run.bytes, &reply.from(other).build());
    });
}

#[test]
fn b13_traffic_that_is_not_service_traffic_is_left_alone() {
    with_oracle(|oracle| {
        for (id, vip, node_port, backend, client, node) in [
            (100, "10.96.0.10:80", "192.0.2.10:30080", "10.244.1.5:8080", "198.51.100.7", "192.0.2.10:22"),
            (
                200,
                "[fd00:96::10]:80",
                "[2001:db8::10]:30080",
                "[fd00:244:1::5]:8080",
                "[2001:db8:7::7]",
                "[2001:db8::10]:22",
            ),
        ] {
            let (client, server) = (format!("{client}:40000"), format!("{client}:443"));
            for (offset, protocol) in [(0, proto::TCP), (1, proto::UDP)] {
                oracle.serve(id + offset, protocol, &[vip, node_port], &[backend]);
            }
            // A client dials the backend directly, the backend dials from its target port, and another port of the node.
            for (device, src, dst) in
                [(UPLINK, &*client, backend), (WORKLOAD, backend, &server), (UPLINK, &client, node)]
            {
                for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                    for frame in
                        [Frame::syn(src, dst).build(), Frame::tcp(src, dst).build(), Frame::udp(src, dst).build()]
                    {
                        let run = oracle.run(hook, device, &frame);
                        assert_eq!(run.outcome, Outcome::Pass, "{src} -> {dst} at {hook:?}");
                        assert_frames_eq(&run.bytes, &frame);
                    }
                }
            }
        }
        assert!(oracle.memory.v4.embryos.is_empty() && oracle.memory.v6.embryos.is_empty());
    });
}

#[test]
fn b13_a_port_that_was_used_towards_a_service_can_dial_the_backend_itself() {
    with_oracle(|oracle| {
        for (id, (vip, backend, client)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            let there = |oracle: &mut Oracle, flags: &str| {
                oracle.run(Hook::Ingress, UPLINK, &Frame::tcp(client, vip).flags(flags).build());
            };
            let back = |oracle: &mut Oracle, flags: &str| {
                oracle.run(Hook::Egress, UPLINK, &Frame::tcp(backend, client).flags(flags).build()).outcome
            };
            there(oracle, "S");
            back(oracle, "S.");
            there(oracle, ".");
            let direct = Frame::syn(client, backend).build();
            assert_eq!(oracle.run(Hook::Ingress, UPLINK, &direct).outcome, Outcome::Pass);
            assert_eq!(back(oracle, "."), Outcome::Deliver, "a live connection stays");
            there(oracle, "F.");
            back(oracle, "F.");
            there(oracle, ".");
            assert_eq!(oracle.run(Hook::Ingress, UPLINK, &direct).outcome, Outcome::Pass);
            assert_eq!(back(oracle, "S."), Outcome::Pass, "answers of the backend itself");
        }
        assert!(oracle.memory.v4.flows.is_empty() && oracle.memory.v6.flows.is_empty());
    });
}

#[test]
fn b13_xdp_leaves_to_the_stack_what_ends_on_this_node() {
    with_oracle(|oracle| {
        for (id, (vip, backend, client)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            for frame in [Frame::syn(client, vip), Frame::tcp(client, vip)] {
                let bytes = frame.build();
                let run = oracle.run(Hook::Xdp, UPLINK, &bytes);
                assert_eq!(run.outcome, Outcome::Pass);
                assert_frames_eq(&run.bytes, &bytes);
                let run = oracle.run(Hook::Ingress, UPLINK, &bytes);
                assert_eq!(run.outcome, Outcome::Deliver);
            }
            assert_eq!(oracle.memory.services[&id].new_flows, 1);
            assert_eq!(oracle.memory.services[&id].packets, 2);
        }
    });
}
