//! From half-open to established, and what is counted.

use svc_common::{
    maps::{flow_flags, flow_state},
    net::proto,
    reason::Reason,
};
use svc_tests::{
    oracle::{FLOWS, Oracle},
    packet::Frame,
};

use crate::ways::{in_each_family, on_each_way, sizes};

#[test]
fn b23_only_the_clients_packet_after_an_answer_establishes() {
    on_each_way(|oracle, way| {
        oracle.serve(100, proto::TCP, &[way.vip], &[way.backend]);
        let steps: [(bool, &str, (usize, usize)); 7] = [
            (true, "S", (0, 2)),
            (true, ".", (0, 2)),
            (true, ".", (0, 2)),
            (false, "S.", (0, 2)),
            (false, "S.", (0, 2)),
            (true, "S", (0, 2)),
            (true, ".", (2, 0)),
        ];
        for (step, (from_client, flags, expected)) in steps.into_iter().enumerate() {
            if from_client {
                way.request(oracle, &Frame::tcp(way.client, way.vip).flags(flags));
            } else {
                way.reply(oracle, &Frame::tcp(way.backend, way.seen).flags(flags));
            }
            assert_eq!(sizes(oracle), expected, "after step {step}");
        }
        for flow in oracle.established() {
            assert_ne!(flow.state & flow_state::ESTABLISHED, 0);
        }
    });
}

#[test]
fn b23_a_one_way_datagram_flow_stays_half_open() {
    on_each_way(|oracle, way| {
        oracle.serve(100, proto::UDP, &[way.vip], &[way.backend]);
        let served = way.served(oracle);
        for _ in 0..5 {
            assert_eq!(way.request(oracle, &Frame::udp(way.client, way.vip)).outcome, served);
        }
        assert_eq!(sizes(oracle), (0, 2));
        way.reply(oracle, &Frame::udp(way.backend, way.seen));
        way.request(oracle, &Frame::udp(way.client, way.vip));
        assert_eq!(sizes(oracle), (2, 0));
    });
}

#[test]
fn b23_a_full_table_keeps_live_connections_and_serves_new_ones_from_the_half_open_table() {
    in_each_family(|oracle, way| {
        oracle.serve(100, proto::TCP, &[way.vip], &[way.backend]);
        let (connections, served) = (FLOWS / 2 + 4, way.served(oracle));
        for port in 0..connections {
            let (client, seen) = way.port(10_000 + port);
            way.request(oracle, &Frame::syn(&client, way.vip));
            way.reply(oracle, &Frame::tcp(way.backend, &seen).flags("S."));
            for _ in 0..2 {
                let run = way.request(oracle, &Frame::tcp(&client, way.vip));
                assert_eq!(run.outcome, served, "connection {port}");
                let run = way.reply(oracle, &Frame::tcp(way.backend, &seen));
                assert_eq!(run.outcome, served, "connection {port}");
            }
        }
        assert_eq!(sizes(oracle), (FLOWS as usize, 8));
        assert_eq!(oracle.memory.counters[&Reason::PromotionRefused], 8);
        // Nor does the sweep take them for established ones.
        assert!(oracle.half_open().iter().all(|flow| flow.state & flow_state::ESTABLISHED == 0));
    });
}

#[test]
fn b21_with_room_for_one_direction_alone_a_connection_stays_half_open() {
    in_each_family(|oracle, way| {
        oracle.serve(100, proto::TCP, &[way.vip], &[way.backend]);
        let open = |oracle: &mut Oracle, port: u32| {
            let (client, seen) = way.port(10_000 + port);
            way.request(oracle, &Frame::syn(&client, way.vip));
            way.reply(oracle, &Frame::tcp(way.backend, &seen).flags("S."));
            way.request(oracle, &Frame::tcp(&client, way.vip));
        };
        for port in 0..FLOWS / 2 {
            open(oracle, port);
        }
        let lost = oracle.established().into_iter().find(|flow| flow.flags & flow_flags::REVERSE != 0).unwrap();
        oracle.edit_flows(|flow| flow.key != lost.key);
        assert_eq!(sizes(oracle), (FLOWS as usize - 1, 0));
        open(oracle, FLOWS);
        assert_eq!(sizes(oracle), (FLOWS as usize - 1, 2));
        assert_eq!(oracle.memory.counters[&Reason::PromotionRefused], 1);
    });
}

#[test]
fn every_packet_of_a_connection_is_counted_in_its_direction() {
    on_each_way(|oracle, way| {
        oracle.set_clock(5_000);
        way.establish(oracle);
        for _ in 0..3 {
            way.request(oracle, &Frame::tcp(way.client, way.vip));
        }
        // At a change of the world, and at its end.
        oracle.raise_epoch();
        way.request(oracle, &Frame::tcp(way.client, way.vip));
        way.reply(oracle, &Frame::tcp(way.backend, way.seen).flags("F."));
        let of = |reverse: bool| {
            let flows = oracle.established();
            let of = flows.iter().find(|flow| (flow.flags & flow_flags::REVERSE != 0) == reverse).unwrap();
            (of.packets, of.bytes)
        };
        let (forward, reverse) = (of(false), of(true));
        assert_eq!((forward.0, reverse.0), (6, 2));
        // The same once more by the service's counters.
        let counted = oracle.memory.services[&100];
        assert_eq!((u64::from(forward.0), forward.1), (counted.packets, counted.bytes));
        assert_eq!((u64::from(reverse.0), reverse.1), (counted.reply_packets, counted.reply_bytes));
        // And when it began.
        let (client, _) = way.port(20_001);
        way.request(oracle, &Frame::syn(&client, way.vip));
        assert_eq!(oracle.half_open().iter().map(|flow| flow.seen_s).collect::<Vec<_>>(), [5_000; 2]);
    });
}
