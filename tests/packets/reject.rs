//! Packets for us that nobody serves.

use svc_common::{
    maps::{Answers, Selection},
    net::proto,
    outcome::Outcome,
    packet::Hook,
    reason::Reason,
};
use svc_tests::{
    message::Message,
    oracle::{Oracle, UPLINK, WORKLOAD, with_oracle},
    packet::{Frame, assert_frames_eq},
};

/// Client, VIP, address and port of the node.
const WORLDS: [(&str, &str, &str); 2] = [
    ("198.51.100.7:40000", "10.96.0.10:80", "192.0.2.10:30080"),
    ("[2001:db8:7::7]:40000", "[fd00:96::10]:80", "[2001:db8::10]:30080"),
];
/// Type and code of the error, as in RFC 792 and RFC 4443.
const UNREACHABLE: [(u8, u8); 2] = [(3, 3), (1, 4)];
/// Where packets are refused.
const HOOKS: [(Hook, &str); 3] = [(Hook::Xdp, UPLINK), (Hook::Ingress, UPLINK), (Hook::Ingress, WORKLOAD)];
/// Where [`Frame`] and [`Message`] come from and go to unless told otherwise.
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// A service without endpoints, in both families, on a VIP and a port of the node.
fn serve_nobody(oracle: &mut Oracle, protocol: u8) {
    for (id, (_, vip, node_port)) in (100..).step_by(100).zip(WORLDS) {
        oracle.set_empty_selection(id, Selection::REJECT);
        oracle.set_frontend(vip, protocol, id, id, id);
        oracle.set_frontend(node_port, protocol, id, id, id);
    }
}

/// The address of an address with a port.
fn ip(addr: &str) -> String {
    svc_tests::packet::addr(addr).ip().to_string()
}

/// Runs a frame that must be answered by sending it back; the answer.
#[track_caller]
fn answer(oracle: &mut Oracle, (hook, device): (Hook, &str), frame: &[u8]) -> Vec<u8> {
    let run = oracle.run(hook, device, frame);
    assert_eq!(run.outcome, Outcome::Send(oracle.ifindex(device)), "{hook:?} of {device}");
    run.bytes
}

#[test]
fn b65_a_segment_is_answered_by_the_rst_that_the_standard_asks_for() {
    with_oracle(|oracle| {
        serve_nobody(oracle, proto::TCP);
        // Flags and payload of the segment; flags, seq and ack of the RST.
        let (seq, ack) = (0x1234_5678, 0x9abc_def0);
        let cases: [(&str, &[u8], &str, u32, u32); 6] = [
            ("S", b"", "R.", 0, seq + 1),
            ("S", b"fast open", "R.", 0, seq + 1 + 9),
            ("F", b"bye", "R.", 0, seq + 3 + 1),
            ("", b"", "R.", 0, seq),
            (".", b"data of a connection that nobody knows", "R", ack, 0),
            ("S.", b"", "R", ack, 0),
        ];
        for at in HOOKS {
            for (client, vip, node_port) in WORLDS {
                for dialled in [vip, node_port] {
                    for (flags, payload, reset, seq, ack) in cases {
                        let segment = Frame::tcp(client, dialled).flags(flags).payload(payload);
                        let found = answer(oracle, at, &segment.build());
                        let [sender, receiver] = MACS;
                        let expected = Frame::tcp(dialled, client).flags(reset).numbers(seq, ack, 0).payload(b"");
                        assert_frames_eq(&found, &expected.plain().macs(receiver, sender).build());
                    }
                }
            }
        }
        let options = Frame::syn(WORLDS[0].0, WORLDS[0].1).options(&[1; 40]);
        let expected = Frame::tcp(WORLDS[0].1, WORLDS[0].0).flags("R.").numbers(0, seq + 1, 0).payload(b"");
        let found = answer(oracle, HOOKS[1], &options.build());
        assert_frames_eq(&found, &expected.plain().macs(MACS[1], MACS[0]).build());
        // The sequence number wraps.
        let last = Frame::tcp(WORLDS[0].0, WORLDS[0].1).flags("S").numbers(u32::MAX, 0, 1).payload(b"");
        let expected = Frame::tcp(WORLDS[0].1, WORLDS[0].0).flags("R.").numbers(0, 0, 0).payload(b"");
        let found = answer(oracle, HOOKS[1], &last.build());
        assert_frames_eq(&found, &expected.plain().macs(MACS[1], MACS[0]).build());
        assert!(oracle.memory.v4.embryos.is_empty() && oracle.memory.v6.embryos.is_empty());
    });
}

#[test]
fn b64_a_datagram_is_answered_by_port_unreachable_that_quotes_it() {
    with_oracle(|oracle| {
        serve_nobody(oracle, proto::UDP);
        for at in HOOKS {
            for ((client, vip, node_port), unreachable) in WORLDS.into_iter().zip(UNREACHABLE) {
                for dialled in [vip, node_port] {
                    for len in [0, 1, 2, 3, 4, 5, 30, 31, 33, 100, 531, 1200, 1472] {
                        let datagram = Frame::udp(client, dialled).payload(&vec![0xa5; len]).build();
                        // Whole words, and as much as the answer may hold.
                        let most = if client.starts_with('[') { 38 * 32 } else { 17 * 32 };
                        let quoted = ((datagram.len() - 14) & !3).min(most);
                        let found = answer(oracle, at, &datagram);
                        let expected = Message::error(&ip(dialled), &ip(client), unreachable, &datagram, quoted);
                        assert_frames_eq(&found, &expected.plain().macs(MACS[1], MACS[0]).build());
                    }
                }
            }
        }
        assert_eq!(oracle.memory.counters[&Reason::NoEndpoint], 3 * 2 * 2 * 13);
    });
}

#[test]
fn b26_a_datagram_flow_whose_last_backend_went_is_refused_at_once() {
    with_oracle(|oracle| {
        for (id, ((client, vip, _), unreachable)) in (100..).step_by(100).zip(WORLDS.into_iter().zip(UNREACHABLE)) {
            let backend = if id == 100 { "10.244.1.5:8080" } else { "[fd00:244:1::5]:8080" };
            oracle.serve(id, proto::UDP, &[vip], &[backend]);
            let datagram = Frame::udp(client, vip).payload(b"0123").build();
            assert_eq!(oracle.run(Hook::Ingress, UPLINK, &datagram).outcome, Outcome::Deliver);
            oracle.set_empty_selection(id, Selection::REJECT);
            oracle.remove_backend(id);
            oracle.raise_epoch();
            let found = answer(oracle, HOOKS[1], &datagram);
            let expected = Message::error(&ip(vip), &ip(client), unreachable, &datagram, 1500);
            assert_frames_eq(&found, &expected.plain().macs(MACS[1], MACS[0]).build());
        }
    });
}

#[test]
fn b66_an_unknown_port_of_a_vip_is_refused_and_one_of_the_node_is_not() {
    with_oracle(|oracle| {
        serve_nobody(oracle, proto::TCP);
        for at in HOOKS {
            for ((client, vip, node_port), unreachable) in WORLDS.into_iter().zip(UNREACHABLE) {
                let other_port = vip.replace(":80", ":81");
                let found = answer(oracle, at, &Frame::syn(client, &other_port).build());
                let expected = Frame::tcp(&other_port, client).flags("R.").numbers(0, 0x1234_5679, 0).payload(b"");
                assert_frames_eq(&found, &expected.plain().macs(MACS[1], MACS[0]).build());
                // The port is a service's, the protocol is not.
                let datagram = Frame::udp(client, vip).payload(b"0123").build();
                let found = answer(oracle, at, &datagram);
                let expected = Message::error(&ip(vip), &ip(client), unreachable, &datagram, 1500);
                assert_frames_eq(&found, &expected.plain().macs(MACS[1], MACS[0]).build());
                let node = node_port.replace(":30080", ":22");
                for frame in [Frame::syn(client, &node), Frame::udp(client, &node)] {
                    assert_eq!(oracle.run(at.0, at.1, &frame.build()).outcome, Outcome::Pass);
                }
            }
        }
    });
}

#[test]
fn b42_what_must_not_be_answered_is_dropped_and_counted() {
    with_oracle(|oracle| {
        serve_nobody(oracle, proto::TCP);
        serve_nobody(oracle, proto::UDP);
        let [_, node] = MACS;
        let mut cases: Vec<Vec<u8>> = Vec::new();
        for source in ["0.0.0.0:1", "127.0.0.1:1", "224.0.0.1:1", "240.0.0.1:1", "255.255.255.255:1"] {
            cases.push(Frame::udp(source, WORLDS[0].1).build());
            cases.push(Frame::syn(source, WORLDS[0].1).build());
        }
        for source in ["[::]:1", "[::1]:1", "[ff02::1]:1"] {
            cases.push(Frame::udp(source, WORLDS[1].1).build());
            cases.push(Frame::syn(source, WORLDS[1].1).build());
        }
        for (client, vip, _) in WORLDS {
            cases.push(Frame::tcp(client, vip).flags("R").build());
            cases.push(Frame::tcp(client, vip).flags("R.").build());
            cases.push(Frame::udp(client, vip).macs(node, [0xff; 6]).build());
            cases.push(Frame::syn(client, vip).macs(node, [1, 0, 0x5e, 0, 0, 1]).build());
        }
        for frame in cases {
            for at in HOOKS {
                let run = oracle.run(at.0, at.1, &frame);
                assert!(matches!(run.outcome, Outcome::Drop(Reason::Unanswered | Reason::LoopbackFromWire)), "{run:?}");
                assert_frames_eq(&run.bytes, &frame);
            }
        }
    });
}

#[test]
fn b64_answers_are_limited_for_each_second() {
    with_oracle(|oracle| {
        serve_nobody(oracle, proto::UDP);
        let (client, vip, _) = WORLDS[0];
        let datagram = Frame::udp(client, vip).build();
        let count = Answers::LIMIT + 10;
        let own = oracle.ifindex(UPLINK);
        let outcomes: Vec<_> = (0..count)
            .map(|_| oracle.run_both(Hook::Ingress, own, &datagram).expect("no difference").outcome)
            .collect();
        let dropped = outcomes.iter().filter(|outcome| **outcome == Outcome::Drop(Reason::Unanswered)).count();
        assert_eq!(dropped, 10);
        oracle.advance(1);
        answer(oracle, HOOKS[1], &datagram);
    });
}

#[test]
fn b66_an_address_of_the_service_networks_that_no_service_has_is_dropped() {
    with_oracle(|oracle| {
        oracle.serve(100, proto::TCP, &["10.96.0.10:80"], &["10.244.1.5:8080"]);
        oracle.serve(200, proto::TCP, &["[fd00:96::10]:80"], &["[fd00:244:1::5]:8080"]);
        let frames = [
            ("198.51.100.7:40000", "10.96.255.254:80", "10.97.0.1:80"),
            ("[2001:db8:7::7]:40000", "[fd00:96::11]:80", "[fd00:96:0:1::11]:80"),
        ];
        let all = [(Hook::Xdp, UPLINK), (Hook::Ingress, UPLINK), (Hook::Ingress, WORKLOAD), (Hook::Egress, UPLINK)];
        for (hook, device) in all {
            for (client, inside, _) in frames {
                let frame = Frame::udp(client, inside).build();
                assert_eq!(oracle.run(hook, device, &frame).outcome, Outcome::Pass, "no networks are configured");
            }
        }
        let mut v6_mask = [0; 16];
        v6_mask[..8].fill(0xff);
        let v6_net = [0xfd, 0, 0, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        oracle.set_service_networks(([10, 96, 0, 0], [255, 255, 0, 0]), (v6_net, v6_mask));
        for (hook, device) in all {
            for (client, inside, outside) in frames {
                for frame in [Frame::udp(client, inside), Frame::syn(client, inside), Frame::tcp(client, inside)] {
                    let run = oracle.run(hook, device, &frame.build());
                    assert_eq!(run.outcome, Outcome::Drop(Reason::UnassignedAddress), "{inside} at {hook:?}");
                    assert_frames_eq(&run.bytes, &frame.build());
                }
                let frame = Frame::udp(client, outside).build();
                assert_eq!(oracle.run(hook, device, &frame).outcome, Outcome::Pass, "{outside} at {hook:?}");
            }
        }
        // What a service has leaves the node as it is: the socket hooks or the ingress hooks deal with it.
        let frame = Frame::syn("192.0.2.10:40000", "10.96.0.10:80").build();
        assert_eq!(oracle.run(Hook::Egress, UPLINK, &frame).outcome, Outcome::Pass);
    });
}
