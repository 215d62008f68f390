//! The life of a connection: half-open, established, finished, repaired, moved.

use svc_common::{
    maps::{flow_flags, flow_state},
    net::proto,
    outcome::Outcome,
    packet::Hook,
    reason::Reason,
};
use svc_tests::{
    oracle::{FLOWS, Oracle, UPLINK, with_oracle},
    packet::{Frame, assert_frames_eq},
};

const VIP: &str = "10.96.0.10:80";
const CLIENT: &str = "198.51.100.7:40000";
const BACKEND: &str = "10.244.1.5:8080";

#[track_caller]
fn request(oracle: &mut Oracle, frame: Frame) -> Outcome {
    oracle.run(Hook::Ingress, UPLINK, &frame.build()).outcome
}

#[track_caller]
fn reply(oracle: &mut Oracle, frame: Frame) -> Outcome {
    oracle.run(Hook::Egress, UPLINK, &frame.build()).outcome
}

/// (established, half-open) entries of IPv4.
fn sizes(oracle: &Oracle) -> (usize, usize) {
    (oracle.memory.v4.flows.len(), oracle.memory.v4.embryos.len())
}

fn establish(oracle: &mut Oracle) {
    oracle.serve(100, proto::TCP, &[VIP], &[BACKEND]);
    request(oracle, Frame::syn(CLIENT, VIP));
    reply(oracle, Frame::tcp(BACKEND, CLIENT).flags("S."));
    request(oracle, Frame::tcp(CLIENT, VIP));
    assert_eq!(sizes(oracle), (2, 0));
}

#[test]
fn b23_only_the_clients_packet_after_an_answer_establishes() {
    with_oracle(|oracle| {
        oracle.serve(100, proto::TCP, &[VIP], &[BACKEND]);
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
                request(oracle, Frame::tcp(CLIENT, VIP).flags(flags));
            } else {
                reply(oracle, Frame::tcp(BACKEND, CLIENT).flags(flags));
            }
            assert_eq!(sizes(oracle), expected, "after step {step}");
        }
        for flow in oracle.memory.v4.flows.values() {
            assert_ne!(flow.state & flow_state::ESTABLISHED, 0);
        }
    });
}

#[test]
fn b23_a_one_way_datagram_flow_stays_half_open() {
    with_oracle(|oracle| {
        oracle.serve(100, proto::UDP, &[VIP], &[BACKEND]);
        for _ in 0..5 {
            assert_eq!(request(oracle, Frame::udp(CLIENT, VIP)), Outcome::Deliver);
        }
        assert_eq!(sizes(oracle), (0, 2));
        reply(oracle, Frame::udp(BACKEND, CLIENT));
        request(oracle, Frame::udp(CLIENT, VIP));
        assert_eq!(sizes(oracle), (2, 0));
    });
}

#[test]
fn b23_a_full_table_keeps_live_connections_and_serves_new_ones_from_the_half_open_table() {
    with_oracle(|oracle| {
        oracle.serve(100, proto::TCP, &[VIP], &[BACKEND]);
        let connections = FLOWS / 2 + 4;
        for port in 0..connections {
            let client = format!("198.51.100.7:{}", 10_000 + port);
            request(oracle, Frame::syn(&client, VIP));
            reply(oracle, Frame::tcp(BACKEND, &client).flags("S."));
            for _ in 0..2 {
                assert_eq!(request(oracle, Frame::tcp(&client, VIP)), Outcome::Deliver, "connection {port}");
                assert_eq!(reply(oracle, Frame::tcp(BACKEND, &client)), Outcome::Deliver, "connection {port}");
            }
        }
        assert_eq!(sizes(oracle), (FLOWS as usize, 8));
        assert_eq!(oracle.memory.counters[&Reason::PromotionRefused], 8);
    });
}

#[test]
fn b16_a_syn_over_a_finished_connection_opens_a_new_one() {
    for end in ["FIN from both", "RST from the client", "RST from the backend"] {
        with_oracle(move |oracle| {
            establish(oracle);
            match end {
                "FIN from both" => {
                    request(oracle, Frame::tcp(CLIENT, VIP).flags("F."));
                    reply(oracle, Frame::tcp(BACKEND, CLIENT).flags("F."));
                }
                "RST from the client" => {
                    request(oracle, Frame::tcp(CLIENT, VIP).flags("R"));
                }
                _ => {
                    reply(oracle, Frame::tcp(BACKEND, CLIENT).flags("R."));
                }
            }
            // Meanwhile the service has another backend only.
            oracle.set_backend(101, 100, "10.244.1.6:8080");
            oracle.set_selection(100, &[101]);
            oracle.raise_epoch();
            let syn = Frame::syn(CLIENT, VIP);
            let run = oracle.run(Hook::Ingress, UPLINK, &syn.build());
            assert_frames_eq(&run.bytes, &syn.to("10.244.1.6:8080").build());
            assert_eq!(sizes(oracle), (0, 2), "{end}");
            assert!(oracle.memory.v4.embryos.values().all(|flow| flow.packets <= 1 && flow.state == 0));
        });
    }
}

#[test]
fn b16_a_syn_over_a_live_connection_is_a_retransmission() {
    with_oracle(|oracle| {
        establish(oracle);
        oracle.set_backend(101, 100, "10.244.1.6:8080");
        oracle.set_selection(100, &[101]);
        oracle.raise_epoch();
        let syn = Frame::syn(CLIENT, VIP);
        let run = oracle.run(Hook::Ingress, UPLINK, &syn.build());
        assert_frames_eq(&run.bytes, &syn.to(BACKEND).build());
        assert_eq!(sizes(oracle), (2, 0));
    });
}

#[test]
fn b17_data_after_an_rst_revives_the_connection() {
    with_oracle(|oracle| {
        establish(oracle);
        let dead =
            |oracle: &Oracle| oracle.memory.v4.flows.values().filter(|flow| flow.state & flow_state::RST != 0).count();
        reply(oracle, Frame::tcp(BACKEND, CLIENT).flags("R."));
        assert_eq!(dead(oracle), 2, "both directions know");
        assert_eq!(request(oracle, Frame::tcp(CLIENT, VIP)), Outcome::Deliver);
        assert_eq!(dead(oracle), 0);
    });
}

#[test]
fn b18_each_fin_is_remembered_by_both_directions() {
    with_oracle(|oracle| {
        establish(oracle);
        request(oracle, Frame::tcp(CLIENT, VIP).flags("F."));
        for flow in oracle.memory.v4.flows.values() {
            let expected = if flow.flags & flow_flags::REVERSE == 0 { flow_state::FIN } else { flow_state::PEER_FIN };
            assert_eq!(flow.state & (flow_state::FIN | flow_state::PEER_FIN), expected);
        }
        assert_eq!(reply(oracle, Frame::tcp(BACKEND, CLIENT)), Outcome::Deliver, "the other half stays open");
        reply(oracle, Frame::tcp(BACKEND, CLIENT).flags("F."));
        for flow in oracle.memory.v4.flows.values() {
            assert_eq!(flow.state & (flow_state::FIN | flow_state::PEER_FIN), flow_state::FIN | flow_state::PEER_FIN);
        }
    });
}

#[test]
fn b21_a_lost_direction_comes_back_with_the_next_second() {
    for lost in ["forward", "reverse"] {
        with_oracle(move |oracle| {
            establish(oracle);
            let before = oracle.memory.v4.flows.clone();
            // One direction vanishes; the other was last seen in another second.
            oracle.edit_flows_v4(|_, flow| {
                flow.seen_s = 77;
                (flow.flags & flow_flags::REVERSE != 0) != (lost == "reverse")
            });
            assert_eq!(sizes(oracle), (1, 0));
            if lost == "reverse" {
                request(oracle, Frame::tcp(CLIENT, VIP));
            } else {
                reply(oracle, Frame::tcp(BACKEND, CLIENT));
            }
            assert_eq!(sizes(oracle), (2, 0));
            assert_eq!(oracle.memory.counters[&Reason::PartnerRestored], 1);
            for (key, flow) in &oracle.memory.v4.flows {
                let old = before[key];
                assert_eq!((flow.src, flow.dst, flow.sport, flow.dport), (old.src, old.dst, old.sport, old.dport));
                assert_eq!((flow.addr_delta, flow.port_delta, flow.flags), (old.addr_delta, old.port_delta, old.flags));
                assert_eq!(flow.state, old.state);
            }
        });
    }
}

#[test]
fn b21_a_packet_of_either_direction_keeps_both_alive() {
    for from_client in [true, false] {
        with_oracle(move |oracle| {
            establish(oracle);
            oracle.edit_flows_v4(|_, flow| {
                flow.seen_s = 77;
                true
            });
            if from_client {
                request(oracle, Frame::tcp(CLIENT, VIP));
            } else {
                reply(oracle, Frame::tcp(BACKEND, CLIENT));
            }
            // The clock of these tests stands at zero.
            assert!(oracle.memory.v4.flows.values().all(|flow| flow.seen_s == 0));
        });
    }
}

#[test]
fn b22_a_segment_without_a_flow_goes_to_the_hashed_backend() {
    with_oracle(|oracle| {
        let backends = ["10.244.1.5:80", "10.244.1.6:80", "10.244.1.7:80"];
        oracle.serve(100, proto::TCP, &[VIP], &backends);
        let syn = oracle.run(Hook::Ingress, UPLINK, &Frame::syn(CLIENT, VIP).build());
        oracle.edit_flows_v4(|_, _| false);
        assert_eq!(sizes(oracle), (0, 0));
        let data = oracle.run(Hook::Ingress, UPLINK, &Frame::tcp(CLIENT, VIP).build());
        assert_eq!(data.outcome, Outcome::Deliver);
        assert_eq!(data.bytes[30..38], syn.bytes[30..38], "the same backend as its SYN");
    });
}

#[test]
fn b26_a_datagram_flow_moves_with_its_next_packet() {
    with_oracle(|oracle| {
        oracle.serve(100, proto::UDP, &[VIP], &[BACKEND]);
        for established in [false, true] {
            oracle.edit_flows_v4(|_, _| false);
            oracle.set_backend(100, 100, BACKEND);
            oracle.set_selection(100, &[100]);
            oracle.raise_epoch();
            request(oracle, Frame::udp(CLIENT, VIP));
            if established {
                reply(oracle, Frame::udp(BACKEND, CLIENT));
                request(oracle, Frame::udp(CLIENT, VIP));
                assert_eq!(sizes(oracle), (2, 0));
            }
            // The backend leaves, another one comes.
            oracle.set_backend(101, 100, "10.244.1.6:8080");
            oracle.set_selection(100, &[101]);
            oracle.remove_backend(100);
            oracle.raise_epoch();
            let query = Frame::udp(CLIENT, VIP);
            let run = oracle.run(Hook::Ingress, UPLINK, &query.build());
            assert_frames_eq(&run.bytes, &query.to("10.244.1.6:8080").build());
            assert_eq!(sizes(oracle), (0, 2), "the old flow is gone, both directions");
        }
    });
}

#[test]
fn b26_a_datagram_flow_ends_with_its_service_or_its_last_backend() {
    for end in ["service deleted", "no backend left", "backend serves another service"] {
        with_oracle(move |oracle| {
            oracle.serve(100, proto::UDP, &[VIP], &[BACKEND]);
            request(oracle, Frame::udp(CLIENT, VIP));
            let expected = match end {
                "service deleted" => {
                    oracle.remove_frontend(VIP, proto::UDP);
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
                    oracle.set_backend(100, 999, BACKEND);
                    Outcome::Send(oracle.ifindex(UPLINK))
                }
            };
            oracle.raise_epoch();
            assert_eq!(request(oracle, Frame::udp(CLIENT, VIP)), expected, "{end}");
            assert_eq!(sizes(oracle), (0, 0), "{end}");
        });
    }
}

#[test]
fn b60_a_tcp_connection_to_a_removed_backend_runs_until_it_ends() {
    with_oracle(|oracle| {
        establish(oracle);
        oracle.set_backend(101, 100, "10.244.1.6:8080");
        oracle.set_selection(100, &[101]);
        oracle.remove_backend(100);
        oracle.raise_epoch();
        let data = Frame::tcp(CLIENT, VIP);
        let run = oracle.run(Hook::Ingress, UPLINK, &data.build());
        assert_frames_eq(&run.bytes, &data.to(BACKEND).build());
        // B61: but a new connection with the same tuple goes elsewhere.
        let syn = Frame::syn(CLIENT, VIP);
        oracle.raise_epoch();
        let run = oracle.run(Hook::Ingress, UPLINK, &syn.build());
        assert_frames_eq(&run.bytes, &syn.to("10.244.1.6:8080").build());
    });
}
