//! NodePorts, which are known by their port alone.

use svc_common::{
    maps::{Frontend, frontend_flags},
    net::proto,
    outcome::Outcome,
    packet::Hook,
    reason::Reason,
};
use svc_tests::{
    oracle::{Oracle, POD_MAC, ROUTER_MAC, UPLINK, UPLINK_MAC, WORKLOAD, WORKLOAD_MAC},
    packet::{Frame, assert_frames_eq},
};

use super::{World, each_transport, flows, for_each_world, ip, serve};

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
