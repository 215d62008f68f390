//! Connections that are over: what the sweep removes, and what it leaves.

use svc_agent::datapath;
use svc_common::{
    maps::{Flow, SWEEP_KEYS, Tuple, flow_flags, flow_state},
    net::{Be16, proto},
};
use svc_tests::{
    need,
    oracle::{Oracle, with_oracle},
};

use flow_state::{ESTABLISHED, FIN, PEER_FIN, REPLIED, RST};

const NOW: u32 = 100_000;

/// A connection in the established table whose directions were last seen so long ago; returns their keys.
fn connection<A: Copy + Default + PartialEq>(
    addrs: (A, A, A),
    proto: u8,
    port: u16,
    state: (u8, u8),
    ago: (u32, u32),
    mut put: impl FnMut(&Tuple<A>, &Flow<A>),
) -> [Tuple<A>; 2] {
    let (client, vip, backend) = addrs;
    let (sport, dport, target) = (Be16::from_host(port), Be16::from_host(80), Be16::from_host(8080));
    let key = Tuple { src: client, dst: vip, sport, dport, proto, pad: [0; 3] };
    let forward = Flow {
        src: client,
        dst: backend,
        sport,
        dport: target,
        state: state.0,
        seen_s: NOW - ago.0,
        packets: 2,
        ..Flow::default()
    };
    let back = svc_common::flow::partner_key(&forward, proto);
    let reverse = Flow {
        src: vip,
        dst: client,
        sport: dport,
        dport: sport,
        state: state.1,
        flags: flow_flags::REVERSE | flow_flags::EGRESS,
        seen_s: NOW - ago.1,
        packets: 1,
        ..Flow::default()
    };
    put(&key, &forward);
    put(&back, &reverse);
    [key, back]
}

fn v4(oracle: &mut Oracle, proto: u8, port: u16, state: (u8, u8), ago: (u32, u32)) -> [Tuple<[u8; 4]>; 2] {
    let addrs = ([198, 51, 100, 7], [10, 96, 0, 10], [10, 244, 1, 5]);
    connection(addrs, proto, port, state, ago, |key, flow| oracle.set_flow_v4(key, flow))
}

fn v6(oracle: &mut Oracle, proto: u8, port: u16, state: (u8, u8), ago: (u32, u32)) -> [Tuple<[u8; 16]>; 2] {
    connection(([7; 16], [96; 16], [5; 16]), proto, port, state, ago, |key, flow| oracle.set_flow_v6(key, flow))
}

#[test]
fn b19_each_state_lives_as_long_as_the_table_says() {
    with_oracle(|oracle| {
        oracle.set_clock(NOW);
        let established = ESTABLISHED | REPLIED;
        let mut port = 1;
        let mut check = |proto, state: (u8, u8), limit_s: u32| {
            // A second before, and then; by either key; the other direction as old or older.
            for (ago, gone) in [(limit_s - 1, 0), (limit_s, 1)] {
                for by in [0, 1] {
                    for older in [(ago, ago), (ago, ago + 5_000), (ago + 5_000, ago)] {
                        port += 1;
                        let keys = v4(oracle, proto, port, state, older);
                        assert_eq!(oracle.sweep_v4(&keys[by..=by]), gone, "IPv4 {proto} {state:?} {ago}");
                        assert_eq!(oracle.memory.v4.flows.len(), if gone == 0 { 2 } else { 0 });
                        keys.iter().for_each(|key| oracle.remove_flow_v4(svc_common::env::Table::Established, key));
                        let keys = v6(oracle, proto, port, state, older);
                        assert_eq!(oracle.sweep_v6(&keys[by..=by]), gone, "IPv6 {proto} {state:?} {ago}");
                        assert_eq!(oracle.memory.v6.flows.len(), if gone == 0 { 2 } else { 0 });
                        keys.iter().for_each(|key| oracle.remove_flow_v6(svc_common::env::Table::Established, key));
                    }
                }
            }
        };
        check(proto::TCP, (established, established), 8_000);
        check(proto::TCP, (established | FIN, established | PEER_FIN), 3_600);
        check(proto::TCP, (established | FIN | PEER_FIN, established | FIN | PEER_FIN), 120);
        // One direction alone knows of the end.
        check(proto::TCP, (established | FIN, established | FIN), 120);
        check(proto::TCP, (established, established | RST), 40);
        check(proto::UDP, (established, established), 180);
        check(proto::SCTP, (established, established), 210);
    });
}

#[test]
fn b21_a_flow_without_a_partner_goes_by_its_own_time() {
    with_oracle(|oracle| {
        oracle.set_clock(NOW);
        for lost in [0, 1] {
            for (ago, gone) in [(7_999, 0), (8_000, 1)] {
                let keys = v4(oracle, proto::TCP, 1, (ESTABLISHED, ESTABLISHED), (ago, ago));
                oracle.remove_flow_v4(svc_common::env::Table::Established, &keys[lost]);
                assert_eq!(oracle.sweep_v4(&keys[1 - lost..2 - lost]), gone);
                oracle.remove_flow_v4(svc_common::env::Table::Established, &keys[1 - lost]);
            }
        }
    });
}

#[test]
fn b21_one_frame_sweeps_32_connections_and_no_more() {
    if datapath::sweep_keys() < SWEEP_KEYS {
        let name = "sweep::b21_one_frame_sweeps_32_connections_and_no_more";
        return need::skip(name, "the programs of kernels before 6.2 take one connection at a time");
    }
    with_oracle(|oracle| {
        oracle.set_clock(NOW);
        let state = (ESTABLISHED, ESTABLISHED);
        // Every third is over.
        let ago = |n: u16| if n.is_multiple_of(3) { (9_000, 9_000) } else { (10, 9_000) };
        let expected = (0..32).filter(|n: &u32| n.is_multiple_of(3)).fold(0u32, |bits, n| bits | 1 << n);
        let keys: Vec<_> = (0..40).map(|n| v4(oracle, proto::TCP, n, state, ago(n))[0]).collect();
        assert_eq!(oracle.sweep_v4(&keys), expected);
        assert_eq!(oracle.sweep_v4(&keys), 0, "gone already");
        assert_eq!(oracle.sweep_v4(&[]), 0);
        let keys: Vec<_> = (0..32).map(|n| v6(oracle, proto::TCP, n, state, ago(n))[1]).collect();
        assert_eq!(oracle.sweep_v6(&keys), expected);
    });
}

#[test]
fn b25_a_connection_that_is_in_both_tables_goes_by_its_last_packet() {
    with_oracle(|oracle| {
        oracle.set_clock(NOW);
        let established = (ESTABLISHED | REPLIED, ESTABLISHED | REPLIED);
        for (half_open, ago, gone) in [(10, 9_000, 0), (9_000, 10, 0), (9_000, 9_000, 1)] {
            let keys = v4(oracle, proto::TCP, 1, established, (ago, ago));
            for key in &keys {
                let flow = oracle.memory.v4.flows[key];
                oracle.set_embryo_v4(key, &Flow { seen_s: NOW - half_open, ..flow });
            }
            assert_eq!(oracle.sweep_v4(&keys[..1]), gone, "{half_open} s and {ago} s ago");
            for table in [svc_common::env::Table::Established, svc_common::env::Table::Embryo] {
                keys.iter().for_each(|key| oracle.remove_flow_v4(table, key));
            }
        }
    });
}
