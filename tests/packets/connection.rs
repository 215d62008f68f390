//! The life of a connection: half-open, established, finished, repaired, moved.

use svc_common::{
    maps::{flow_flags, flow_state},
    net::proto,
    outcome::Outcome,
    packet::Hook,
    reason::Reason,
};
use svc_tests::{
    oracle::{FLOWS, Oracle, UPLINK, flows::Direction, with_oracle},
    packet::{Frame, assert_frames_eq},
};

/// A family's addresses: world.vip, client, and the backends that the service has.
#[derive(Clone, Copy)]
struct World {
    vip: &'static str,
    client: &'static str,
    backend: &'static str,
    other: &'static str,
    third: &'static str,
}

const WORLDS: [World; 2] = [
    World {
        vip: "10.96.0.10:80",
        client: "198.51.100.7:40000",
        backend: "10.244.1.5:8080",
        other: "10.244.1.6:8080",
        third: "10.244.1.7:8080",
    },
    World {
        vip: "[fd00:96::10]:80",
        client: "[2001:db8:7::7]:40000",
        backend: "[fd00:244:1::5]:8080",
        other: "[fd00:244:1::6]:8080",
        third: "[fd00:244:1::7]:8080",
    },
];

/// In either family, with tables of its own.
fn in_each_family(test: impl Fn(&mut Oracle, World) + Copy + Send + 'static) {
    for world in WORLDS {
        with_oracle(move |oracle| test(oracle, world));
    }
}

#[track_caller]
fn request(oracle: &mut Oracle, frame: Frame) -> Outcome {
    oracle.run(Hook::Ingress, UPLINK, &frame.build()).outcome
}

#[track_caller]
fn reply(oracle: &mut Oracle, frame: Frame) -> Outcome {
    oracle.run(Hook::Egress, UPLINK, &frame.build()).outcome
}

/// (established, half-open) entries.
fn sizes(oracle: &Oracle) -> (usize, usize) {
    (oracle.established().len(), oracle.half_open().len())
}

fn establish(oracle: &mut Oracle, world: World) {
    oracle.serve(100, proto::TCP, &[world.vip], &[world.backend]);
    request(oracle, Frame::syn(world.client, world.vip));
    reply(oracle, Frame::tcp(world.backend, world.client).flags("S."));
    request(oracle, Frame::tcp(world.client, world.vip));
    assert_eq!(sizes(oracle), (2, 0));
}

#[test]
fn b23_only_the_clients_packet_after_an_answer_establishes() {
    in_each_family(|oracle, world| {
        oracle.serve(100, proto::TCP, &[world.vip], &[world.backend]);
        let steps: [(bool, &str, (usize, usize)); 7] = [
            (true, "S", (0, 2)),
            (true, ".", (0, 2)),
            (true, ".", (0, 2)),
            (false, "S.", (0, 2)),
            (false, "S.", (0, 2)),
            (true, "S", (0, 2)),
            (true, ".", (2, 0)),
        ];
        for (step, (from_client, flags, expected)) in steps.into_iter().enumerate() {
            if from_client {
                request(oracle, Frame::tcp(world.client, world.vip).flags(flags));
            } else {
                reply(oracle, Frame::tcp(world.backend, world.client).flags(flags));
            }
            assert_eq!(sizes(oracle), expected, "after step {step}");
        }
        for flow in oracle.established() {
            assert_ne!(flow.state & flow_state::ESTABLISHED, 0);
        }
    });
}

#[test]
fn b23_a_one_way_datagram_flow_stays_half_open() {
    in_each_family(|oracle, world| {
        oracle.serve(100, proto::UDP, &[world.vip], &[world.backend]);
        for _ in 0..5 {
            assert_eq!(request(oracle, Frame::udp(world.client, world.vip)), Outcome::Deliver);
        }
        assert_eq!(sizes(oracle), (0, 2));
        reply(oracle, Frame::udp(world.backend, world.client));
        request(oracle, Frame::udp(world.client, world.vip));
        assert_eq!(sizes(oracle), (2, 0));
    });
}

#[test]
fn b23_a_full_table_keeps_live_connections_and_serves_new_ones_from_the_half_open_table() {
    in_each_family(|oracle, world| {
        oracle.serve(100, proto::TCP, &[world.vip], &[world.backend]);
        let connections = FLOWS / 2 + 4;
        for port in 0..connections {
            let client = world.client.replace("40000", &(10_000 + port).to_string());
            request(oracle, Frame::syn(&client, world.vip));
            reply(oracle, Frame::tcp(world.backend, &client).flags("S."));
            for _ in 0..2 {
                assert_eq!(request(oracle, Frame::tcp(&client, world.vip)), Outcome::Deliver, "connection {port}");
                assert_eq!(reply(oracle, Frame::tcp(world.backend, &client)), Outcome::Deliver, "connection {port}");
            }
        }
        assert_eq!(sizes(oracle), (FLOWS as usize, 8));
        assert_eq!(oracle.memory.counters[&Reason::PromotionRefused], 8);
        // Nor does the sweep take them for established ones.
        assert!(oracle.half_open().iter().all(|flow| flow.state & flow_state::ESTABLISHED == 0));
    });
}

#[test]
fn b16_a_syn_over_a_finished_connection_opens_a_new_one() {
    for end in ["FIN from both", "RST from the client", "RST from the backend"] {
        in_each_family(move |oracle, world| {
            establish(oracle, world);
            match end {
                "FIN from both" => {
                    request(oracle, Frame::tcp(world.client, world.vip).flags("F."));
                    reply(oracle, Frame::tcp(world.backend, world.client).flags("F."));
                }
                "RST from the client" => {
                    request(oracle, Frame::tcp(world.client, world.vip).flags("R"));
                }
                _ => {
                    reply(oracle, Frame::tcp(world.backend, world.client).flags("R."));
                }
            }
            // Meanwhile the service has another backend only.
            oracle.set_backend(101, 100, world.other);
            oracle.set_selection(100, &[101]);
            oracle.raise_epoch();
            let syn = Frame::syn(world.client, world.vip);
            let run = oracle.run(Hook::Ingress, UPLINK, &syn.build());
            assert_frames_eq(&run.bytes, &syn.to(world.other).build());
            assert_eq!(sizes(oracle), (0, 2), "{end}");
            assert!(oracle.half_open().iter().all(|flow| flow.packets <= 1 && flow.state == 0));
        });
    }
}

#[test]
fn b16_a_syn_over_a_live_connection_is_a_retransmission() {
    in_each_family(|oracle, world| {
        establish(oracle, world);
        oracle.set_backend(101, 100, world.other);
        oracle.set_selection(100, &[101]);
        oracle.raise_epoch();
        let syn = Frame::syn(world.client, world.vip);
        let run = oracle.run(Hook::Ingress, UPLINK, &syn.build());
        assert_frames_eq(&run.bytes, &syn.to(world.backend).build());
        assert_eq!(sizes(oracle), (2, 0));
    });
}

#[test]
fn b18_a_syn_over_a_half_closed_connection_is_a_retransmission() {
    for from_client in [true, false] {
        in_each_family(move |oracle, world| {
            establish(oracle, world);
            if from_client {
                request(oracle, Frame::tcp(world.client, world.vip).flags("F."));
            } else {
                reply(oracle, Frame::tcp(world.backend, world.client).flags("F."));
            }
            oracle.set_backend(101, 100, world.other);
            oracle.set_selection(100, &[101]);
            oracle.raise_epoch();
            let syn = Frame::syn(world.client, world.vip);
            let run = oracle.run(Hook::Ingress, UPLINK, &syn.build());
            assert_frames_eq(&run.bytes, &syn.to(world.backend).build());
            assert_eq!(sizes(oracle), (2, 0));
        });
    }
}

#[test]
fn b21_with_room_for_one_direction_alone_a_connection_stays_half_open() {
    in_each_family(|oracle, world| {
        oracle.serve(100, proto::TCP, &[world.vip], &[world.backend]);
        let client = |port: u32| world.client.replace("40000", &(10_000 + port).to_string());
        let open = |oracle: &mut Oracle, client: &str| {
            request(oracle, Frame::syn(client, world.vip));
            reply(oracle, Frame::tcp(world.backend, client).flags("S."));
            request(oracle, Frame::tcp(client, world.vip));
        };
        for port in 0..FLOWS / 2 {
            open(oracle, &client(port));
        }
        let lost = oracle.established().into_iter().find(|flow| flow.flags & flow_flags::REVERSE != 0).unwrap();
        oracle.edit_flows(|flow| flow.key != lost.key);
        assert_eq!(sizes(oracle), (FLOWS as usize - 1, 0));
        open(oracle, &client(FLOWS));
        assert_eq!(sizes(oracle), (FLOWS as usize - 1, 2));
        assert_eq!(oracle.memory.counters[&Reason::PromotionRefused], 1);
    });
}

#[test]
fn every_packet_of_a_connection_is_counted_in_its_direction() {
    in_each_family(|oracle, world| {
        oracle.set_clock(5_000);
        establish(oracle, world);
        for _ in 0..3 {
            request(oracle, Frame::tcp(world.client, world.vip));
        }
        // At a change of the world, and at its end.
        oracle.raise_epoch();
        request(oracle, Frame::tcp(world.client, world.vip));
        reply(oracle, Frame::tcp(world.backend, world.client).flags("F."));
        let packets = |reverse: bool| {
            let flows = oracle.established();
            let of = flows.iter().find(|flow| (flow.flags & flow_flags::REVERSE != 0) == reverse).unwrap();
            of.packets
        };
        assert_eq!((packets(false), packets(true)), (6, 2));
        // And when it began.
        let client = world.client.replace("40000", "40001");
        request(oracle, Frame::syn(&client, world.vip));
        assert_eq!(oracle.half_open().iter().map(|flow| flow.seen_s).collect::<Vec<_>>(), [5_000; 2]);
    });
}

#[test]
fn b17_data_after_an_rst_revives_the_connection() {
    in_each_family(|oracle, world| {
        establish(oracle, world);
        let dead =
            |oracle: &Oracle| oracle.established().iter().filter(|flow| flow.state & flow_state::RST != 0).count();
        reply(oracle, Frame::tcp(world.backend, world.client).flags("R."));
        assert_eq!(dead(oracle), 2, "both directions know");
        assert_eq!(request(oracle, Frame::tcp(world.client, world.vip)), Outcome::Deliver);
        assert_eq!(dead(oracle), 0);
    });
}

#[test]
fn b18_each_fin_is_remembered_by_both_directions() {
    in_each_family(|oracle, world| {
        establish(oracle, world);
        request(oracle, Frame::tcp(world.client, world.vip).flags("F."));
        for flow in oracle.established() {
            let expected = if flow.flags & flow_flags::REVERSE == 0 { flow_state::FIN } else { flow_state::PEER_FIN };
            assert_eq!(flow.state & (flow_state::FIN | flow_state::PEER_FIN), expected);
        }
        assert_eq!(
            reply(oracle, Frame::tcp(world.backend, world.client)),
            Outcome::Deliver,
            "the other half stays open"
        );
        reply(oracle, Frame::tcp(world.backend, world.client).flags("F."));
        for flow in oracle.established() {
            assert_eq!(flow.state & (flow_state::FIN | flow_state::PEER_FIN), flow_state::FIN | flow_state::PEER_FIN);
        }
    });
}

#[test]
fn b21_a_lost_direction_comes_back_with_the_next_second() {
    for lost in ["forward", "reverse"] {
        in_each_family(move |oracle, world| {
            establish(oracle, world);
            let before = oracle.established();
            // One direction vanishes; the other was last seen in another second.
            oracle.edit_flows(|flow| {
                flow.seen_s = 77;
                (flow.flags & flow_flags::REVERSE != 0) != (lost == "reverse")
            });
            assert_eq!(sizes(oracle), (1, 0));
            if lost == "reverse" {
                request(oracle, Frame::tcp(world.client, world.vip));
            } else {
                reply(oracle, Frame::tcp(world.backend, world.client));
            }
            assert_eq!(sizes(oracle), (2, 0));
            assert_eq!(oracle.memory.counters[&Reason::PartnerRestored], 1);
            let same = |flow: &Direction| (flow.key, flow.becomes, flow.deltas, flow.flags, flow.state);
            let after = oracle.established();
            assert_eq!(after.iter().map(same).collect::<Vec<_>>(), before.iter().map(same).collect::<Vec<_>>());
        });
    }
}

#[test]
fn b21_a_packet_of_either_direction_keeps_both_alive() {
    for from_client in [true, false] {
        in_each_family(move |oracle, world| {
            establish(oracle, world);
            oracle.edit_flows(|flow| {
                flow.seen_s = 77;
                true
            });
            if from_client {
                request(oracle, Frame::tcp(world.client, world.vip));
            } else {
                reply(oracle, Frame::tcp(world.backend, world.client));
            }
            // The clock of these tests stands at zero.
            assert!(oracle.established().iter().all(|flow| flow.seen_s == 0));
        });
    }
}

#[test]
fn b22_a_segment_without_a_flow_goes_to_the_hashed_backend() {
    in_each_family(|oracle, world| {
        let backends = [world.backend, world.other, world.third];
        oracle.serve(100, proto::TCP, &[world.vip], &backends);
        let syn = oracle.run(Hook::Ingress, UPLINK, &Frame::syn(world.client, world.vip).build());
        oracle.edit_flows(|_| false);
        assert_eq!(sizes(oracle), (0, 0));
        let data = oracle.run(Hook::Ingress, UPLINK, &Frame::tcp(world.client, world.vip).build());
        assert_eq!(data.outcome, Outcome::Deliver);
        // Destination and ports.
        let backend = if syn.bytes[12] == 0x08 { 30..38 } else { 38..58 };
        assert_eq!(data.bytes[backend.clone()], syn.bytes[backend], "the same backend as its SYN");
    });
}

#[test]
fn b26_a_datagram_flow_moves_with_its_next_packet() {
    in_each_family(|oracle, world| {
        oracle.serve(100, proto::UDP, &[world.vip], &[world.backend]);
        for established in [false, true] {
            oracle.edit_flows(|_| false);
            oracle.set_backend(100, 100, world.backend);
            oracle.set_selection(100, &[100]);
            oracle.raise_epoch();
            request(oracle, Frame::udp(world.client, world.vip));
            if established {
                reply(oracle, Frame::udp(world.backend, world.client));
                request(oracle, Frame::udp(world.client, world.vip));
                assert_eq!(sizes(oracle), (2, 0));
            }
            // The backend leaves, another one comes.
            oracle.set_backend(101, 100, world.other);
            oracle.set_selection(100, &[101]);
            oracle.remove_backend(100);
            oracle.raise_epoch();
            let query = Frame::udp(world.client, world.vip);
            let run = oracle.run(Hook::Ingress, UPLINK, &query.build());
            assert_frames_eq(&run.bytes, &query.to(world.other).build());
            assert_eq!(sizes(oracle), (0, 2), "the old flow is gone, both directions");
        }
    });
}

#[test]
fn b26_a_datagram_flow_ends_with_its_service_or_its_last_backend() {
    for end in ["service deleted", "no backend left", "backend serves another service"] {
        in_each_family(move |oracle, world| {
            oracle.serve(100, proto::UDP, &[world.vip], &[world.backend]);
            request(oracle, Frame::udp(world.client, world.vip));
            let expected = match end {
                "service deleted" => {
                    oracle.remove_frontend(world.vip, proto::UDP);
                    oracle.remove_backend(100);
                    Outcome::Pass
                }
                "no backend left" => {
                    oracle.set_empty_selection(100, svc_common::maps::Selection::REJECT);
                    oracle.remove_backend(100);
                    Outcome::Send(oracle.ifindex(UPLINK))
                }
                _ => {
                    // B63: the address now belongs to a pod of another service, even under the same id.
                    oracle.set_empty_selection(100, svc_common::maps::Selection::REJECT);
                    oracle.set_backend(100, 999, world.backend);
                    Outcome::Send(oracle.ifindex(UPLINK))
                }
            };
            oracle.raise_epoch();
            assert_eq!(request(oracle, Frame::udp(world.client, world.vip)), expected, "{end}");
            assert_eq!(sizes(oracle), (0, 0), "{end}");
        });
    }
}

#[test]
fn b60_a_tcp_connection_to_a_removed_backend_runs_until_it_ends() {
    in_each_family(|oracle, world| {
        establish(oracle, world);
        oracle.set_backend(101, 100, world.other);
        oracle.set_selection(100, &[101]);
        oracle.remove_backend(100);
        oracle.raise_epoch();
        let data = Frame::tcp(world.client, world.vip);
        let run = oracle.run(Hook::Ingress, UPLINK, &data.build());
        assert_frames_eq(&run.bytes, &data.to(world.backend).build());
        // B61: but a new connection with the same tuple goes elsewhere.
        let syn = Frame::syn(world.client, world.vip);
        oracle.raise_epoch();
        let run = oracle.run(Hook::Ingress, UPLINK, &syn.build());
        assert_frames_eq(&run.bytes, &syn.to(world.other).build());
    });
}
