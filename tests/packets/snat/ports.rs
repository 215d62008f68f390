//! Source ports: kept, replaced, exhausted, given back (B29).

use svc_common::{
    maps::{Config, flow_flags},
    net::proto,
    outcome::Outcome,
    packet::Hook,
    reason::Reason,
};
use svc_tests::{
    oracle::{ROUTER_MAC, UPLINK, UPLINK_MAC, with_oracle},
    packet::{Frame, assert_frames_eq},
};

use super::{WORLDS, at, at_both_hooks, source_port};
use crate::ways::sizes;

#[test]
fn b29_a_taken_or_foreign_port_is_replaced_by_another_of_the_range() {
    at_both_hooks(|oracle, hook| {
        for (id, (vip, backend, client, node)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::UDP, &[vip], &[backend]);
            let other = if client.contains(':') { "2001:db8:7::8" } else { "198.51.100.8" };
            // Kept; taken by the first; outside the range.
            for (client, port, kept) in [(client, 20_000, true), (other, 20_000, false), (client, 40_000, false)] {
                let client = at(client, port);
                let query = Frame::udp(&client, vip);
                let run = oracle.run(hook, UPLINK, &query.build());
                let found = source_port(&run.bytes);
                assert_eq!(found == port, kept, "client port {port}, source port {found}");
                assert!((1024..30_000).contains(&found), "{found}");
                let answer = Frame::udp(backend, &at(node, found));
                let run = oracle.run(hook, UPLINK, &answer.build());
                let back = answer.from(vip).to(&client).ttl(63).macs(UPLINK_MAC, ROUTER_MAC);
                assert_frames_eq(&run.bytes, &back.build());
            }
        }
    });
}

#[test]
fn b29_without_a_free_port_the_new_connection_is_dropped_and_no_other_harmed() {
    at_both_hooks(|oracle, hook| {
        oracle.set_config(Config { epoch: 1, snat_port_min: 5_000, snat_port_max: 5_003, ..Config::default() });
        for (id, (vip, backend, client, _)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            for port in 0..4 {
                let run = oracle.run(hook, UPLINK, &Frame::syn(&at(client, 40_000 + port), vip).build());
                assert!(matches!(run.outcome, Outcome::Send(_)), "{:?}", run.outcome);
            }
            let frame = Frame::syn(&at(client, 40_004), vip).build();
            let run = oracle.run(hook, UPLINK, &frame);
            assert_eq!(run.outcome, Outcome::Drop(Reason::NoSourcePort));
            assert_frames_eq(&run.bytes, &frame);
            for port in 0..4 {
                let run = oracle.run(hook, UPLINK, &Frame::syn(&at(client, 40_000 + port), vip).build());
                assert!(matches!(run.outcome, Outcome::Send(_)), "{:?}", run.outcome);
            }
        }
        assert_eq!(oracle.memory.counters[&Reason::NoSourcePort], 2);
    });
}

#[test]
fn b29_two_clients_with_one_port_get_two_ports_also_when_established() {
    at_both_hooks(|oracle, hook| {
        for (id, (vip, backend, client, node)) in (100..).step_by(100).zip(WORLDS) {
            let before = sizes(oracle);
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            let other = at(if client.contains(':') { "2001:db8:7::8" } else { "198.51.100.8" }, 20_000);
            let client = at(client, 20_000);
            oracle.run(hook, UPLINK, &Frame::syn(&client, vip).build());
            oracle.run(hook, UPLINK, &Frame::tcp(backend, &at(node, 20_000)).flags("S.").build());
            oracle.run(hook, UPLINK, &Frame::tcp(&client, vip).build());
            assert_eq!(sizes(oracle), (before.0 + 2, before.1));
            let run = oracle.run(hook, UPLINK, &Frame::syn(&other, vip).build());
            assert_eq!(source_port(&run.bytes), 20_001, "the next port of the range");
            assert_eq!(sizes(oracle), (before.0 + 2, before.1 + 2), "what was tried in vain leaves nothing");
        }
    });
}

#[test]
fn b29_ended_connections_give_their_ports_back_when_none_is_free() {
    at_both_hooks(|oracle, hook| {
        oracle.set_config(Config { epoch: 1, snat_port_min: 5_000, snat_port_max: 5_003, ..Config::default() });
        for (id, (vip, backend, client, node)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            for port in 0..4 {
                oracle.run(hook, UPLINK, &Frame::syn(&at(client, 40_000 + port), vip).build());
            }
            // The third of them ends.
            let ended = Frame::tcp(&at(client, 40_002), vip).flags("R");
            let source = source_port(&oracle.run(hook, UPLINK, &ended.build()).bytes);
            let run = oracle.run(hook, UPLINK, &Frame::syn(&at(client, 40_004), vip).build());
            assert!(matches!(run.outcome, Outcome::Send(_)), "{:?}", run.outcome);
            assert_eq!(source_port(&run.bytes), source);
            let half_open = oracle.half_open().into_iter().filter(|flow| flow.key.0.is_ipv6() == vip.starts_with('['));
            assert_eq!(half_open.count(), 8, "both directions of the ended connection made way");
            let answer = Frame::tcp(backend, &at(node, source)).flags("S.");
            let run = oracle.run(hook, UPLINK, &answer.build());
            let back = answer.from(vip).to(&at(client, 40_004)).ttl(63).macs(UPLINK_MAC, ROUTER_MAC);
            assert_frames_eq(&run.bytes, &back.build());
        }
    });
}

#[test]
fn b29_an_ended_connection_keeps_its_port_while_others_are_free() {
    with_oracle(|oracle| {
        for (id, (vip, backend, client, node)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            oracle.run(Hook::Ingress, UPLINK, &Frame::syn(&at(client, 20_000), vip).build());
            oracle.run(Hook::Ingress, UPLINK, &Frame::tcp(backend, &at(node, 20_000)).flags("R.").build());
            let other = if client.contains(':') { "2001:db8:7::8" } else { "198.51.100.8" };
            let run = oracle.run(Hook::Ingress, UPLINK, &Frame::syn(&at(other, 20_000), vip).build());
            assert_eq!(source_port(&run.bytes), 20_001);
        }
    });
}

#[test]
fn b29_thirty_two_ports_are_tried_and_no_more() {
    with_oracle(|oracle| {
        for (id, (vip, backend, client, node)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::UDP, &[vip], &[backend]);
            let other = if client.contains(':') { "2001:db8:7::8" } else { "198.51.100.8" };
            for (taken, expected) in [(31, Some(20_031)), (32, None)] {
                for port in 20_000..20_000 + taken {
                    oracle.run(Hook::Ingress, UPLINK, &Frame::udp(&at(client, port), vip).build());
                }
                let run = oracle.run(Hook::Ingress, UPLINK, &Frame::udp(&at(other, 20_000), vip).build());
                match expected {
                    Some(port) => assert_eq!(source_port(&run.bytes), port, "{node}"),
                    None => assert_eq!(run.outcome, Outcome::Drop(Reason::NoSourcePort)),
                }
                oracle.forget_embryos();
            }
        }
    });
}

#[test]
fn b29_a_connection_whose_forward_flow_was_evicted_gets_its_port_back() {
    for (vip, backend, client, _) in WORLDS {
        at_both_hooks(move |oracle, hook| {
            oracle.serve(100, proto::TCP, &[vip], &[backend]);
            let syn = Frame::syn(&at(client, 40_000), vip).build();
            let first = oracle.run(hook, UPLINK, &syn);
            oracle.edit_flows(|flow| flow.flags & flow_flags::REVERSE != 0);
            assert_eq!(sizes(oracle), (0, 1));
            let second = oracle.run(hook, UPLINK, &syn);
            assert_frames_eq(&second.bytes, &first.bytes);
            assert_eq!(sizes(oracle), (0, 2));
        });
    }
}
