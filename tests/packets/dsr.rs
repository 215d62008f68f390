//! Direct server return: what a balancing node sends to the backend's node, and what that node makes of it.

use svc_common::{
    maps::{Config, Frontend, backend_flags, encapsulation, flow_flags, flow_state, frontend_flags},
    net::proto,
    outcome::Outcome,
    packet::Hook,
    reason::Reason,
    wire::sctp_chunk,
};
use svc_tests::{
    message::Message,
    oracle::{NODE, Oracle, POD_MAC, ROUTER_MAC, UPLINK, UPLINK_MAC, WORKLOAD, WORKLOAD_MAC, with_oracle},
    packet::{Frame, assert_frames_eq, inside, inside_geneve},
    pieces::pieces,
};

/// A family's addresses.
#[derive(Clone, Copy)]
struct World {
    vip: &'static str,
    /// A pod of another node.
    far: &'static str,
    /// A pod of this node.
    pod: &'static str,
    client: &'static str,
    /// This node.
    node: &'static str,
    /// Another node.
    other: &'static str,
    /// Bytes of an IP header.
    header: usize,
    /// What carries packets to other nodes.
    encapsulation: u32,
}

impl World {
    /// A frame inside of one from `src` to `dst`.
    fn carry(&self, frame: &[u8], src: &str, dst: &str) -> Vec<u8> {
        match self.encapsulation {
            encapsulation::GENEVE => inside_geneve(frame, src, dst, 0xc123),
            _ => inside(frame, src, dst),
        }
    }

    /// Bytes that it takes.
    fn overhead(&self) -> usize {
        self.header + if self.encapsulation == encapsulation::GENEVE { 16 } else { 0 }
    }

    /// Whether `found` is `expected`, from whatever port of those that Geneve packets come from.
    #[track_caller]
    fn assert_carried(&self, found: &[u8], expected: &[u8]) {
        let mut expected = expected.to_vec();
        if self.encapsulation == encapsulation::GENEVE {
            let at = 14 + self.header;
            assert!(found[at] >= 0xc0, "port {:#06x}", u16::from_be_bytes([found[at], found[at + 1]]));
            expected[at..at + 2].copy_from_slice(&found[at..at + 2]);
        }
        assert_frames_eq(found, &expected);
    }
}

const WORLDS: [World; 2] = [
    World {
        vip: "203.0.113.80:80",
        far: "10.244.2.5:8080",
        pod: "10.244.1.5:8080",
        client: "198.51.100.7:40000",
        node: NODE.0,
        other: "192.0.2.77",
        header: 20,
        encapsulation: encapsulation::IPIP,
    },
    World {
        vip: "[2001:db8:80::80]:80",
        far: "[fd00:244:2::5]:8080",
        pod: "[fd00:244:1::5]:8080",
        client: "[2001:db8:7::7]:40000",
        node: NODE.1,
        other: "2001:db8::77",
        header: 40,
        encapsulation: encapsulation::IPIP,
    },
];

/// The address without its port.
fn ip(addr: &str) -> String {
    svc_tests::packet::addr(addr).ip().to_string()
}

fn for_each_world(test: impl Fn(&mut Oracle, World) + Send + Copy + 'static) {
    for world in WORLDS {
        with_oracle(move |oracle| {
            for encapsulation in [encapsulation::IPIP, encapsulation::GENEVE] {
                oracle.reset();
                oracle.forget_neighbours();
                oracle.set_fast(&[UPLINK, WORKLOAD]);
                oracle.set_config(Config { encapsulation, ..oracle.memory.config });
                test(oracle, World { encapsulation, ..world });
            }
        });
    }
}

/// A Service with direct server return, whose backends are on this node or all on others.
fn serve(oracle: &mut Oracle, id: u32, protocol: u8, vip: &str, backends: &[&str], here: bool) {
    oracle.serve(id, protocol, &[vip], backends);
    let flags = frontend_flags::LOAD_BALANCER | frontend_flags::DSR;
    oracle.put_frontend(vip, protocol, Frontend { service: id, external: id, internal: id, flags, affinity_s: 0 });
    for offset in 0..backends.len() as u32 {
        oracle.change_backend_flags(id + offset, |flags| if here { flags | backend_flags::LOCAL } else { flags });
    }
}

/// Flows of either family: established, half-open.
fn flows(oracle: &Oracle) -> (usize, usize) {
    let (v4, v6) = (&oracle.memory.v4, &oracle.memory.v6);
    (v4.flows.len() + v6.flows.len(), v4.embryos.len() + v6.embryos.len())
}

#[test]
fn b28_with_direct_server_return_packets_reach_the_backends_node_as_the_client_sent_them() {
    for hook in [Hook::Xdp, Hook::Ingress] {
        for_each_world(move |oracle, world| {
            let uplink = oracle.ifindex(UPLINK);
            serve(oracle, 100, proto::TCP, world.vip, &[world.far], false);
            serve(oracle, 200, proto::UDP, world.vip, &[world.far], false);
            serve(oracle, 300, proto::SCTP, world.vip, &[world.far], false);
            let tcp = Frame::tcp(world.client, world.vip);
            let frames = [Frame::syn(world.client, world.vip), tcp.clone(), tcp.clone().flags("P."), tcp.flags("F.")];
            let others = [
                Frame::udp(world.client, world.vip),
                Frame::sctp(world.client, world.vip, sctp_chunk::INIT),
                Frame::sctp(world.client, world.vip, 0),
            ];
            for frame in frames.into_iter().chain(others) {
                let run = oracle.run(hook, UPLINK, &frame.build());
                assert_eq!(run.outcome, Outcome::Send(uplink));
                let sent = frame.ttl(63).macs(UPLINK_MAC, ROUTER_MAC).build();
                world.assert_carried(&run.bytes, &world.carry(&sent, world.node, &ip(world.far)));
            }
            // One direction of each, which the sweep leaves alone as long as any established connection.
            assert_eq!(flows(oracle), (0, 3));
            let flow = oracle.memory.v4.embryos.values().map(|flow| (flow.flags, flow.state));
            let flows = flow.chain(oracle.memory.v6.embryos.values().map(|flow| (flow.flags, flow.state)));
            for (flags, state) in flows {
                assert_ne!(flags & flow_flags::ENCAP, 0);
                assert_ne!(state & flow_state::ESTABLISHED, 0);
            }
        });
    }
}

#[test]
fn b22_a_lost_flow_leads_to_the_same_backend_again() {
    for_each_world(|oracle, world| {
        let far = [world.far, &world.far.replace("::5]", "::6]").replace(".2.5:", ".2.6:")];
        serve(oracle, 100, proto::TCP, world.vip, &far, false);
        let frame = Frame::tcp(world.client, world.vip).build();
        let first = oracle.run(Hook::Ingress, UPLINK, &frame);
        oracle.forget_embryos().unwrap();
        oracle.memory.v4.embryos.clear();
        oracle.memory.v6.embryos.clear();
        let again = oracle.run(Hook::Ingress, UPLINK, &frame);
        assert_eq!((again.outcome, again.bytes), (first.outcome, first.bytes));
    });
}

#[test]
fn b41_a_packet_that_leaves_no_room_for_the_tunnel_is_too_big() {
    for_each_world(|oracle, world| {
        serve(oracle, 100, proto::UDP, world.vip, &[world.far], false);
        let fitting = 1500 - world.overhead() - world.header - 8;
        let frame = Frame::udp(world.client, world.vip);
        for hook in [Hook::Ingress, Hook::Xdp] {
            let large = frame.clone().payload(&vec![7; fitting]).build();
            let run = oracle.run(hook, UPLINK, &large);
            assert!(matches!(run.outcome, Outcome::Send(_)), "{:?}", run.outcome);
            assert_eq!(run.bytes.len(), 14 + 1500);
        }
        // Aggregates of test runs are of no type, and the kernel carries none of them; those of sockets are seen elsewhere.
        for (payload, segment) in [(fitting + 1, 0), (3_000, fitting + 1)] {
            let known = oracle.memory.counters.get(&Reason::TooBig).copied().unwrap_or_default();
            let large = frame.clone().payload(&vec![7; payload]).build();
            oracle.run_aggregate(Hook::Ingress, UPLINK, &large, segment as u32);
            assert_eq!(oracle.memory.counters[&Reason::TooBig], known + 1);
        }
        // At XDP it is tc's.
        let large = frame.payload(&vec![7; fitting + 1]).build();
        let run = oracle.run(Hook::Xdp, UPLINK, &large);
        assert_eq!(run.outcome, Outcome::Pass);
        assert_frames_eq(&run.bytes, &large);
    });
}

#[test]
fn b41_a_packet_for_the_tunnel_is_not_translated_for_its_length() {
    for_each_world(|oracle, world| {
        serve(oracle, 100, proto::UDP, world.vip, &[world.far], false);
        // Its source is forged: the address of the tunnel's own end.
        let client = world.client.replace(&ip(world.client), world.node);
        let large = Frame::udp(&client, world.vip).payload(&vec![7; 1500 - world.header - 8]).build();
        let run = oracle.run(Hook::Ingress, UPLINK, &large);
        assert_ne!(run.outcome, Outcome::Deliver);
    });
}

#[test]
fn b37_the_way_to_the_backends_node_is_found_and_followed() {
    for_each_world(|oracle, world| {
        let far = world.far.replace("244.2.", "244.3.").replace("244:2:", "244:3:");
        serve(oracle, 100, proto::TCP, world.vip, &[&far], false);
        let uplink = oracle.ifindex(UPLINK);
        let frame = Frame::syn(world.client, world.vip);
        let run = oracle.run(Hook::Xdp, UPLINK, &frame.build());
        assert_eq!(run.outcome, Outcome::Pass, "XDP cannot wait for a neighbour");
        for _ in 0..2 {
            let run = oracle.run(Hook::Ingress, UPLINK, &frame.build());
            assert_eq!(run.outcome, Outcome::Resolve(uplink));
            world.assert_carried(&run.bytes, &world.carry(&frame.clone().ttl(63).build(), world.node, &ip(&far)));
        }
        oracle.learn_neighbours();
        for hook in [Hook::Xdp, Hook::Ingress] {
            let run = oracle.run(hook, UPLINK, &frame.build());
            assert_eq!(run.outcome, Outcome::Send(uplink));
        }
        for hook in [Hook::Xdp, Hook::Ingress] {
            let last = frame.clone().ttl(1).build();
            let run = oracle.run(hook, UPLINK, &last);
            assert_eq!(run.outcome, Outcome::Pass, "the stack says that the TTL has ended");
            assert_frames_eq(&run.bytes, &last);
        }
    });
}

#[test]
fn b26_datagrams_move_to_another_backend_and_connections_stay() {
    for_each_world(|oracle, world| {
        let other = world.far.replace("::5]", "::6]").replace(".2.5:", ".2.6:");
        for (id, protocol, moves) in [(100, proto::UDP, true), (200, proto::TCP, false)] {
            serve(oracle, id, protocol, world.vip, &[world.far], false);
            let frame = if moves { Frame::udp(world.client, world.vip) } else { Frame::tcp(world.client, world.vip) };
            oracle.run(Hook::Ingress, UPLINK, &frame.build());
            oracle.remove_backend(id);
            oracle.set_backend(id + 1, id, &other);
            oracle.set_selection(id, &[id + 1]);
            oracle.raise_epoch();
            let run = oracle.run(Hook::Ingress, UPLINK, &frame.build());
            let to = if moves { ip(&other) } else { ip(world.far) };
            world.assert_carried(
                &run.bytes,
                &world.carry(&frame.ttl(63).macs(UPLINK_MAC, ROUTER_MAC).build(), world.node, &to),
            );
        }
    });
}

#[test]
fn b28_the_backends_node_unpacks_and_answers_the_client_itself() {
    for_each_world(|oracle, world| {
        let (workload, uplink) = (oracle.ifindex(WORKLOAD), oracle.ifindex(UPLINK));
        serve(oracle, 100, proto::TCP, world.vip, &[world.pod], true);
        serve(oracle, 200, proto::UDP, world.vip, &[world.pod], true);
        serve(oracle, 300, proto::SCTP, world.vip, &[world.pod], true);
        let tcp = Frame::tcp(world.client, world.vip);
        let udp = Frame::udp(world.client, world.vip);
        let sctp = [sctp_chunk::INIT, 0].map(|chunk| Frame::sctp(world.client, world.vip, chunk));
        for frame in [Frame::syn(world.client, world.vip), tcp.clone(), tcp, udp].into_iter().chain(sctp) {
            let carried = world.carry(&frame.build(), world.other, &ip(world.pod));
            let run = oracle.run(Hook::Xdp, UPLINK, &carried);
            assert_eq!(run.outcome, Outcome::Pass);
            let run = oracle.run(Hook::Ingress, UPLINK, &carried);
            assert_eq!(run.outcome, Outcome::Peer(workload));
            let delivered = frame.to(world.pod).ttl(63).macs(WORKLOAD_MAC, POD_MAC);
            assert_frames_eq(&run.bytes, &delivered.build());
            let answer = Frame::tcp(world.pod, world.client);
            let run = oracle.run(Hook::Ingress, WORKLOAD, &answer.build());
            assert_eq!(run.outcome, Outcome::Send(uplink));
            let back = answer.from(world.vip).ttl(63).macs(UPLINK_MAC, ROUTER_MAC);
            assert_frames_eq(&run.bytes, &back.build());
        }
        // What is recorded is unpacked as long as it lives, whatever becomes of the Service.
        oracle.remove_frontend(world.vip, proto::TCP);
        let frame = Frame::tcp(world.client, world.vip);
        let run = oracle.run(Hook::Ingress, UPLINK, &world.carry(&frame.build(), world.other, &ip(world.pod)));
        assert_eq!(run.outcome, Outcome::Peer(workload));
    });
}

#[test]
fn b08_the_stack_answers_what_has_come_too_far_inside_of_a_packet() {
    for_each_world(|oracle, world| {
        for (id, protocol) in [(100, proto::TCP), (200, proto::UDP), (300, proto::SCTP)] {
            serve(oracle, id, protocol, world.vip, &[world.pod], true);
        }
        for ttl in [0, 1] {
            let frames = [
                Frame::syn(world.client, world.vip),
                Frame::udp(world.client, world.vip),
                Frame::sctp(world.client, world.vip, sctp_chunk::INIT),
            ];
            for (count, frame) in (1..).zip(frames) {
                let known = oracle.memory.counters.get(&Reason::TtlExceeded).copied().unwrap_or_default();
                let frame = frame.ttl(ttl).build();
                let run = oracle.run(Hook::Ingress, UPLINK, &world.carry(&frame, world.other, &ip(world.pod)));
                assert_eq!(run.outcome, Outcome::Deliver, "it is not as it came");
                assert_frames_eq(&run.bytes, &frame);
                assert_eq!(oracle.memory.counters[&Reason::TtlExceeded], known + 1, "{count}");
            }
        }
    });
}

#[test]
fn b01_what_turns_out_malformed_inside_of_a_packet_ends_here() {
    for_each_world(|oracle, world| {
        serve(oracle, 100, proto::UDP, world.vip, &[world.pod], true);
        let mut frame = Frame::udp(world.client, world.vip).payload(&[7; 40]).build();
        // The inner packet says that it is shorter than its headers.
        let len = if world.header == 20 { [0, 24] } else { [0, 4] };
        let at = if world.header == 20 { 16 } else { 18 };
        frame[at..at + 2].copy_from_slice(&len);
        let mut carried = world.carry(&frame, world.other, &ip(world.pod));
        carried[14 + world.overhead()..].copy_from_slice(&frame[14..]);
        let run = oracle.run(Hook::Ingress, UPLINK, &carried);
        assert_eq!(run.outcome, Outcome::Drop(Reason::Malformed));
    });
}

/// A nodePort with direct server return, as the agent writes it: at an address of this node, and for any node.
fn serve_node_port(oracle: &mut Oracle, world: World, node: &str, backends: &[&str], here: bool) {
    let any = if world.header == 20 { "0.0.0.0:30080" } else { "[::]:30080" };
    for (id, protocol) in [(100, proto::TCP), (200, proto::UDP), (300, proto::SCTP)] {
        serve(oracle, id, protocol, node, backends, here);
        let flags = frontend_flags::NODE_PORT | frontend_flags::DSR;
        for vip in [node, any] {
            let frontend = Frontend { service: id, external: id, internal: id, flags, affinity_s: 0 };
            oracle.put_frontend(vip, protocol, frontend);
        }
    }
}

/// The nodePort at an address.
fn node_port(addr: &str) -> String {
    std::net::SocketAddr::new(addr.parse().unwrap(), 30_080).to_string()
}

/// A packet of each transport.
fn each_transport(client: &str, to: &str) -> [Frame; 3] {
    [Frame::syn(client, to), Frame::udp(client, to), Frame::sctp(client, to, sctp_chunk::INIT)]
}

#[test]
fn b28_a_node_port_is_carried_from_the_address_that_the_client_dialled() {
    for hook in [Hook::Xdp, Hook::Ingress] {
        for_each_world(move |oracle, world| {
            // An address that the node would not use itself on the way.
            let dialled = world.node.replace("192.0.2.10", "192.0.2.11").replace("::10", "::11");
            let vip = node_port(&dialled);
            serve_node_port(oracle, world, &vip, &[world.far], false);
            for frame in each_transport(world.client, &vip) {
                let run = oracle.run(hook, UPLINK, &frame.build());
                assert_eq!(run.outcome, Outcome::Send(oracle.ifindex(UPLINK)));
                let sent = frame.ttl(63).macs(UPLINK_MAC, ROUTER_MAC).build();
                world.assert_carried(&run.bytes, &world.carry(&sent, &dialled, &ip(world.far)));
            }
        });
    }
}

#[test]
fn b28_the_backends_node_answers_for_the_node_whose_node_port_was_dialled() {
    for_each_world(|oracle, world| {
        serve_node_port(oracle, world, &node_port(world.node), &[world.pod], true);
        let dialled = node_port(world.other);
        for round in 0..3 {
            for frame in each_transport(world.client, &dialled) {
                let carried = world.carry(&frame.build(), world.other, &ip(world.pod));
                let run = oracle.run(Hook::Ingress, UPLINK, &carried);
                assert_eq!(run.outcome, Outcome::Peer(oracle.ifindex(WORKLOAD)), "round {round}");
                assert_frames_eq(&run.bytes, &frame.to(world.pod).ttl(63).macs(WORKLOAD_MAC, POD_MAC).build());
            }
            for answer in [Frame::udp(world.pod, world.client), Frame::sctp(world.pod, world.client, 0)] {
                let run = oracle.run(Hook::Ingress, WORKLOAD, &answer.build());
                assert_eq!(run.outcome, Outcome::Send(oracle.ifindex(UPLINK)));
                assert_frames_eq(&run.bytes, &answer.from(&dialled).ttl(63).macs(UPLINK_MAC, ROUTER_MAC).build());
            }
            // UDP asks whether the backend still serves what was dialled.
            oracle.raise_epoch();
        }
    });
}

#[test]
fn b28_a_node_port_of_another_node_is_ours_only_out_of_a_packet_of_that_node() {
    for_each_world(|oracle, world| {
        serve_node_port(oracle, world, &node_port(world.node), &[world.pod], true);
        let dialled = node_port(world.other);
        for frame in each_transport(world.client, &dialled) {
            let frame = frame.build();
            let forged = [world.node, &ip(world.client)].map(|from| world.carry(&frame, from, &ip(world.pod)));
            for frame in forged.into_iter().chain([frame]) {
                let run = oracle.run(Hook::Ingress, UPLINK, &frame);
                assert_eq!(run.outcome, Outcome::Pass);
                assert_frames_eq(&run.bytes, &frame);
            }
        }
        assert_eq!(flows(oracle), (0, 0));
    });
}

#[test]
fn b28_what_no_backend_here_has_any_more_is_not_sent_back() {
    for_each_world(|oracle, world| {
        serve_node_port(oracle, world, &node_port(world.node), &[world.pod], true);
        let frame = Frame::udp(world.client, &node_port(world.other)).build();
        let carried = world.carry(&frame, world.other, &ip(world.pod));
        let run = oracle.run(Hook::Ingress, UPLINK, &carried);
        assert_eq!(run.outcome, Outcome::Peer(oracle.ifindex(WORKLOAD)));
        for vip in [node_port(world.node), if world.header == 20 { "0.0.0.0:30080" } else { "[::]:30080" }.to_owned()] {
            oracle.remove_frontend(&vip, proto::UDP);
        }
        oracle.raise_epoch();
        let run = oracle.run(Hook::Ingress, UPLINK, &carried);
        assert_eq!(run.outcome, Outcome::Drop(Reason::BackendGone));
    });
}

#[test]
fn b28_the_backend_is_the_one_that_the_balancing_node_chose() {
    for_each_world(|oracle, world| {
        let second = world.pod.replace("::5]", "::6]").replace(".1.5:", ".1.6:");
        for port in 41_000..41_010 {
            for pod in [world.pod, &second] {
                serve(oracle, 100, proto::UDP, world.vip, &[world.pod, &second], true);
                let client = world.client.replace("40000", &format!("{}", port + u32::from(pod == second) * 100));
                let frame = Frame::udp(&client, world.vip);
                let run = oracle.run(Hook::Ingress, UPLINK, &world.carry(&frame.build(), world.other, &ip(pod)));
                let delivered = frame.to(pod).ttl(63);
                let delivered = if pod == world.pod { delivered.macs(WORKLOAD_MAC, POD_MAC) } else { delivered };
                assert_frames_eq(&run.bytes, &delivered.build());
            }
        }
    });
}

#[test]
fn b28_only_what_is_for_a_backend_here_is_unpacked() {
    for_each_world(|oracle, world| {
        serve(oracle, 100, proto::TCP, world.vip, &[world.pod], true);
        oracle.serve(200, proto::UDP, &[world.vip], &[world.pod]);
        oracle.change_backend_flags(200, |flags| flags | backend_flags::LOCAL);
        let elsewhere = world.vip.replace(":80\"", ":81");
        let frame = Frame::tcp(world.client, world.vip);
        let unknown = world.vip.replace("113.80", "113.81").replace("80::80", "80::81");
        let mut cut = world.carry(&frame.build(), world.other, &ip(world.pod));
        cut.truncate(14 + world.overhead() + world.header + 3);
        let mut cases = vec![
            ("another address", world.carry(&frame.build(), world.other, &ip(world.client))),
            ("no frontend", world.carry(&Frame::tcp(world.client, &unknown).build(), world.other, &ip(world.pod))),
            (
                "without direct return",
                world.carry(&Frame::udp(world.client, &elsewhere).build(), world.other, &ip(world.pod)),
            ),
        ];
        let mut other = frame.build();
        other[if world.header == 20 { 23 } else { 20 }] = 47;
        cases.push(("another protocol", inside_as_is(&other, world)));
        if world.header == 20 {
            let mut piece = frame.build();
            piece[20] = 0x20;
            cases.push(("a fragment", inside_as_is(&piece, world)));
        }
        let known = oracle.memory.counters.get(&Reason::ForeignTunnel).copied().unwrap_or_default();
        for (count, (what, frame)) in (1..).zip(&cases) {
            let run = oracle.run(Hook::Ingress, UPLINK, frame);
            assert_eq!(run.outcome, Outcome::Pass, "{what}");
            assert_frames_eq(&run.bytes, frame);
            assert_eq!(oracle.memory.counters[&Reason::ForeignTunnel], known + count, "{what}");
        }
        oracle.change_backend_flags(100, |flags| flags & !backend_flags::LOCAL);
        let frame = world.carry(&frame.build(), world.other, &ip(world.pod));
        let run = oracle.run(Hook::Ingress, UPLINK, &frame);
        assert_eq!(run.outcome, Outcome::Pass, "a backend elsewhere");
        assert_eq!(flows(oracle), (0, 0));
    });
}

/// [`inside`] for what is no proper packet: the outer header is that of a proper one of the same length.
fn inside_as_is(frame: &[u8], world: World) -> Vec<u8> {
    let proper = Frame::tcp(world.client, world.vip).build();
    let mut bytes = world.carry(&proper, world.other, &ip(world.pod));
    bytes[14 + world.overhead()..].copy_from_slice(&frame[14..]);
    bytes
}

#[test]
fn b28_two_nodes_never_send_a_packet_to_and_fro() {
    for_each_world(|oracle, world| {
        // This node balances the connection and has sent it elsewhere; then the table of another node says that it is for here.
        serve(oracle, 100, proto::TCP, world.vip, &[world.far], false);
        let frame = Frame::tcp(world.client, world.vip);
        let run = oracle.run(Hook::Ingress, UPLINK, &frame.build());
        assert!(matches!(run.outcome, Outcome::Send(_)));
        serve(oracle, 100, proto::TCP, world.vip, &[world.pod], true);
        let run = oracle.run(Hook::Ingress, UPLINK, &world.carry(&frame.build(), world.other, &ip(world.pod)));
        assert_eq!(run.outcome, Outcome::Peer(oracle.ifindex(WORKLOAD)));
        assert_frames_eq(&run.bytes, &frame.to(world.pod).ttl(63).macs(WORKLOAD_MAC, POD_MAC).build());
    });
}

#[test]
fn b28_direct_server_return_is_for_clients_outside_and_backends_elsewhere() {
    for_each_world(|oracle, world| {
        serve(oracle, 100, proto::TCP, world.vip, &[world.far], false);
        let pod = world.pod.replace("8080", "50000");
        let frame = Frame::tcp(&pod, world.vip);
        let run = oracle.run(Hook::Ingress, WORKLOAD, &frame.build());
        assert_frames_eq(&run.bytes, &frame.to(world.far).ttl(63).macs(UPLINK_MAC, ROUTER_MAC).build());
        serve(oracle, 200, proto::UDP, world.vip, &[world.pod], true);
        let frame = Frame::udp(world.client, world.vip);
        let run = oracle.run(Hook::Ingress, UPLINK, &frame.build());
        assert_frames_eq(&run.bytes, &frame.to(world.pod).ttl(63).macs(WORKLOAD_MAC, POD_MAC).build());
    });
}

#[test]
fn b38_an_error_about_an_answer_reaches_the_backend_by_way_of_the_balancing_node() {
    for_each_world(|oracle, world| {
        let uplink = oracle.ifindex(UPLINK);
        serve(oracle, 100, proto::UDP, world.vip, &[world.far], false);
        oracle.run(Hook::Ingress, UPLINK, &Frame::udp(world.client, world.vip).build());
        let kind = if world.header == 20 { (3, 4) } else { (2, 0) };
        let router = if world.header == 20 { "198.51.100.1" } else { "2001:db8:7::1" };
        let seen = Frame::udp(world.vip, world.client).ttl(60).build();
        let sent = Frame::udp(world.far, world.client).ttl(60).build();
        let rest = [0, 0, 5, 0x14];
        let error = Message::error(router, &ip(world.vip), kind, &seen, 80).rest(rest).build();
        let expected = Message::error(router, &ip(world.far), kind, &sent, 80).rest(rest);
        for hook in [Hook::Xdp, Hook::Ingress] {
            let run = oracle.run(hook, UPLINK, &error);
            assert_eq!(run.outcome, Outcome::Send(uplink), "{hook:?}");
            assert_frames_eq(&run.bytes, &expected.clone().ttl(63).macs(UPLINK_MAC, ROUTER_MAC).build());
        }
    });
}

#[test]
fn b41_a_client_is_told_what_a_router_between_the_nodes_says_of_the_tunnel() {
    for_each_world(|oracle, world| {
        for (id, protocol) in [(100, proto::TCP), (200, proto::UDP), (300, proto::SCTP)] {
            serve(oracle, id, protocol, world.vip, &[world.far], false);
        }
        let (kind, router) = if world.header == 20 { ((3, 4), "198.51.100.1") } else { ((2, 0), "2001:db8:7::1") };
        let rest = |mtu: usize| [0, 0, (mtu >> 8) as u8, mtu as u8];
        for frame in each_transport(world.client, world.vip) {
            let frame = frame.payload(&[7; 1200]);
            let carried = oracle.run(Hook::Ingress, UPLINK, &frame.build()).bytes;
            let sent = frame.ttl(63).build();
            let about = |quoted| Message::error(router, world.node, kind, &carried, quoted).rest(rest(1280)).build();
            let told = |quoted| {
                Message::error(&ip(world.vip), &ip(world.client), kind, &sent, quoted)
                    .rest(rest(1280 - world.overhead()))
                    .plain()
                    .macs(UPLINK_MAC, ROUTER_MAC)
                    .build()
            };
            for quoted in [528, world.overhead() + world.header + 8] {
                let error = about(quoted);
                let run = oracle.run(Hook::Xdp, UPLINK, &error);
                assert_eq!(run.outcome, Outcome::Pass, "that is tc's");
                let run = oracle.run(Hook::Ingress, UPLINK, &error);
                assert_eq!(run.outcome, Outcome::Send(oracle.ifindex(UPLINK)));
                assert_frames_eq(&run.bytes, &told(quoted - world.overhead()));
            }
            // A router that quotes the least shows nobody's packet; and of other errors nobody has to learn.
            let unreachable = if world.header == 20 { (3, 1) } else { (1, 3) };
            let other = Message::error(router, world.node, unreachable, &carried, 528).build();
            let forged = Message::error(router, world.other, kind, &carried, 528).rest(rest(1280)).build();
            for error in [about(world.header + 8), other, forged] {
                let known = oracle.memory.counters.get(&Reason::IcmpQuote).copied().unwrap_or_default();
                let run = oracle.run(Hook::Ingress, UPLINK, &error);
                assert_eq!(run.outcome, Outcome::Pass);
                assert_frames_eq(&run.bytes, &error);
                assert_eq!(oracle.memory.counters[&Reason::IcmpQuote], known + 1);
            }
            let error = about(528);
            oracle.forget_embryos().unwrap();
            oracle.memory.v4.embryos.clear();
            oracle.memory.v6.embryos.clear();
            assert_eq!(oracle.run(Hook::Ingress, UPLINK, &error).outcome, Outcome::Pass, "of no connection");
        }
    });
}

#[test]
fn b28_pieces_and_options_of_a_connection_with_direct_server_return_end_here() {
    for_each_world(|oracle, world| {
        serve(oracle, 100, proto::UDP, world.vip, &[world.far], false);
        let mut frames = pieces(&Frame::udp(world.client, world.vip).payload(&[7; 2000]).build(), 1000, 7);
        if world.header == 40 {
            let options = (60, vec![0, 1, 4, 0, 0, 0, 0]);
            frames.push(Frame::udp(world.client, world.vip).extensions(&[options]).build());
        }
        for hook in [Hook::Ingress, Hook::Xdp] {
            let known = oracle.memory.counters.get(&Reason::NotTunnelled).copied().unwrap_or_default();
            for frame in &frames {
                let run = oracle.run(hook, UPLINK, frame);
                assert_eq!(run.outcome, Outcome::Drop(Reason::NotTunnelled), "{hook:?}");
                assert_frames_eq(&run.bytes, frame);
            }
            assert_eq!(oracle.memory.counters[&Reason::NotTunnelled], known + frames.len() as u64);
        }
        // Whole datagrams of the same connection go on.
        let run = oracle.run(Hook::Ingress, UPLINK, &Frame::udp(world.client, world.vip).build());
        assert_eq!(run.outcome, Outcome::Send(oracle.ifindex(UPLINK)));
    });
}

#[test]
fn b61_a_client_that_has_closed_gets_a_fresh_choice_for_its_next_connection() {
    for_each_world(|oracle, world| {
        let other = world.far.replace("::5]", "::6]").replace(".2.5:", ".2.6:");
        serve(oracle, 100, proto::TCP, world.vip, &[world.far], false);
        let syn = Frame::syn(world.client, world.vip);
        oracle.run(Hook::Ingress, UPLINK, &syn.build());
        oracle.set_backend(101, 100, &other);
        oracle.set_selection(100, &[101]);
        oracle.raise_epoch();
        // Over a connection that may be alive it is a retransmission; the backend's FIN is not seen here, the client's is.
        for (flags, expected) in [("S", world.far), ("F.", world.far), (".", world.far), ("S", &other)] {
            let frame = Frame::tcp(world.client, world.vip).flags(flags);
            let run = oracle.run(Hook::Ingress, UPLINK, &frame.build());
            let sent = frame.ttl(63).macs(UPLINK_MAC, ROUTER_MAC).build();
            world.assert_carried(&run.bytes, &world.carry(&sent, world.node, &ip(expected)));
        }
    });
}

#[test]
fn b28_a_recorded_connection_is_unpacked_for_its_own_backend_alone() {
    for_each_world(|oracle, world| {
        // Without direct server return, so that the record alone decides.
        oracle.serve(100, proto::TCP, &[world.vip], &[world.pod]);
        let request = Frame::syn(world.client, world.vip);
        oracle.run(Hook::Ingress, UPLINK, &request.build());
        let other = ip(world.pod).replace("244.1.5", "244.1.6").replace("1::5", "1::6");
        for (outer, foreign) in [(other, true), (ip(world.pod), false)] {
            let frame = world.carry(&request.build(), world.other, &outer);
            let run = oracle.run(Hook::Ingress, UPLINK, &frame);
            assert_eq!(run.bytes == frame, foreign, "to {outer}: {:?}", run.outcome);
        }
        assert_eq!(oracle.memory.counters[&Reason::ForeignTunnel], 1);
    });
}

#[test]
fn b28_what_this_node_puts_into_tunnels_it_does_not_take_out_again() {
    for_each_world(|oracle, world| {
        serve(oracle, 100, proto::TCP, world.vip, &[world.far], false);
        let request = Frame::syn(world.client, world.vip);
        let sent = oracle.run(Hook::Ingress, UPLINK, &request.build()).bytes;
        // On its way through this node once more, from another balancing node.
        for frame in [sent, world.carry(&request.build(), world.other, &ip(world.far))] {
            let run = oracle.run(Hook::Ingress, UPLINK, &frame);
            assert_eq!(run.outcome, Outcome::Pass);
            assert_frames_eq(&run.bytes, &frame);
        }
        // Nor for a backend here that is another service's.
        oracle.set_backend(300, 999, world.pod);
        oracle.change_backend_flags(300, |flags| flags | backend_flags::LOCAL);
        oracle.set_selection(100, &[300]);
        let frame = world.carry(
            &Frame::syn(&world.client.replace("40000", "40001"), world.vip).build(),
            world.other,
            &ip(world.pod),
        );
        let run = oracle.run(Hook::Ingress, UPLINK, &frame);
        assert_eq!(run.outcome, Outcome::Pass);
        assert_frames_eq(&run.bytes, &frame);
    });
}
