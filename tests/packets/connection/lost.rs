//! Flows that are lost, of one direction or of both, and how they come back.

use svc_common::{maps::flow_flags, net::proto, reason::Reason};
use svc_tests::{oracle::flows::Direction, packet::Frame};

use crate::ways::{on_each_way, sizes};

#[test]
fn b21_a_lost_direction_comes_back_with_the_next_second() {
    on_each_way(|oracle, way| {
        for lost in ["forward", "reverse"] {
            oracle.reset();
            way.establish(oracle);
            let before = oracle.established();
            // One direction vanishes; the other was last seen in another second.
            oracle.edit_flows(|flow| {
                flow.seen_s = 77;
                (flow.flags & flow_flags::REVERSE != 0) != (lost == "reverse")
            });
            assert_eq!(sizes(oracle), (1, 0));
            if lost == "reverse" {
                way.request(oracle, &Frame::tcp(way.client, way.vip));
            } else {
                way.reply(oracle, &Frame::tcp(way.backend, way.seen));
            }
            assert_eq!(sizes(oracle), (2, 0));
            assert_eq!(oracle.memory.counters[&Reason::PartnerRestored], 1);
            // The next hop is looked up when the next packet needs it.
            let hop = flow_flags::HOP_RESOLVED | flow_flags::HOP_XDP;
            let same = |flow: &Direction| (flow.key, flow.becomes, flow.deltas, flow.flags & !hop, flow.state);
            let after = oracle.established();
            assert_eq!(after.iter().map(same).collect::<Vec<_>>(), before.iter().map(same).collect::<Vec<_>>());
        }
    });
}

#[test]
fn b21_a_packet_of_either_direction_keeps_both_alive() {
    on_each_way(|oracle, way| {
        for from_client in [true, false] {
            oracle.reset();
            way.establish(oracle);
            oracle.edit_flows(|flow| {
                flow.seen_s = 77;
                true
            });
            if from_client {
                way.request(oracle, &Frame::tcp(way.client, way.vip));
            } else {
                way.reply(oracle, &Frame::tcp(way.backend, way.seen));
            }
            // The clock of these tests stands at zero.
            assert!(oracle.established().iter().all(|flow| flow.seen_s == 0));
        }
    });
}

#[test]
fn b22_a_segment_without_a_flow_goes_to_the_hashed_backend() {
    on_each_way(|oracle, way| {
        oracle.serve(100, proto::TCP, &[way.vip], &[way.backend, way.other, way.third]);
        let syn = way.request(oracle, &Frame::syn(way.client, way.vip));
        oracle.edit_flows(|_| false);
        assert_eq!(sizes(oracle), (0, 0));
        let data = way.request(oracle, &Frame::tcp(way.client, way.vip));
        assert_eq!(data.outcome, way.served(oracle));
        // Destination and ports.
        let backend = if syn.bytes[12] == 0x08 { 30..38 } else { 38..58 };
        assert_eq!(data.bytes[backend.clone()], syn.bytes[backend], "the same backend as its SYN");
    });
}
