//! More new connections than a CPU may begin in a second (B23).

use svc_common::{
    maps::{Config, Frontend, frontend_flags},
    net::proto,
    outcome::Outcome,
    packet::Hook,
    reason::Reason,
};
use svc_tests::{
    oracle::{NODE, Oracle, ROUTER_MAC, UPLINK, UPLINK_MAC, with_oracle},
    packet::{Frame, assert_frames_eq, inside},
};

/// VIP and pod of this node; port of the node, its own address, pod of another node; client.
const WORLDS: [[&str; 6]; 2] = [
    ["10.96.0.10:80", "10.244.1.5:8080", "192.0.2.10:30080", NODE.0, "10.244.2.5:8080", "198.51.100.7"],
    [
        "[fd00:96::10]:80",
        "[fd00:244:1::5]:8080",
        "[2001:db8::10]:30080",
        NODE.1,
        "[fd00:244:2::5]:8080",
        "2001:db8:7::7",
    ],
];

fn port(addr: &str, port: u16) -> String {
    std::net::SocketAddr::new(addr.parse().unwrap(), port).to_string()
}

fn limit(oracle: &mut Oracle, max_new_flows: u32) {
    let config = Config { max_new_flows, ..oracle.memory.config };
    oracle.set_config(config);
    // Whatever came before was in another second.
    oracle.advance(1);
}

fn count(oracle: &Oracle, reason: Reason) -> u64 {
    oracle.memory.counters.get(&reason).copied().unwrap_or(0)
}

/// Flows of both families: established, half-open.
fn flows(oracle: &Oracle) -> (usize, usize) {
    let (v4, v6) = (&oracle.memory.v4, &oracle.memory.v6);
    (v4.flows.len() + v6.flows.len(), v4.embryos.len() + v6.embryos.len())
}

#[test]
fn b23_more_connections_than_the_limit_are_dropped_until_the_next_second() {
    for [vip, backend, node_port, _, far, client] in WORLDS {
        with_oracle(move |oracle| {
            oracle.serve(100, proto::TCP, &[vip], &[backend]);
            oracle.serve(200, proto::UDP, &[node_port], &[far]);
            // Connections of before: one half-open, one with source NAT.
            let early = [Frame::syn(&port(client, 4_000), vip), Frame::udp(&port(client, 4_001), node_port)];
            for frame in &early {
                oracle.run(Hook::Ingress, UPLINK, &frame.build());
            }
            limit(oracle, 3);
            let recorded = flows(oracle).1;
            for (hook, first) in [(Hook::Ingress, 10_000), (Hook::Xdp, 20_000)] {
                let begin = |n: u16| match hook {
                    Hook::Xdp => Frame::udp(&port(client, first + n), node_port),
                    _ => Frame::syn(&port(client, first + n), vip),
                };
                let before = flows(oracle).1;
                for n in 0..8 {
                    let frame = begin(n).build();
                    let run = oracle.run(hook, UPLINK, &frame);
                    if n < 3 {
                        assert!(matches!(run.outcome, Outcome::Deliver | Outcome::Send(_)), "{n}: {run:?}");
                    } else {
                        assert_eq!(run.outcome, Outcome::Drop(Reason::NewFlowLimit), "{n} at {hook:?}");
                        assert_frames_eq(&run.bytes, &frame);
                    }
                }
                assert_eq!(flows(oracle).1, before + 6, "three connections, two directions each");
                // What is recorded goes on.
                for frame in &early {
                    let run = oracle.run(Hook::Ingress, UPLINK, &frame.build());
                    assert!(matches!(run.outcome, Outcome::Deliver | Outcome::Send(_)), "{run:?}");
                }
                oracle.advance(1);
                let run = oracle.run(hook, UPLINK, &begin(7).build());
                assert!(matches!(run.outcome, Outcome::Deliver | Outcome::Send(_)), "sent again later: {run:?}");
                oracle.advance(1);
            }
            assert_eq!(count(oracle, Reason::NewFlowLimit), 2 * 5);
            assert_eq!(flows(oracle), (0, recorded + 2 * 8));
            limit(oracle, 0);
            for n in 0..100 {
                let frame = Frame::syn(&port(client, 30_000 + n), vip).build();
                assert_eq!(oracle.run(Hook::Ingress, UPLINK, &frame).outcome, Outcome::Deliver, "no limit");
            }
        });
    }
}

#[test]
fn b23_direct_server_return_goes_on_by_the_hash_alone() {
    for [vip, _, _, node, _, client] in WORLDS {
        with_oracle(move |oracle| {
            let backends: Vec<_> = (5..9)
                .map(|n| if node == NODE.0 { format!("10.244.2.{n}:8080") } else { format!("[fd00:244:2::{n}]:8080") })
                .collect();
            let names: Vec<_> = backends.iter().map(String::as_str).collect();
            oracle.serve(100, proto::TCP, &[vip], &names);
            let flags = frontend_flags::LOAD_BALANCER | frontend_flags::DSR;
            oracle.put_frontend(
                vip,
                proto::TCP,
                Frontend { service: 100, external: 100, internal: 100, flags, affinity_s: 0 },
            );
            limit(oracle, 1);
            oracle.run(Hook::Ingress, UPLINK, &Frame::syn(&port(client, 4_000), vip).build());
            assert_eq!(flows(oracle), (0, 1));
            for n in 0..16 {
                let frame = Frame::syn(&port(client, 5_000 + n), vip);
                let first = oracle.run(Hook::Ingress, UPLINK, &frame.build());
                let expected: Vec<_> = names
                    .iter()
                    .map(|backend| {
                        let carried = frame.clone().ttl(63).macs(UPLINK_MAC, ROUTER_MAC).build();
                        inside(&carried, node, &svc_tests::packet::addr(backend).ip().to_string())
                    })
                    .collect();
                assert!(expected.contains(&first.bytes), "connection {n} goes to none of the backends");
                assert_eq!(first.outcome, Outcome::Send(oracle.ifindex(UPLINK)));
                let again = oracle.run(Hook::Ingress, UPLINK, &frame.build());
                assert_frames_eq(&again.bytes, &first.bytes);
                assert_eq!(flows(oracle), (0, 1), "nothing is recorded");
                if n == 15 {
                    oracle.advance(1);
                    let recorded = oracle.run(Hook::Ingress, UPLINK, &frame.build());
                    assert_frames_eq(&recorded.bytes, &first.bytes);
                    assert_eq!(flows(oracle), (0, 2));
                }
            }
            assert_eq!(count(oracle, Reason::FlowNotRecorded), 2 * 16);
            assert_eq!(count(oracle, Reason::NewFlowLimit), 0);
        });
    }
}

#[test]
fn b23_a_connection_beyond_the_limit_is_established_a_second_later() {
    for [vip, backend, _, _, _, client] in WORLDS {
        with_oracle(move |oracle| {
            oracle.serve(100, proto::TCP, &[vip], &[backend]);
            let clients = [port(client, 4_000), port(client, 4_001)];
            for client in &clients {
                oracle.run(Hook::Ingress, UPLINK, &Frame::syn(client, vip).build());
                oracle.run(Hook::Egress, UPLINK, &Frame::tcp(backend, client).flags("S.").build());
            }
            limit(oracle, 1);
            for (client, established) in clients.iter().zip([2, 2]) {
                let data = Frame::tcp(client, vip);
                let run = oracle.run(Hook::Ingress, UPLINK, &data.build());
                assert_frames_eq(&run.bytes, &data.to(backend).build());
                assert_eq!(flows(oracle).0, established);
            }
            assert_eq!(count(oracle, Reason::PromotionDeferred), 1);
            // Its packets go on meanwhile.
            let data = Frame::tcp(&clients[1], vip);
            assert_eq!(oracle.run(Hook::Ingress, UPLINK, &data.build()).outcome, Outcome::Deliver);
            assert_eq!(flows(oracle), (2, 2));
            oracle.advance(1);
            assert_eq!(oracle.run(Hook::Ingress, UPLINK, &data.build()).outcome, Outcome::Deliver);
            assert_eq!(flows(oracle), (4, 0));
            assert_eq!((count(oracle, Reason::PromotionDeferred), count(oracle, Reason::PromotionRefused)), (2, 0));
        });
    }
}
