//! SCTP: ports, checksum, the states of an association.

use svc_common::{
    maps::{Selection, flow_state},
    net::proto,
    outcome::Outcome,
    packet::Hook,
    reason::Reason,
};
use svc_tests::{
    message::Message,
    oracle::{Oracle, ROUTER_MAC, UPLINK, UPLINK_MAC, with_oracle},
    packet::{Frame, assert_frames_eq},
    pieces::pieces,
};

/// VIP, backend on this node, client outside; in both families.
const WORLDS: [(&str, &str, &str); 2] = [
    ("10.96.0.10:80", "10.244.1.5:8080", "198.51.100.7:40000"),
    ("[fd00:96::10]:80", "[fd00:244:1::5]:8080", "[2001:db8:7::7]:40000"),
];

/// A port of the node, its own address with the client's port, a pod elsewhere, client.
const REMOTE: [[&str; 4]; 2] = [
    ["192.0.2.10:30080", "192.0.2.10:20000", "10.244.2.5:8080", "198.51.100.7:20000"],
    ["[2001:db8::10]:30080", "[2001:db8::10]:20000", "[fd00:244:2::5]:8080", "[2001:db8:7::7]:20000"],
];

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;

fn serve(oracle: &mut Oracle) {
    for (id, (vip, backend, _)) in (100..).step_by(100).zip(WORLDS) {
        oracle.serve(id, proto::SCTP, &[vip], &[backend]);
    }
}

#[track_caller]
fn there(oracle: &mut Oracle, world: usize, kind: u8) {
    let (vip, backend, client) = WORLDS[world];
    let frame = Frame::sctp(client, vip, kind);
    let run = oracle.run(Hook::Ingress, UPLINK, &frame.build());
    assert_eq!(run.outcome, Outcome::Deliver);
    assert_frames_eq(&run.bytes, &frame.to(backend).build());
}

#[track_caller]
fn back(oracle: &mut Oracle, world: usize, kind: u8) {
    let (vip, backend, client) = WORLDS[world];
    let frame = Frame::sctp(backend, client, kind);
    let run = oracle.run(Hook::Egress, UPLINK, &frame.build());
    assert_eq!(run.outcome, Outcome::Deliver);
    assert_frames_eq(&run.bytes, &frame.from(vip).build());
}

#[test]
fn b06_an_association_is_translated_both_ways_with_a_valid_checksum() {
    with_oracle(|oracle| {
        serve(oracle);
        for (world, (vip, backend, client)) in WORLDS.into_iter().enumerate() {
            there(oracle, world, INIT);
            back(oracle, world, INIT_ACK);
            there(oracle, world, COOKIE_ECHO);
            back(oracle, world, COOKIE_ACK);
            for len in (0..70).chain([500, 1400, 3000]) {
                let payload: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
                let data = Frame::sctp(client, vip, DATA).payload(&payload);
                let run = oracle.run(Hook::Ingress, UPLINK, &data.build());
                assert_frames_eq(&run.bytes, &data.to(backend).build());
                // Behind the packet there may be padding, which is not part of it.
                let data = Frame::sctp(backend, client, DATA).payload(&payload);
                let padded = |frame: &Frame| [frame.build(), vec![0xee; 9]].concat();
                let run = oracle.run(Hook::Egress, UPLINK, &padded(&data));
                assert_frames_eq(&run.bytes, &padded(&data.from(vip)));
            }
        }
        let flows: Vec<_> = oracle.memory.v4.flows.values().map(|flow| flow.state).collect();
        assert_eq!(flows.len(), 2, "established by the client's second packet");
        assert!(flows.iter().all(|state| state & flow_state::ESTABLISHED != 0));
        assert_eq!(oracle.memory.services[&100].new_flows, 1);
    });
}

#[test]
fn b06_the_checksum_stays_as_it_is_where_the_ports_do() {
    with_oracle(|oracle| {
        for (id, (vip, _, client)) in (100..).step_by(100).zip(WORLDS) {
            let backend = if id == 100 { "10.244.1.5:80" } else { "[fd00:244:1::5]:80" };
            oracle.serve(id, proto::SCTP, &[vip], &[backend]);
            for change in [0u8, 0x55] {
                // Also a wrong one.
                let mut frame = Frame::sctp(client, vip, DATA).build();
                let mut expected = Frame::sctp(client, backend, DATA).build();
                let at = frame.len() - 30;
                (frame[at], expected[at]) = (frame[at] ^ change, expected[at] ^ change);
                let run = oracle.run(Hook::Ingress, UPLINK, &frame);
                assert_frames_eq(&run.bytes, &expected);
            }
        }
    });
}

#[test]
fn b06_a_checksum_of_zero_stays_zero_and_a_wrong_one_stays_wrong() {
    with_oracle(|oracle| {
        serve(oracle);
        for (vip, backend, client) in WORLDS {
            let field = if client.starts_with('[') { 62..66 } else { 42..46 };
            let request = Frame::sctp(client, vip, DATA);
            let (mut frame, mut expected) = (request.build(), request.clone().to(backend).build());
            frame[field.clone()].fill(0);
            expected[field.clone()].fill(0);
            let run = oracle.run(Hook::Ingress, UPLINK, &frame);
            assert_frames_eq(&run.bytes, &expected);
            let (mut frame, mut expected) = (request.build(), request.to(backend).build());
            frame[field.start] ^= 0x10;
            expected[field.start] ^= 0x10;
            let run = oracle.run(Hook::Ingress, UPLINK, &frame);
            assert_frames_eq(&run.bytes, &expected);
        }
    });
}

#[test]
fn b06_fragments_pass_as_their_checksum_cannot_follow() {
    with_oracle(|oracle| {
        serve(oracle);
        for (vip, _, client) in WORLDS {
            for frame in pieces(&Frame::sctp(client, vip, DATA).payload(&[7; 200]).build(), 104, 7) {
                let run = oracle.run(Hook::Ingress, UPLINK, &frame);
                assert_eq!(run.outcome, Outcome::Pass);
                assert_frames_eq(&run.bytes, &frame);
            }
        }
        assert!(oracle.memory.v4.embryos.is_empty() && oracle.memory.v6.embryos.is_empty());
    });
}

#[test]
fn b06_b28_source_ports_are_translated_at_every_hook() {
    with_oracle(|oracle| {
        let out = Outcome::Send(oracle.ifindex(UPLINK));
        for (id, (vip, node, backend, client)) in (100..).step_by(100).zip([
            ("192.0.2.10:30080", "192.0.2.10", "10.244.2.5:8080", "198.51.100.7:40000"),
            ("[2001:db8::10]:30080", "[2001:db8::10]", "[fd00:244:2::5]:8080", "[2001:db8:7::7]:40000"),
        ]) {
            oracle.serve(id, proto::SCTP, &[vip], &[backend]);
            for hook in [Hook::Xdp, Hook::Ingress] {
                let request = Frame::sctp(client, vip, INIT);
                let run = oracle.run(hook, UPLINK, &request.build());
                assert_eq!(run.outcome, out, "{hook:?}");
                let at = if id == 100 { 34 } else { 54 };
                let port = u16::from_be_bytes([run.bytes[at], run.bytes[at + 1]]);
                assert!((1024..30_000).contains(&port), "{port}");
                let source = format!("{node}:{port}");
                let expected = request.from(&source).to(backend).macs(UPLINK_MAC, ROUTER_MAC).ttl(63);
                assert_frames_eq(&run.bytes, &expected.build());
                let answer = Frame::sctp(backend, &source, INIT_ACK);
                let run = oracle.run(hook, UPLINK, &answer.build());
                assert_eq!(run.outcome, out, "{hook:?}");
                let expected = answer.from(vip).to(client).macs(UPLINK_MAC, ROUTER_MAC).ttl(63);
                assert_frames_eq(&run.bytes, &expected.build());
            }
        }
    });
}

#[test]
fn b06_chunks_open_and_end_an_association() {
    with_oracle(|oracle| {
        serve(oracle);
        let new_flows = |oracle: &Oracle| oracle.memory.services[&100].new_flows;
        let both = flow_state::FIN | flow_state::PEER_FIN;
        let state = |oracle: &Oracle| {
            let (flows, embryos) = (&oracle.memory.v4.flows, &oracle.memory.v4.embryos);
            let mut forward = flows.iter().chain(embryos).filter(|(key, _)| key.dst == [10, 96, 0, 10]);
            forward.next().unwrap().1.state
        };
        there(oracle, 0, INIT);
        back(oracle, 0, INIT_ACK);
        there(oracle, 0, COOKIE_ECHO);
        there(oracle, 0, INIT);
        assert_eq!(new_flows(oracle), 1, "over a live association it is a retransmission");
        there(oracle, 0, SHUTDOWN);
        assert_eq!(state(oracle) & both, flow_state::FIN);
        back(oracle, 0, SHUTDOWN_ACK);
        assert_eq!(state(oracle) & both, both);
        there(oracle, 0, INIT);
        assert_eq!(new_flows(oracle), 2);
        back(oracle, 0, ABORT);
        assert_eq!(state(oracle) & flow_state::RST, flow_state::RST);
        there(oracle, 0, INIT);
        assert_eq!(new_flows(oracle), 3);
    });
}

#[test]
fn b06_an_association_stays_with_a_backend_that_went_until_it_ends() {
    with_oracle(|oracle| {
        serve(oracle);
        there(oracle, 0, INIT);
        back(oracle, 0, INIT_ACK);
        there(oracle, 0, COOKIE_ECHO);
        oracle.serve(150, proto::SCTP, &["10.96.0.10:80"], &["10.244.1.6:8080"]);
        oracle.raise_epoch();
        there(oracle, 0, DATA);
        there(oracle, 0, SHUTDOWN);
        back(oracle, 0, SHUTDOWN_ACK);
        let init = Frame::sctp(WORLDS[0].2, WORLDS[0].0, INIT);
        let run = oracle.run(Hook::Ingress, UPLINK, &init.build());
        assert_frames_eq(&run.bytes, &init.to("10.244.1.6:8080").build());
    });
}

#[test]
fn b06_cut_short_it_passes() {
    with_oracle(|oracle| {
        serve(oracle);
        for (vip, _, client) in WORLDS {
            let whole = Frame::sctp(client, vip, DATA).build();
            let l4 = if client.starts_with('[') { 54 } else { 34 };
            for len in 0..12 {
                let mut frame = whole[..l4 + len].to_vec();
                if l4 == 34 {
                    frame[16..18].copy_from_slice(&(20 + len as u16).to_be_bytes());
                } else {
                    frame[18..20].copy_from_slice(&(len as u16).to_be_bytes());
                }
                let run = oracle.run(Hook::Ingress, UPLINK, &frame);
                assert_eq!(run.outcome, Outcome::Pass);
                assert_frames_eq(&run.bytes, &frame);
            }
        }
        assert_eq!(oracle.memory.counters[&Reason::Malformed], 24);
    });
}

#[test]
fn b09_an_aggregate_whose_pieces_are_as_their_sender_made_them_fits() {
    // What the kernel says of the size of the pieces then (GSO_BY_FRAGS).
    const BY_FRAGMENTS: u32 = 0xffff;
    with_oracle(|oracle| {
        let uplink = oracle.ifindex(UPLINK);
        for (id, [port, source, far, client]) in (100..).step_by(100).zip(REMOTE) {
            oracle.serve(id, proto::SCTP, &[port], &[far]);
            oracle.run(Hook::Ingress, UPLINK, &Frame::sctp(client, port, INIT).build());
            let data = Frame::sctp(client, port, DATA).payload(&[7; 3000]);
            let run = oracle.run_aggregate(Hook::Ingress, UPLINK, &data.build(), BY_FRAGMENTS);
            assert_eq!(run.outcome, Outcome::Send(uplink), "{client}");
            let expected = data.from(source).to(far).macs(UPLINK_MAC, ROUTER_MAC).ttl(63);
            assert_frames_eq(&run.bytes, &expected.build());
        }
        assert_eq!(oracle.memory.counters.get(&Reason::TooBig), None);
    });
}

#[test]
fn b41_the_sender_of_a_long_packet_is_told() {
    with_oracle(|oracle| {
        let uplink = oracle.ifindex(UPLINK);
        for (id, [port, source, far, client]) in (100..).step_by(100).zip(REMOTE) {
            oracle.serve(id, proto::SCTP, &[port], &[far]);
            let ip = |addr: &str| svc_tests::packet::addr(addr).ip().to_string();
            let (error, quoted) = if id == 100 { ((3, 4), 544) } else { ((2, 0), 1216) };
            let told = |frame: &[u8], from: &str, to: &str| {
                let error = Message::error(&ip(from), &ip(to), error, frame, quoted).rest([0, 0, 0x05, 0xdc]);
                error.plain().macs([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]).build()
            };
            oracle.run(Hook::Ingress, UPLINK, &Frame::sctp(client, port, INIT).build());
            for (from, to) in [(client, port), (far, source)] {
                let data = Frame::sctp(from, to, DATA).payload(&[7; 1600]).build();
                let run = oracle.run(Hook::Ingress, UPLINK, &data);
                assert_eq!(run.outcome, Outcome::Send(uplink), "{from}");
                assert_frames_eq(&run.bytes, &told(&data, to, from));
            }
        }
    });
}

#[test]
fn b64_a_packet_to_nobody_is_answered_by_port_unreachable() {
    with_oracle(|oracle| {
        for (id, (vip, _, client)) in (100..).step_by(100).zip(WORLDS) {
            oracle.set_empty_selection(id, Selection::REJECT);
            oracle.set_frontend(vip, proto::SCTP, id, id, id);
            let ip = |addr: &str| svc_tests::packet::addr(addr).ip().to_string();
            for kind in [INIT, DATA, SHUTDOWN] {
                let packet = Frame::sctp(client, vip, kind).payload(&[7; 60]).build();
                let run = oracle.run(Hook::Ingress, UPLINK, &packet);
                assert_eq!(run.outcome, Outcome::Send(oracle.ifindex(UPLINK)));
                let unreachable = if id == 100 { (3, 3) } else { (1, 4) };
                let expected = Message::error(&ip(vip), &ip(client), unreachable, &packet, 1500);
                let expected = expected.plain().macs([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
                assert_frames_eq(&run.bytes, &expected.build());
            }
            // Nobody is told that an association is over which is.
            let abort = Frame::sctp(client, vip, ABORT).build();
            assert_eq!(oracle.run(Hook::Ingress, UPLINK, &abort).outcome, Outcome::Drop(Reason::Unanswered));
        }
    });
}
