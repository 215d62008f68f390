//! Packets that are too long for a tunnel, and errors about those inside of it.

use svc_common::{net::proto, outcome::Outcome, packet::Hook, reason::Reason};
use svc_tests::{
    message::Message,
    oracle::{ROUTER_MAC, UPLINK, UPLINK_MAC},
    packet::{Frame, assert_frames_eq},
};

use super::{each_transport, for_each_world, ip, serve};

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
            oracle.forget_embryos();
            assert_eq!(oracle.run(Hook::Ingress, UPLINK, &error).outcome, Outcome::Pass, "of no connection");
        }
    });
}
