//! Which backend a new connection gets, and what happens without one.

use std::collections::{BTreeMap, BTreeSet};

use svc_common::{maps::Selection, net::proto, outcome::Outcome, packet::Hook, reason::Reason};
use svc_tests::{
    oracle::{Oracle, UPLINK, WORKLOAD, with_oracle},
    packet::{Frame, assert_frames_eq},
};

use crate::ways::{Way, in_each_family, on_each_way, sizes};

/// Opens a connection; the address of the backend that it goes to.
#[track_caller]
fn open(oracle: &mut Oracle, way: Way, port: u32) -> Vec<u8> {
    let run = way.request(oracle, &Frame::syn(&way.port(port).0, way.vip));
    assert_eq!(run.outcome, way.served(oracle));
    address(&run.bytes).to_vec()
}

/// The destination address of a frame.
fn address(frame: &[u8]) -> &[u8] {
    if frame[12] == 0x08 { &frame[30..34] } else { &frame[38..54] }
}

#[test]
fn b14_connections_spread_over_the_table_and_a_retransmission_stays() {
    on_each_way(|oracle, way| {
        oracle.serve(100, proto::TCP, &[way.vip], &[way.backend, way.other, way.third]);
        let mut shares: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        let chosen: Vec<_> = (0..300).map(|port| open(oracle, way, 10_000 + port)).collect();
        for backend in &chosen {
            *shares.entry(backend.clone()).or_default() += 1;
        }
        assert_eq!(shares.len(), 3);
        // 100 each expected; a fair hash stays within five standard deviations (8.2).
        assert!(shares.values().all(|share| (59..=141).contains(share)), "{shares:?}");
        for (port, backend) in (0..).zip(&chosen) {
            assert_eq!(open(oracle, way, 10_000 + port), *backend);
        }
    });
}

#[test]
fn b14_a_connection_stays_while_the_table_changes() {
    on_each_way(|oracle, way| {
        oracle.serve(100, proto::TCP, &[way.vip], &[way.backend, way.other]);
        let chosen: Vec<_> = (0..40).map(|port| open(oracle, way, 10_000 + port)).collect();
        oracle.set_backend(102, 100, way.third);
        oracle.set_selection(100, &[102]);
        oracle.raise_epoch();
        for (port, backend) in (0..).zip(&chosen) {
            assert_eq!(open(oracle, way, 10_000 + port), *backend);
        }
        let fresh: BTreeSet<_> = (0..40).map(|port| open(oracle, way, 11_000 + port)).collect();
        let third = way.to(&Frame::syn(way.client, way.vip), way.third);
        assert_eq!(fresh, BTreeSet::from([address(&third).to_vec()]));
    });
}

#[test]
fn b56_each_scope_has_its_own_selection() {
    in_each_family(|oracle, way| {
        oracle.set_backend(1, 100, way.other);
        oracle.set_backend(2, 100, way.third);
        oracle.set_selection(11, &[1]);
        oracle.set_selection(12, &[2]);
        let pod = way.backend.replace("8080", "40000");
        for (protocol, open) in [(proto::TCP, Frame::syn as fn(&str, &str) -> Frame), (proto::UDP, Frame::udp)] {
            oracle.set_frontend(way.vip, protocol, 100, 11, 12);
            for (device, client, backend) in [(UPLINK, way.client, way.other), (WORKLOAD, &pod, way.third)] {
                let frame = open(client, way.vip);
                let run = oracle.run(Hook::Ingress, device, &frame.build());
                assert_frames_eq(&run.bytes, &frame.to(backend).build());
            }
        }
    });
}

#[test]
fn b55_b64_an_empty_selection_says_whether_the_client_is_told() {
    in_each_family(|oracle, way| {
        oracle.set_empty_selection(11, Selection::DROP);
        oracle.set_empty_selection(12, Selection::REJECT);
        for (protocol, open) in [(proto::TCP, Frame::syn as fn(&str, &str) -> Frame), (proto::UDP, Frame::udp)] {
            oracle.set_frontend(way.vip, protocol, 100, 11, 12);
            let frame = open(way.client, way.vip).build();
            for hook in [Hook::Xdp, Hook::Ingress] {
                let run = oracle.run(hook, UPLINK, &frame);
                assert_eq!(run.outcome, Outcome::Drop(Reason::NoLocalEndpoint));
            }
            let run = oracle.run(Hook::Ingress, WORKLOAD, &frame);
            assert_eq!(run.outcome, Outcome::Send(oracle.ifindex(WORKLOAD)), "refused");
        }
        assert_eq!(sizes(oracle), (0, 0));
    });
}

#[test]
fn b77_a_slot_without_a_backend_drops_and_never_passes() {
    on_each_way(|oracle, way| {
        oracle.serve(100, proto::TCP, &[way.vip], &[way.backend]);
        oracle.remove_backend(100);
        let syn = Frame::syn(way.client, way.vip);
        assert_eq!(way.request(oracle, &syn).outcome, Outcome::Drop(Reason::BackendGone));
        // The id now belongs to another service: still not ours.
        oracle.set_backend(100, 999, way.other);
        assert_eq!(way.request(oracle, &syn).outcome, Outcome::Drop(Reason::BackendGone));
    });
}

#[test]
fn b35_a_loopback_source_from_the_wire_is_dropped() {
    with_oracle(|oracle| {
        for (id, vip, client, backend) in [
            (100, "192.0.2.10:30080", "127.0.0.1:40000", "10.244.1.5:80"),
            (200, "[2001:db8::10]:30080", "[::1]:40000", "[fd00:244:1::5]:80"),
        ] {
            for (offset, protocol, open) in
                [(0, proto::TCP, Frame::syn as fn(&str, &str) -> Frame), (1, proto::UDP, Frame::udp)]
            {
                oracle.serve(id + offset, protocol, &[vip], &[backend]);
                for (hook, device) in [(Hook::Xdp, UPLINK), (Hook::Ingress, UPLINK), (Hook::Ingress, WORKLOAD)] {
                    let run = oracle.run(hook, device, &open(client, vip).build());
                    assert_eq!(run.outcome, Outcome::Drop(Reason::LoopbackFromWire), "{hook:?} of {device}");
                }
            }
        }
        assert_eq!(sizes(oracle), (0, 0));
    });
}
