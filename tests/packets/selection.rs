//! Which backend a new connection gets, and what happens without one.

use std::collections::{BTreeMap, BTreeSet};

use svc_common::{maps::Selection, net::proto, outcome::Outcome, packet::Hook, reason::Reason};
use svc_tests::{
    oracle::{Oracle, UPLINK, WORKLOAD, with_oracle},
    packet::{Frame, assert_frames_eq},
};

/// The destination address of an IPv4 frame.
fn backend_of(frame: &[u8]) -> [u8; 4] {
    frame[30..34].try_into().expect("four bytes")
}

fn open(oracle: &mut Oracle, port: u16, vip: &str) -> [u8; 4] {
    let run = oracle.run(Hook::Ingress, UPLINK, &Frame::syn(&format!("198.51.100.7:{port}"), vip).build());
    assert_eq!(run.outcome, Outcome::Deliver);
    backend_of(&run.bytes)
}

#[test]
fn b14_connections_spread_over_the_table_and_a_retransmission_stays() {
    with_oracle(|oracle| {
        let vip = "10.96.0.10:80";
        let backends = ["10.244.1.5:80", "10.244.1.6:80", "10.244.1.7:80", "10.244.1.8:80"];
        oracle.serve(100, proto::TCP, &[vip], &backends);
        let mut shares: BTreeMap<[u8; 4], u32> = BTreeMap::new();
        let chosen: Vec<_> = (0..400).map(|port| open(oracle, 40_000 + port, vip)).collect();
        for backend in &chosen {
            *shares.entry(*backend).or_default() += 1;
        }
        assert_eq!(shares.len(), 4);
        // 100 each expected; a fair hash stays within five standard deviations (8.7).
        assert!(shares.values().all(|share| (57..=143).contains(share)), "{shares:?}");
        for (port, backend) in (0..).zip(&chosen) {
            assert_eq!(open(oracle, 40_000 + port, vip), *backend);
        }
    });
}

#[test]
fn b14_a_connection_stays_while_the_table_changes() {
    with_oracle(|oracle| {
        let vip = "10.96.0.10:80";
        oracle.serve(100, proto::TCP, &[vip], &["10.244.1.5:80", "10.244.1.6:80"]);
        let chosen: Vec<_> = (0..40).map(|port| open(oracle, 40_000 + port, vip)).collect();
        oracle.set_backend(102, 100, "10.244.1.7:80");
        oracle.set_selection(100, &[102]);
        oracle.raise_epoch();
        for (port, backend) in (0..).zip(&chosen) {
            assert_eq!(open(oracle, 40_000 + port, vip), *backend);
        }
        let fresh: BTreeSet<_> = (0..40).map(|port| open(oracle, 50_000 + port, vip)).collect();
        assert_eq!(fresh, BTreeSet::from([[10, 244, 1, 7]]));
    });
}

#[test]
fn b56_each_scope_has_its_own_selection() {
    with_oracle(|oracle| {
        oracle.set_backend(1, 100, "10.244.1.6:80");
        oracle.set_backend(2, 100, "10.244.1.7:80");
        oracle.set_selection(11, &[1]);
        oracle.set_selection(12, &[2]);
        oracle.set_frontend("10.96.0.10:80", proto::TCP, 100, 11, 12);
        for (device, client, backend) in
            [(UPLINK, "198.51.100.7:40000", "10.244.1.6:80"), (WORKLOAD, "10.244.1.5:40000", "10.244.1.7:80")]
        {
            let frame = Frame::syn(client, "10.96.0.10:80");
            let run = oracle.run(Hook::Ingress, device, &frame.build());
            assert_frames_eq(&run.bytes, &frame.to(backend).build());
        }
    });
}

#[test]
fn b55_b64_an_empty_selection_says_whether_the_client_is_told() {
    with_oracle(|oracle| {
        for (vip, client) in [("10.96.0.10:80", "198.51.100.7:40000"), ("[fd00:96::10]:80", "[2001:db8:7::7]:40000")] {
            oracle.set_frontend(vip, proto::TCP, 100, 11, 12);
            oracle.set_empty_selection(11, Selection::DROP);
            oracle.set_empty_selection(12, Selection::REJECT);
            for hook in [Hook::Xdp, Hook::Ingress] {
                let frame = Frame::syn(client, vip).build();
                let run = oracle.run(hook, UPLINK, &frame);
                assert_eq!(run.outcome, Outcome::Drop(Reason::NoLocalEndpoint));
            }
            let run = oracle.run(Hook::Ingress, WORKLOAD, &Frame::syn(client, vip).build());
            assert_eq!(run.outcome, Outcome::Send(oracle.ifindex(WORKLOAD)), "refused");
        }
        assert!(oracle.memory.v4.embryos.is_empty());
    });
}

#[test]
fn b77_a_slot_without_a_backend_drops_and_never_passes() {
    with_oracle(|oracle| {
        let vip = "10.96.0.10:80";
        oracle.serve(100, proto::TCP, &[vip], &["10.244.1.5:80"]);
        oracle.remove_backend(100);
        let run = oracle.run(Hook::Ingress, UPLINK, &Frame::syn("198.51.100.7:40000", vip).build());
        assert_eq!(run.outcome, Outcome::Drop(Reason::BackendGone));
        // The id now belongs to another service: still not ours.
        oracle.set_backend(100, 999, "10.244.1.9:80");
        let run = oracle.run(Hook::Ingress, UPLINK, &Frame::syn("198.51.100.7:40000", vip).build());
        assert_eq!(run.outcome, Outcome::Drop(Reason::BackendGone));
    });
}

#[test]
fn b35_a_loopback_source_from_the_wire_is_dropped() {
    with_oracle(|oracle| {
        for (id, vip, client, backend) in [
            (100, "192.0.2.10:30080", "127.0.0.1:40000", "10.244.1.5:80"),
            (200, "[2001:db8::10]:30080", "[::1]:40000", "[fd00:244:1::5]:80"),
        ] {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            for device in [UPLINK, WORKLOAD] {
                let run = oracle.run(Hook::Ingress, device, &Frame::syn(client, vip).build());
                assert_eq!(run.outcome, Outcome::Drop(Reason::LoopbackFromWire), "{device}");
            }
        }
    });
}
