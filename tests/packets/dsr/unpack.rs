//! What the backend's node takes out of packets, and what it leaves alone.

use svc_common::{maps::backend_flags, net::proto, outcome::Outcome, packet::Hook, reason::Reason, wire::sctp_chunk};
use svc_tests::{
    oracle::{POD_MAC, ROUTER_MAC, UPLINK, UPLINK_MAC, WORKLOAD, WORKLOAD_MAC},
    packet::{Frame, assert_frames_eq},
};

use super::{World, flows, for_each_world, ip, serve};

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

/// [`World::carry`] for what is no proper packet: the outer header is that of a proper one of the same length.
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
