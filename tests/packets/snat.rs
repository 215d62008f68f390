//! Connections whose source is translated: backends on other nodes, and pods that reach themselves.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use svc_common::{
    maps::{Config, Device, device_class, flow_flags},
    net::proto,
    outcome::Outcome,
    packet::Hook,
    reason::Reason,
};
use svc_tests::{
    oracle::{NODE, Oracle, POD_MAC, ROUTER_MAC, UPLINK, UPLINK_MAC, WORKLOAD, WORKLOAD_MAC, with_oracle},
    packet::{Frame, assert_frames_eq},
};

/// Frontend, backend on another node, client, this node; in both families.
const WORLDS: [(&str, &str, &str, &str); 2] = [
    ("192.0.2.10:30080", "10.244.2.5:8080", "198.51.100.7", NODE.0),
    ("[2001:db8::10]:30080", "[fd00:244:2::5]:8080", "2001:db8:7::7", NODE.1),
];

fn at(addr: &str, port: u16) -> String {
    if addr.contains(':') { format!("[{addr}]:{port}") } else { format!("{addr}:{port}") }
}

/// The source port of a TCP or UDP frame without options.
fn source_port(frame: &[u8]) -> u16 {
    let l4 = if frame[12] == 0x08 { 34 } else { 54 };
    u16::from_be_bytes([frame[l4], frame[l4 + 1]])
}

#[test]
fn b28_a_connection_to_another_node_goes_there_and_back() {
    for hook in [Hook::Xdp, Hook::Ingress] {
        with_oracle(move |oracle| {
            let uplink = oracle.ifindex(UPLINK);
            for (id, (vip, backend, client, node)) in (100..).step_by(100).zip(WORLDS) {
                oracle.serve(id, proto::TCP, &[vip], &[backend]);
                let client = at(client, 20_000);
                let source = at(node, 20_000);
                // The client's own port lies in the range and is free: it is kept (B29).
                for frame in [Frame::syn(&client, vip), Frame::tcp(&client, vip), Frame::tcp(&client, vip)] {
                    let run = oracle.run(hook, UPLINK, &frame.build());
                    assert_eq!(run.outcome, Outcome::Send(uplink));
                    let there = frame.from(&source).to(backend).ttl(63).macs(UPLINK_MAC, ROUTER_MAC);
                    assert_frames_eq(&run.bytes, &there.build());

                    let answer = Frame::tcp(backend, &source);
                    let run = oracle.run(hook, UPLINK, &answer.build());
                    assert_eq!(run.outcome, Outcome::Send(uplink));
                    let back = answer.from(vip).to(&client).ttl(63).macs(UPLINK_MAC, ROUTER_MAC);
                    assert_frames_eq(&run.bytes, &back.build());
                }
            }
            assert_eq!(oracle.memory.v4.flows.len(), 2, "both directions are established");
            assert!(oracle.memory.v4.embryos.is_empty());
        });
    }
}

#[test]
fn b29_a_taken_or_foreign_port_is_replaced_by_another_of_the_range() {
    with_oracle(|oracle| {
        for (id, (vip, backend, client, node)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::UDP, &[vip], &[backend]);
            let other = if client.contains(':') { "2001:db8:7::8" } else { "198.51.100.8" };
            // Kept; taken by the first; outside the range.
            for (client, port, kept) in [(client, 20_000, true), (other, 20_000, false), (client, 40_000, false)] {
                let client = at(client, port);
                let query = Frame::udp(&client, vip);
                let run = oracle.run(Hook::Ingress, UPLINK, &query.build());
                let found = source_port(&run.bytes);
                assert_eq!(found == port, kept, "client port {port}, source port {found}");
                assert!((1024..30_000).contains(&found), "{found}");
                let answer = Frame::udp(backend, &at(node, found));
                let run = oracle.run(Hook::Ingress, UPLINK, &answer.build());
                let back = answer.from(vip).to(&client).ttl(63).macs(UPLINK_MAC, ROUTER_MAC);
                assert_frames_eq(&run.bytes, &back.build());
            }
        }
    });
}

#[test]
fn b29_without_a_free_port_the_new_connection_is_dropped_and_no_other_harmed() {
    with_oracle(|oracle| {
        oracle.set_config(Config { epoch: 1, snat_port_min: 5_000, snat_port_max: 5_003, ..Config::default() });
        for (id, (vip, backend, client, _)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            for port in 0..4 {
                let run = oracle.run(Hook::Ingress, UPLINK, &Frame::syn(&at(client, 40_000 + port), vip).build());
                assert!(matches!(run.outcome, Outcome::Send(_)), "{:?}", run.outcome);
            }
            let frame = Frame::syn(&at(client, 40_004), vip).build();
            let run = oracle.run(Hook::Ingress, UPLINK, &frame);
            assert_eq!(run.outcome, Outcome::Drop(Reason::NoSourcePort));
            assert_frames_eq(&run.bytes, &frame);
            for port in 0..4 {
                let run = oracle.run(Hook::Ingress, UPLINK, &Frame::syn(&at(client, 40_000 + port), vip).build());
                assert!(matches!(run.outcome, Outcome::Send(_)), "{:?}", run.outcome);
            }
        }
        assert_eq!(oracle.memory.counters[&Reason::NoSourcePort], 2);
    });
}

#[test]
fn b32_a_pod_reaches_itself_through_its_service() {
    with_oracle(|oracle| {
        let workload = oracle.ifindex(WORKLOAD);
        for (id, vip, pod, node) in
            [(100, "10.96.0.10:80", "10.244.1.5", NODE.0), (200, "[fd00:96::10]:80", "fd00:244:1::5", NODE.1)]
        {
            let backend = at(pod, 8080);
            oracle.serve(id, proto::TCP, &[vip], &[&backend]);
            let request = Frame::syn(&at(pod, 20_000), vip);
            let run = oracle.run(Hook::Ingress, WORKLOAD, &request.build());
            assert_eq!(run.outcome, Outcome::Send(workload));
            let there = request.from(&at(node, 20_000)).to(&backend).ttl(63).macs(WORKLOAD_MAC, POD_MAC);
            assert_frames_eq(&run.bytes, &there.build());

            let answer = Frame::tcp(&backend, &at(node, 20_000)).flags("S.");
            let run = oracle.run(Hook::Ingress, WORKLOAD, &answer.build());
            assert_eq!(run.outcome, Outcome::Send(workload));
            let back = answer.from(vip).to(&at(pod, 20_000)).ttl(63).macs(WORKLOAD_MAC, POD_MAC);
            assert_frames_eq(&run.bytes, &back.build());
        }
    });
}

#[test]
fn b37_an_unknown_neighbour_is_left_to_the_stack_and_found_later() {
    with_oracle(|oracle| {
        let uplink = oracle.ifindex(UPLINK);
        for (id, (vip, backend, client)) in (100..).step_by(100).zip([
            ("192.0.2.10:30080", "10.244.3.5:8080", "198.51.100.7:20000"),
            ("[2001:db8::10]:30080", "[fd00:244:3::5]:8080", "[2001:db8:7::7]:20000"),
        ]) {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            let request = Frame::syn(client, vip);
            let run = oracle.run(Hook::Xdp, UPLINK, &request.build());
            assert_eq!(run.outcome, Outcome::Pass, "XDP cannot wait for a neighbour");
            for _ in 0..2 {
                let run = oracle.run(Hook::Ingress, UPLINK, &request.build());
                assert_eq!(run.outcome, Outcome::Resolve(uplink));
            }
            oracle.learn_neighbours();
            for hook in [Hook::Xdp, Hook::Ingress] {
                let run = oracle.run(hook, UPLINK, &request.build());
                assert_eq!(run.outcome, Outcome::Send(uplink));
            }
            oracle.forget_neighbours();
        }
    });
}

#[test]
fn b08_a_ttl_that_ends_here_goes_to_the_stack() {
    with_oracle(|oracle| {
        for (id, (vip, backend, client, node)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            let client = at(client, 20_000);
            oracle.run(Hook::Ingress, UPLINK, &Frame::syn(&client, vip).build());
            // Half-open, then established.
            for _ in 0..2 {
                for (hook, ttl) in [(Hook::Xdp, 0), (Hook::Xdp, 1), (Hook::Ingress, 0), (Hook::Ingress, 1)] {
                    let frame = Frame::tcp(&client, vip).ttl(ttl).build();
                    let run = oracle.run(hook, UPLINK, &frame);
                    assert_eq!(run.outcome, Outcome::Pass);
                    assert_frames_eq(&run.bytes, &frame);
                }
                let answer = Frame::tcp(backend, &at(node, 20_000)).flags("S.");
                oracle.run(Hook::Ingress, UPLINK, &answer.build());
                oracle.run(Hook::Ingress, UPLINK, &Frame::tcp(&client, vip).build());
            }
            assert!(!oracle.established().is_empty());
        }
        assert!(oracle.memory.counters[&Reason::TtlExceeded] > 0);
    });
}

#[test]
fn b28_an_unmanaged_way_out_refuses_the_connection() {
    with_oracle(|oracle| {
        let uplink = oracle.ifindex(UPLINK);
        let mut device = oracle.memory.devices[&uplink];
        for (id, (vip, backend, client, _)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            device.class = device_class::OTHER;
            oracle.set_device(uplink, device);
            let run = oracle.run(Hook::Ingress, UPLINK, &Frame::syn(&at(client, 20_000), vip).build());
            assert_eq!(run.outcome, Outcome::Drop(Reason::UnmanagedDevice));
            device.class = device_class::UPLINK;
            let (v4, v6) = (device.v4, device.v6);
            (device.v4, device.v6) = ([0; 4], [0; 16]);
            oracle.set_device(uplink, device);
            if oracle.memory.v4.source == [0; 4] {
                let run = oracle.run(Hook::Ingress, UPLINK, &Frame::syn(&at(client, 20_000), vip).build());
                assert_eq!(run.outcome, Outcome::Drop(Reason::NoSourceAddress));
            }
            (device.v4, device.v6) = (v4, v6);
            oracle.set_device(uplink, device);
            let run = oracle.run(Hook::Ingress, UPLINK, &Frame::syn(&at(client, 20_000), vip).build());
            assert_eq!(run.outcome, Outcome::Send(uplink));
        }
    });
}

#[test]
fn b28_the_source_is_what_the_node_would_use_itself() {
    with_oracle(|oracle| {
        if oracle.memory.v4.source == [0; 4] {
            return;
        }
        // The first address of a device, or none: neither says which one the next hop can answer.
        for (port, v4, v6) in [(20_000, [10, 50, 1, 1], [0xfd; 16]), (20_001, [0; 4], [0; 16])] {
            for device in [UPLINK, WORKLOAD] {
                let ifindex = oracle.ifindex(device);
                let value = Device { v4, v6, ..oracle.memory.devices[&ifindex] };
                oracle.set_device(ifindex, value);
            }
            for (id, (vip, backend, client, node)) in (100..).step_by(100).zip(WORLDS) {
                oracle.serve(id, proto::TCP, &[vip], &[backend]);
                let syn = Frame::syn(&at(client, port), vip);
                let run = oracle.run(Hook::Ingress, UPLINK, &syn.build());
                let there = syn.from(&at(node, port)).to(backend).ttl(63).macs(UPLINK_MAC, ROUTER_MAC);
                assert_frames_eq(&run.bytes, &there.build());
            }
        }
    });
}

#[test]
fn b29_two_clients_with_one_port_get_two_ports_also_when_established() {
    with_oracle(|oracle| {
        let (vip, backend, _, node) = WORLDS[0];
        oracle.serve(100, proto::TCP, &[vip], &[backend]);
        let client = "198.51.100.7:20000";
        oracle.run(Hook::Ingress, UPLINK, &Frame::syn(client, vip).build());
        oracle.run(Hook::Ingress, UPLINK, &Frame::tcp(backend, &at(node, 20_000)).flags("S.").build());
        oracle.run(Hook::Ingress, UPLINK, &Frame::tcp(client, vip).build());
        assert_eq!((oracle.memory.v4.flows.len(), oracle.memory.v4.embryos.len()), (2, 0));
        let run = oracle.run(Hook::Ingress, UPLINK, &Frame::syn("198.51.100.8:20000", vip).build());
        assert_eq!(source_port(&run.bytes), 20_001, "the next port of the range");
        assert_eq!(oracle.memory.v4.embryos.len(), 2, "what was tried in vain leaves nothing");
    });
}

#[test]
fn b29_ended_connections_give_their_ports_back_when_none_is_free() {
    with_oracle(|oracle| {
        oracle.set_config(Config { epoch: 1, snat_port_min: 5_000, snat_port_max: 5_003, ..Config::default() });
        for (id, (vip, backend, client, node)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            for port in 0..4 {
                oracle.run(Hook::Ingress, UPLINK, &Frame::syn(&at(client, 40_000 + port), vip).build());
            }
            // The third of them ends.
            let ended = Frame::tcp(&at(client, 40_002), vip).flags("R");
            let source = source_port(&oracle.run(Hook::Ingress, UPLINK, &ended.build()).bytes);
            let run = oracle.run(Hook::Ingress, UPLINK, &Frame::syn(&at(client, 40_004), vip).build());
            assert!(matches!(run.outcome, Outcome::Send(_)), "{:?}", run.outcome);
            assert_eq!(source_port(&run.bytes), source);
            let half_open = oracle.half_open().into_iter().filter(|flow| flow.key.0.is_ipv6() == vip.starts_with('['));
            assert_eq!(half_open.count(), 8, "both directions of the ended connection made way");
            let answer = Frame::tcp(backend, &at(node, source)).flags("S.");
            let run = oracle.run(Hook::Ingress, UPLINK, &answer.build());
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
                oracle.forget_embryos().unwrap();
                oracle.memory.v4.embryos.clear();
                oracle.memory.v6.embryos.clear();
            }
        }
    });
}

#[test]
fn b29_a_connection_whose_forward_flow_was_evicted_gets_its_port_back() {
    with_oracle(|oracle| {
        let (vip, backend, ..) = WORLDS[0];
        oracle.serve(100, proto::TCP, &[vip], &[backend]);
        let syn = Frame::syn("198.51.100.7:40000", vip).build();
        let first = oracle.run(Hook::Ingress, UPLINK, &syn);
        oracle.edit_flows(|flow| flow.flags & flow_flags::REVERSE != 0);
        assert_eq!(oracle.memory.v4.embryos.len(), 1);
        let second = oracle.run(Hook::Ingress, UPLINK, &syn);
        assert_frames_eq(&second.bytes, &first.bytes);
        assert_eq!(oracle.memory.v4.embryos.len(), 2);
    });
}

/// A socket of this node at a port, in both families; the host compilation is told of it.
enum Local {
    Tcp(#[expect(dead_code, reason = "open as long as this lives")] [TcpListener; 2]),
    Udp(#[expect(dead_code, reason = "open as long as this lives")] [UdpSocket; 2]),
}

impl Local {
    fn open(oracle: &mut Oracle, protocol: u8, port: u16) -> Self {
        let any: [SocketAddr; 2] =
            [(Ipv4Addr::UNSPECIFIED, port).into(), (NODE.1.parse::<Ipv6Addr>().unwrap(), port).into()];
        for sockets in [&mut oracle.memory.v4.sockets, &mut oracle.memory.v6.sockets] {
            sockets.insert((protocol, port));
        }
        match protocol {
            proto::TCP => Self::Tcp(any.map(|at| TcpListener::bind(at).unwrap())),
            _ => Self::Udp(any.map(|at| UdpSocket::bind(at).unwrap())),
        }
    }

    fn close(self, oracle: &mut Oracle) {
        for sockets in [&mut oracle.memory.v4.sockets, &mut oracle.memory.v6.sockets] {
            sockets.clear();
        }
    }
}

#[test]
fn b30_ports_of_local_sockets_are_never_chosen() {
    with_oracle(|oracle| {
        for (base, protocol, open) in
            [(100, proto::TCP, Frame::syn as fn(&str, &str) -> Frame), (150, proto::UDP, Frame::udp)]
        {
            for (id, (vip, backend, client, _)) in (base..).step_by(100).zip(WORLDS) {
                oracle.serve(id, protocol, &[vip], &[backend]);
                for (hook, other) in [(Hook::Ingress, 7), (Hook::Xdp, 8)] {
                    let client =
                        at(&client.replace(".7", &format!(".{other}")).replace("::7", &format!("::{other}")), 20_000);
                    let local = Local::open(oracle, protocol, 20_000);
                    let run = oracle.run(hook, UPLINK, &open(&client, vip).build());
                    let found = source_port(&run.bytes);
                    assert!(matches!(run.outcome, Outcome::Send(_)), "{run:?}");
                    assert_ne!(found, 20_000, "{client} at {hook:?}");
                    local.close(oracle);
                    oracle.forget_embryos().unwrap();
                    oracle.memory.v4.embryos.clear();
                    oracle.memory.v6.embryos.clear();
                    let run = oracle.run(hook, UPLINK, &open(&client, vip).build());
                    assert_eq!(source_port(&run.bytes), 20_000, "nobody has it any more");
                    oracle.forget_embryos().unwrap();
                    oracle.memory.v4.embryos.clear();
                    oracle.memory.v6.embryos.clear();
                }
            }
        }
    });
}

#[test]
fn b30_whoever_is_no_backend_of_a_connection_reaches_its_port_at_the_node() {
    with_oracle(|oracle| {
        for (id, (vip, backend, client, node)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            oracle.run(Hook::Ingress, UPLINK, &Frame::syn(&at(client, 20_000), vip).build());
            let port = at(node, 20_000);
            // The backend's other ports, another host, and the backend's port on another host.
            let pod = svc_tests::packet::addr(backend).ip().to_string();
            for from in [at(&pod, 45_000), at(client, 45_000), at(client, 8080)] {
                for hook in [Hook::Xdp, Hook::Ingress] {
                    let frame = Frame::syn(&from, &port).build();
                    let run = oracle.run(hook, UPLINK, &frame);
                    assert_eq!(run.outcome, Outcome::Pass, "{from}");
                    assert_frames_eq(&run.bytes, &frame);
                }
            }
            let run = oracle.run(Hook::Ingress, UPLINK, &Frame::tcp(backend, &port).flags("S.").build());
            assert!(matches!(run.outcome, Outcome::Send(_)), "the backend's answer");
        }
    });
}

#[test]
fn b13_a_forged_packet_of_the_node_does_not_end_a_connection_with_source_nat() {
    with_oracle(|oracle| {
        for (id, (vip, backend, client, node)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            oracle.run(Hook::Ingress, UPLINK, &Frame::syn(&at(client, 20_000), vip).build());
            oracle.run(Hook::Ingress, UPLINK, &Frame::tcp(backend, &at(node, 20_000)).flags("R.").build());
            let before = oracle.half_open();
            // As if the node dialled the backend itself, from the port that is the client's for it.
            let forged = Frame::syn(&at(node, 20_000), backend).build();
            let run = oracle.run(Hook::Ingress, UPLINK, &forged);
            assert_eq!(run.outcome, Outcome::Pass);
            assert_frames_eq(&run.bytes, &forged);
            assert_eq!(oracle.half_open(), before);
        }
    });
}
