//! Connections to backends that the stack reaches: destination NAT and its reverse.

use svc_common::{net::proto, outcome::Outcome, packet::Hook};
use svc_tests::{
    oracle::{Oracle, UPLINK, WORKLOAD, with_oracle},
    packet::{Frame, assert_frames_eq},
};

/// VIP, backend on this node, client outside; in both families.
const WORLDS: [(&str, &str, &str); 2] = [
    ("10.96.0.10:80", "10.244.1.5:8080", "198.51.100.7:40000"),
    ("[fd00:96::10]:80", "[fd00:244:1::5]:8080", "[2001:db8:7::7]:40000"),
];

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
    with_oracle(|oracle| {
        for (id, (vip, backend, client)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::UDP, &[vip], &[backend]);
            let query = Frame::udp(client, vip).zero_checksum();
            let run = oracle.run(Hook::Ingress, UPLINK, &query.build());
            assert_frames_eq(&run.bytes, &query.to(backend).build());
        }
    });
}

#[test]
fn b04_a_computed_udp_checksum_of_zero_is_sent_as_ones() {
    with_oracle(|oracle| {
        for (id, (vip, backend, client)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::UDP, &[vip], &[backend]);
            // One of these payloads makes the translated checksum zero; the builder sends that as 0xFFFF.
            let mut ones = 0;
            for word in 0..=u16::MAX {
                let query = Frame::udp(client, vip).payload(&word.to_be_bytes());
                let expected = query.clone().to(backend).build();
                let at = expected.len() - 4;
                if expected[at..at + 2] != [0xff, 0xff] {
                    continue;
                }
                ones += 1;
                let run = oracle.run(Hook::Ingress, UPLINK, &query.build());
                assert_frames_eq(&run.bytes, &expected);
            }
            assert_eq!(ones, 1, "one word of the payload makes the sum 0xFFFF");
        }
    });
}

#[test]
fn b11_tcp_and_udp_of_one_vip_and_port_are_independent() {
    with_oracle(|oracle| {
        oracle.serve(100, proto::TCP, &["10.96.0.10:53"], &["10.244.1.5:5301"]);
        oracle.serve(200, proto::UDP, &["10.96.0.10:53"], &["10.244.1.6:5302"]);
        let (client, vip) = ("198.51.100.7:40000", "10.96.0.10:53");
        let run = oracle.run(Hook::Ingress, UPLINK, &Frame::syn(client, vip).build());
        assert_frames_eq(&run.bytes, &Frame::syn(client, "10.244.1.5:5301").build());
        let run = oracle.run(Hook::Ingress, UPLINK, &Frame::udp(client, vip).build());
        assert_frames_eq(&run.bytes, &Frame::udp(client, "10.244.1.6:5302").build());
        assert_eq!(oracle.memory.services[&100].packets, 1);
        assert_eq!(oracle.memory.services[&200].packets, 1);
    });
}

/// One client port towards two VIPs that share a backend.
fn two_vips(oracle: &mut Oracle, open: fn(&str, &str) -> Frame, protocol: u8) {
    let (client, backend) = ("198.51.100.7:40000", "10.244.1.5:8080");
    let vips = ["10.96.0.10:80", "10.96.0.20:80"];
    oracle.serve(100, protocol, &[vips[0]], &[backend]);
    oracle.serve(200, protocol, &[vips[1]], &[backend]);
    let first = oracle.run(Hook::Ingress, UPLINK, &open(client, vips[0]).build());
    assert_frames_eq(&first.bytes, &open(client, backend).build());
    let second = oracle.run(Hook::Ingress, UPLINK, &open(client, vips[1]).build());
    let port = u16::from_be_bytes([second.bytes[34], second.bytes[35]]);
    assert_ne!(port, 40_000, "the second connection needs another source port");
    let other = format!("198.51.100.7:{port}");
    assert_frames_eq(&second.bytes, &open(&other, backend).build());

    for (seen, vip) in [(client, vips[0]), (other.as_str(), vips[1])] {
        let run = oracle.run(Hook::Egress, UPLINK, &open(backend, seen).build());
        assert_frames_eq(&run.bytes, &open(vip, client).build());
    }
}

#[test]
fn b12_one_client_port_reaches_one_backend_through_two_vips() {
    with_oracle(|oracle| two_vips(oracle, Frame::tcp, proto::TCP));
    with_oracle(|oracle| two_vips(oracle, Frame::udp, proto::UDP));
}

#[test]
fn b12_a_finished_connection_gives_its_port_to_the_next() {
    with_oracle(|oracle| {
        let (client, backend) = ("198.51.100.7:40000", "10.244.1.5:8080");
        oracle.serve(100, proto::TCP, &["10.96.0.10:80"], &[backend]);
        oracle.serve(200, proto::TCP, &["10.96.0.20:80"], &[backend]);
        oracle.run(Hook::Ingress, UPLINK, &Frame::syn(client, "10.96.0.10:80").build());
        oracle.run(Hook::Egress, UPLINK, &Frame::tcp(backend, client).flags("R.").build());
        let run = oracle.run(Hook::Ingress, UPLINK, &Frame::syn(client, "10.96.0.20:80").build());
        assert_frames_eq(&run.bytes, &Frame::syn(client, backend).build());
        let reply = Frame::tcp(backend, client).flags("S.");
        let run = oracle.run(Hook::Egress, UPLINK, &reply.build());
        assert_frames_eq(&run.bytes, &reply.from("10.96.0.20:80").build());
    });
}

#[test]
fn b13_traffic_that_is_not_service_traffic_is_left_alone() {
    with_oracle(|oracle| {
        oracle.serve(100, proto::TCP, &["10.96.0.10:80"], &["10.244.1.5:8080"]);
        oracle.serve(200, proto::TCP, &["192.0.2.10:30080"], &["10.244.1.5:8080"]);
        // A client dials the backend directly, the backend dials from its target port, and another port of the node.
        for (device, src, dst) in [
            (UPLINK, "198.51.100.7:40000", "10.244.1.5:8080"),
            (WORKLOAD, "10.244.1.5:8080", "198.51.100.7:443"),
            (UPLINK, "198.51.100.7:40000", "192.0.2.10:22"),
        ] {
            for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                let frame = Frame::syn(src, dst).build();
                let run = oracle.run(hook, device, &frame);
                assert_eq!(run.outcome, Outcome::Pass, "{src} -> {dst} at {hook:?}");
                assert_frames_eq(&run.bytes, &frame);
            }
        }
        assert!(oracle.memory.v4.embryos.is_empty());
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
