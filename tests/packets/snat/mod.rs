//! Connections whose source is translated: backends on other nodes, and pods that reach themselves.

mod ports;
mod sockets;

use svc_common::{
    maps::{Device, device_class},
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

/// At XDP and at tc, each time with empty tables.
fn at_both_hooks(test: impl Fn(&mut Oracle, Hook) + Send + 'static) {
    with_oracle(move |oracle| {
        for hook in [Hook::Xdp, Hook::Ingress] {
            oracle.reset();
            test(oracle, hook);
        }
    });
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
fn b32_a_pod_reaches_itself_through_its_service() {
    with_oracle(|oracle| {
        let workload = oracle.ifindex(WORKLOAD);
        for (id, vip, pod, node) in
            [(100, "10.96.0.10:80", "10.244.1.5", NODE.0), (200, "[fd00:96::10]:80", "fd00:244:1::5", NODE.1)]
        {
            let (backend, client, seen) = (at(pod, 8080), at(pod, 20_000), at(node, 20_000));
            for (offset, protocol, open) in
                [(0, proto::TCP, Frame::tcp as fn(&str, &str) -> Frame), (1, proto::UDP, Frame::udp)]
            {
                oracle.serve(id + offset, protocol, &[vip], &[&backend]);
                // The first packets, and those of an established connection.
                for _ in 0..3 {
                    let request = open(&client, vip);
                    let run = oracle.run(Hook::Ingress, WORKLOAD, &request.build());
                    assert_eq!(run.outcome, Outcome::Send(workload));
                    let there = request.from(&seen).to(&backend).ttl(63).macs(WORKLOAD_MAC, POD_MAC);
                    assert_frames_eq(&run.bytes, &there.build());

                    let answer = open(&backend, &seen);
                    let run = oracle.run(Hook::Ingress, WORKLOAD, &answer.build());
                    assert_eq!(run.outcome, Outcome::Send(workload));
                    let back = answer.from(vip).to(&client).ttl(63).macs(WORKLOAD_MAC, POD_MAC);
                    assert_frames_eq(&run.bytes, &back.build());
                }
            }
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
