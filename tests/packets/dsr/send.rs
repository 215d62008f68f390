//! What the balancing node puts into packets to the backend's node.

use svc_common::{
    maps::{flow_flags, flow_state},
    net::proto,
    outcome::Outcome,
    packet::Hook,
    reason::Reason,
    wire::sctp_chunk,
};
use svc_tests::{
    oracle::{POD_MAC, ROUTER_MAC, UPLINK, UPLINK_MAC, WORKLOAD, WORKLOAD_MAC},
    packet::{Frame, assert_frames_eq},
    pieces::pieces,
};

use super::{flows, for_each_world, ip, serve};

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
        oracle.forget_embryos();
        let again = oracle.run(Hook::Ingress, UPLINK, &frame);
        assert_eq!((again.outcome, again.bytes), (first.outcome, first.bytes));
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
fn the_outer_packet_has_the_traffic_class_of_the_inner_one() {
    for_each_world(|oracle, world| {
        serve(oracle, 100, proto::UDP, world.vip, &[world.far], false);
        let mut frame = Frame::udp(world.client, world.vip).build();
        if world.header == 20 {
            let (mut ip, _) = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap();
            ip.dscp = 46.try_into().unwrap();
            ip.header_checksum = ip.calc_header_checksum();
            frame[14..34].copy_from_slice(&ip.to_bytes());
        } else {
            (frame[14], frame[15]) = (0x6b, 0x80);
        }
        let run = oracle.run(Hook::Ingress, UPLINK, &frame);
        assert!(matches!(run.outcome, Outcome::Send(_)), "{run:?}");
        assert_eq!(run.bytes[14] & 0xf0, frame[14] & 0xf0);
        // IPv6 has half of it in the first byte.
        let mask = if world.header == 20 { 0 } else { 0xf };
        assert_eq!((run.bytes[14] & mask, run.bytes[15] & 0xfc), (frame[14] & mask, frame[15] & 0xfc));
        let inner = 14 + world.overhead();
        assert_eq!(run.bytes[inner..inner + 2], frame[14..16]);
    });
}
