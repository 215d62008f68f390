//! Ends of connections, and what a SYN over them means.

use svc_common::maps::{flow_flags, flow_state};
use svc_tests::{
    oracle::Oracle,
    packet::{Frame, assert_frames_eq},
};

use crate::ways::{Way, on_each_way, sizes};

/// The client's SYN reaches a backend.
#[track_caller]
fn expect_syn_at(oracle: &mut Oracle, way: Way, backend: &str) {
    let syn = Frame::syn(way.client, way.vip);
    let run = way.request(oracle, &syn);
    assert_frames_eq(&run.bytes, &way.to(&syn, backend));
}

#[test]
fn b16_a_syn_over_a_finished_connection_opens_a_new_one() {
    on_each_way(|oracle, way| {
        for end in ["FIN from both", "RST from the client", "RST from the backend"] {
            oracle.reset();
            way.establish(oracle);
            match end {
                "FIN from both" => {
                    way.request(oracle, &Frame::tcp(way.client, way.vip).flags("F."));
                    way.reply(oracle, &Frame::tcp(way.backend, way.seen).flags("F."));
                }
                "RST from the client" => {
                    way.request(oracle, &Frame::tcp(way.client, way.vip).flags("R"));
                }
                _ => {
                    way.reply(oracle, &Frame::tcp(way.backend, way.seen).flags("R."));
                }
            }
            // Meanwhile the service has another backend only.
            way.replace_backend(oracle, way.other);
            expect_syn_at(oracle, way, way.other);
            assert_eq!(sizes(oracle), (0, 2), "{end}");
            assert!(oracle.half_open().iter().all(|flow| flow.packets <= 1 && flow.state == 0));
        }
    });
}

#[test]
fn b16_a_syn_over_a_live_connection_is_a_retransmission() {
    on_each_way(|oracle, way| {
        way.establish(oracle);
        way.replace_backend(oracle, way.other);
        expect_syn_at(oracle, way, way.backend);
        assert_eq!(sizes(oracle), (2, 0));
    });
}

#[test]
fn b16_only_a_syn_alone_opens_a_connection_over_a_finished_one() {
    on_each_way(|oracle, way| {
        way.establish(oracle);
        way.reply(oracle, &Frame::tcp(way.backend, way.seen).flags("R."));
        way.replace_backend(oracle, way.other);
        for flags in ["S.", ".", "F."] {
            let segment = Frame::tcp(way.client, way.vip).flags(flags);
            let run = way.request(oracle, &segment);
            assert_frames_eq(&run.bytes, &way.to(&segment, way.backend));
        }
    });
}

#[test]
fn b18_a_syn_over_a_half_closed_connection_is_a_retransmission() {
    on_each_way(|oracle, way| {
        for from_client in [true, false] {
            oracle.reset();
            way.establish(oracle);
            if from_client {
                way.request(oracle, &Frame::tcp(way.client, way.vip).flags("F."));
            } else {
                way.reply(oracle, &Frame::tcp(way.backend, way.seen).flags("F."));
            }
            way.replace_backend(oracle, way.other);
            expect_syn_at(oracle, way, way.backend);
            assert_eq!(sizes(oracle), (2, 0));
        }
    });
}

#[test]
fn b17_data_after_an_rst_revives_the_connection() {
    on_each_way(|oracle, way| {
        way.establish(oracle);
        let dead =
            |oracle: &Oracle| oracle.established().iter().filter(|flow| flow.state & flow_state::RST != 0).count();
        way.reply(oracle, &Frame::tcp(way.backend, way.seen).flags("R."));
        assert_eq!(dead(oracle), 2, "both directions know");
        let served = way.served(oracle);
        assert_eq!(way.request(oracle, &Frame::tcp(way.client, way.vip)).outcome, served);
        assert_eq!(dead(oracle), 0);
    });
}

#[test]
fn b18_each_fin_is_remembered_by_both_directions() {
    on_each_way(|oracle, way| {
        way.establish(oracle);
        let both = flow_state::FIN | flow_state::PEER_FIN;
        let fins = |oracle: &Oracle| {
            let flows = oracle.established();
            flows.iter().map(|flow| (flow.flags & flow_flags::REVERSE != 0, flow.state & both)).collect::<Vec<_>>()
        };
        way.request(oracle, &Frame::tcp(way.client, way.vip).flags("F."));
        for (reverse, found) in fins(oracle) {
            assert_eq!(found, if reverse { flow_state::PEER_FIN } else { flow_state::FIN });
        }
        let served = way.served(oracle);
        let run = way.reply(oracle, &Frame::tcp(way.backend, way.seen));
        assert_eq!(run.outcome, served, "the other half stays open");
        way.reply(oracle, &Frame::tcp(way.backend, way.seen).flags("F."));
        for (_, found) in fins(oracle) {
            assert_eq!(found, both);
        }
    });
}

#[test]
fn b60_a_tcp_connection_to_a_removed_backend_runs_until_it_ends() {
    on_each_way(|oracle, way| {
        way.establish(oracle);
        way.replace_backend(oracle, way.other);
        oracle.remove_backend(100);
        oracle.raise_epoch();
        let data = Frame::tcp(way.client, way.vip);
        let run = way.request(oracle, &data);
        assert_frames_eq(&run.bytes, &way.to(&data, way.backend));
        // B61: but a new connection with the same tuple goes elsewhere.
        oracle.raise_epoch();
        expect_syn_at(oracle, way, way.other);
    });
}
