//! Connections that our programs forward past the stack although their source stays.

use svc_common::{maps::backend_flags, net::proto, outcome::Outcome, packet::Hook, reason::Reason};
use svc_tests::{
    oracle::{Oracle, POD_MAC, ROUTER_MAC, UPLINK, UPLINK_MAC, WORKLOAD, WORKLOAD_MAC, with_oracle},
    packet::{Frame, assert_frames_eq},
};

/// VIP, a pod of this node, a pod of another node, a client outside; in both families.
const WORLDS: [[&str; 4]; 2] = [
    ["10.96.0.10:80", "10.244.1.5:8080", "10.244.2.5:8080", "198.51.100.7:40000"],
    ["[fd00:96::10]:80", "[fd00:244:1::5]:8080", "[fd00:244:2::5]:8080", "[2001:db8:7::7]:40000"],
];

/// Runs a test once for each family, with connections through both devices forwarded past the stack.
fn for_each_world(test: impl Fn(&mut Oracle, [&'static str; 4]) + Send + Copy + 'static) {
    for world in WORLDS {
        with_oracle(move |oracle| {
            oracle.set_fast(&[UPLINK, WORKLOAD]);
            test(oracle, world);
        });
    }
}

/// How the pipeline passes a packet on, and the Ethernet addresses that it gives it: source, destination.
type Way = (Outcome, [u8; 6], [u8; 6]);

fn to_pod(oracle: &Oracle) -> Way {
    (Outcome::Peer(oracle.ifindex(WORKLOAD)), WORKLOAD_MAC, POD_MAC)
}

fn to_router(oracle: &Oracle) -> Way {
    (Outcome::Send(oracle.ifindex(UPLINK)), UPLINK_MAC, ROUTER_MAC)
}

#[track_caller]
fn check(oracle: &mut Oracle, hook: Hook, device: &str, frame: Frame, expected: &Frame, way: Way) {
    let run = oracle.run(hook, device, &frame.build());
    assert_eq!(run.outcome, way.0);
    assert_frames_eq(&run.bytes, &expected.clone().ttl(63).macs(way.1, way.2).build());
}

#[test]
fn b08_a_client_outside_and_a_pod_here_meet_without_the_stack() {
    for_each_world(|oracle, [vip, pod, _, client]| {
        oracle.serve(100, proto::TCP, &[vip], &[pod]);
        let (there, back) = (to_pod(oracle), to_router(oracle));
        for request in [Frame::syn(client, vip), Frame::tcp(client, vip), Frame::tcp(client, vip)] {
            // XDP leaves alone what ends on this node.
            let run = oracle.run(Hook::Xdp, UPLINK, &request.build());
            assert_eq!(run.outcome, Outcome::Pass);
            let expected = request.clone().to(pod);
            check(oracle, Hook::Ingress, UPLINK, request, &expected, there);
            let answer = Frame::tcp(pod, client);
            let expected = answer.clone().from(vip);
            check(oracle, Hook::Ingress, WORKLOAD, answer.clone(), &expected, back);
            // As it leaves, it is what it has to be.
            let run = oracle.run(Hook::Egress, UPLINK, &expected.build());
            assert_eq!(run.outcome, Outcome::Pass);
        }
        assert!(oracle.memory.v4.embryos.is_empty() && oracle.memory.v6.embryos.is_empty(), "established");
    });
}

#[test]
fn b08_a_pod_here_and_a_backend_elsewhere_meet_without_the_stack() {
    for_each_world(|oracle, [vip, pod, far, _]| {
        oracle.serve(100, proto::UDP, &[vip], &[far]);
        let (there, back) = (to_router(oracle), to_pod(oracle));
        for _ in 0..3 {
            let query = Frame::udp(pod, vip);
            check(oracle, Hook::Ingress, WORKLOAD, query.clone(), &query.to(far), there);
            let answer = Frame::udp(far, pod);
            let run = oracle.run(Hook::Xdp, UPLINK, &answer.build());
            assert_eq!(run.outcome, Outcome::Pass, "XDP leaves alone what ends on this node");
            check(oracle, Hook::Ingress, UPLINK, answer.clone(), &answer.from(vip), back);
        }
    });
}

#[test]
fn b37_a_pod_whose_hardware_address_is_unknown_is_found_by_the_kernel() {
    for_each_world(|oracle, [vip, pod, ..]| {
        let (client, pod) = (pod.replace("8080", "40000"), pod.replace(".5:", ".6:").replace("::5]", "::6]"));
        oracle.serve(100, proto::TCP, &[vip], &[&pod]);
        let workload = oracle.ifindex(WORKLOAD);
        let back = to_pod(oracle);
        for _ in 0..2 {
            let request = Frame::syn(&client, vip);
            let run = oracle.run(Hook::Ingress, WORKLOAD, &request.build());
            assert_eq!(run.outcome, Outcome::Resolve(workload));
            assert_frames_eq(&run.bytes, &request.to(&pod).ttl(63).build());
            let answer = Frame::tcp(&pod, &client).flags("S.");
            check(oracle, Hook::Ingress, WORKLOAD, answer.clone(), &answer.from(vip), back);
        }
    });
}

#[test]
fn b08_a_ttl_that_ends_here_goes_to_the_stack_also_without_source_nat() {
    for_each_world(|oracle, [vip, pod, _, client]| {
        oracle.serve(100, proto::TCP, &[vip], &[pod]);
        let there = to_pod(oracle);
        check(oracle, Hook::Ingress, UPLINK, Frame::syn(client, vip), &Frame::syn(client, pod), there);
        for frame in [Frame::tcp(client, vip).ttl(1).build(), Frame::tcp(client, vip).ttl(0).build()] {
            let run = oracle.run(Hook::Ingress, UPLINK, &frame);
            assert_eq!(run.outcome, Outcome::Pass);
            assert_frames_eq(&run.bytes, &frame);
        }
    });
}

#[test]
fn b09_an_aggregate_counts_by_its_segments_and_a_packet_by_its_length() {
    for_each_world(|oracle, [vip, pod, _, client]| {
        oracle.serve(100, proto::TCP, &[vip], &[pod]);
        oracle.serve(200, proto::UDP, &[vip], &[pod]);
        let way = to_pod(oracle);
        check(oracle, Hook::Ingress, UPLINK, Frame::syn(client, vip), &Frame::syn(client, pod), way);
        let ip = if vip.starts_with('[') { 40 } else { 20 };
        for (frame, transport) in [(Frame::tcp(client, vip), 20), (Frame::udp(client, vip), 8)] {
            let fitting = 1500 - ip - transport;
            // The second of each is a replay.
            for _ in 0..2 {
                let whole = frame.clone().payload(&[7; 3_000]);
                let run = oracle.run_aggregate(Hook::Ingress, UPLINK, &whole.build(), fitting);
                assert_eq!(run.outcome, way.0);
                assert_frames_eq(&run.bytes, &whole.to(pod).ttl(63).macs(way.1, way.2).build());
                let single = frame.clone().payload(&vec![7; fitting as usize]);
                check(oracle, Hook::Ingress, UPLINK, single.clone(), &single.to(pod), way);
            }
            for (payload, segments) in [(fitting + 1, 0), (3_000, 0), (3_000, fitting + 1)] {
                let known = oracle.memory.counters.get(&Reason::TooBig).copied().unwrap_or_default();
                let large = frame.clone().payload(&vec![7; payload as usize]).build();
                let run = oracle.run_aggregate(Hook::Ingress, UPLINK, &large, segments);
                assert_ne!(run.outcome, way.0, "{payload} in segments of {segments}");
                assert_eq!(oracle.memory.counters[&Reason::TooBig], known + 1);
            }
        }
    });
}

#[test]
fn b12_the_second_vip_of_a_backend_gets_another_port_and_keeps_the_address() {
    for_each_world(|oracle, [vip, pod, _, client]| {
        let other = if vip.starts_with('[') { "[fd00:96::11]:80" } else { "10.96.0.11:80" };
        oracle.serve(100, proto::UDP, &[vip, other], &[pod]);
        let (there, back) = (to_pod(oracle), to_router(oracle));
        check(oracle, Hook::Ingress, UPLINK, Frame::udp(client, vip), &Frame::udp(client, pod), there);
        let run = oracle.run(Hook::Ingress, UPLINK, &Frame::udp(client, other).build());
        assert_eq!(run.outcome, there.0);
        let l4 = if vip.starts_with('[') { 54 } else { 34 };
        let port = u16::from_be_bytes([run.bytes[l4], run.bytes[l4 + 1]]);
        assert_ne!(port, 40_000);
        let source = client.replace("40000", &port.to_string());
        check(oracle, Hook::Ingress, WORKLOAD, Frame::udp(pod, &source), &Frame::udp(other, client), back);
        check(oracle, Hook::Ingress, WORKLOAD, Frame::udp(pod, client), &Frame::udp(vip, client), back);
    });
}

#[test]
fn b13_a_finished_connection_makes_way_for_one_to_the_backend_itself() {
    for_each_world(|oracle, [vip, pod, _, client]| {
        oracle.serve(100, proto::TCP, &[vip], &[pod]);
        for frame in [Frame::syn(client, vip), Frame::tcp(client, vip).flags("R")] {
            oracle.run(Hook::Ingress, UPLINK, &frame.build());
        }
        let run = oracle.run(Hook::Ingress, UPLINK, &Frame::syn(client, pod).build());
        assert_eq!(run.outcome, Outcome::Pass);
        let run = oracle.run(Hook::Ingress, WORKLOAD, &Frame::tcp(pod, client).flags("S.").build());
        assert_eq!(run.outcome, Outcome::Pass, "the answer of the backend itself");
    });
}

/// What the stack has to see: devices that may not be passed over on either side, backends outside of the cluster.
#[test]
fn b08_the_stack_forwards_where_it_must() {
    for world in WORLDS {
        for (fast, in_cluster) in
            [(vec![], true), (vec![UPLINK], true), (vec![WORKLOAD], true), (vec![UPLINK, WORKLOAD], false)]
        {
            with_oracle(move |oracle| {
                oracle.set_fast(&fast);
                let [vip, pod, far, client] = world;
                for (id, backend, device, from) in [(100, pod, UPLINK, client), (200, far, WORKLOAD, pod)] {
                    oracle.serve(id, proto::TCP, &[vip], &[backend]);
                    if !in_cluster {
                        oracle.change_backend_flags(id, |flags| flags & !backend_flags::IN_CLUSTER);
                    }
                    let request = Frame::syn(from, vip);
                    let run = oracle.run(Hook::Ingress, device, &request.build());
                    assert_eq!(run.outcome, Outcome::Deliver, "{fast:?} {in_cluster}");
                    assert_frames_eq(&run.bytes, &request.to(backend).build());
                    let answer = Frame::tcp(backend, from).flags("S.");
                    let run = oracle.run(Hook::Egress, device, &answer.build());
                    assert_frames_eq(&run.bytes, &answer.from(vip).build());
                }
            });
        }
    }
}

#[test]
fn b08_connections_go_on_their_way_when_the_setting_changes() {
    for_each_world(|oracle, [vip, pod, _, client]| {
        oracle.serve(100, proto::TCP, &[vip], &[pod]);
        let (there, back) = (to_pod(oracle), to_router(oracle));
        check(oracle, Hook::Ingress, UPLINK, Frame::syn(client, vip), &Frame::syn(client, pod), there);
        oracle.set_slow(&[UPLINK, WORKLOAD]);
        oracle.raise_epoch();
        // Out of the device, as there may be nobody at its other end.
        let there = (Outcome::Send(oracle.ifindex(WORKLOAD)), there.1, there.2);
        for _ in 0..2 {
            check(oracle, Hook::Ingress, WORKLOAD, Frame::tcp(pod, client), &Frame::tcp(vip, client), back);
            check(oracle, Hook::Ingress, UPLINK, Frame::tcp(client, vip), &Frame::tcp(client, pod), there);
        }
        let other = client.replace("40000", "40001");
        let run = oracle.run(Hook::Ingress, UPLINK, &Frame::syn(&other, vip).build());
        assert_eq!(run.outcome, Outcome::Deliver);
        oracle.set_fast(&[UPLINK, WORKLOAD]);
        oracle.raise_epoch();
        let run = oracle.run(Hook::Ingress, UPLINK, &Frame::tcp(&other, vip).build());
        assert_eq!(run.outcome, Outcome::Deliver);
        let run = oracle.run(Hook::Egress, UPLINK, &Frame::tcp(pod, &other).build());
        assert_frames_eq(&run.bytes, &Frame::tcp(vip, &other).build());
    });
}
