//! Datagram flows whose backend or service goes.

use svc_common::{maps::Selection, net::proto, outcome::Outcome};
use svc_tests::{
    oracle::UPLINK,
    packet::{Frame, assert_frames_eq},
};

use crate::ways::{on_each_way, sizes};

#[test]
fn b26_a_datagram_flow_moves_with_its_next_packet() {
    on_each_way(|oracle, way| {
        oracle.serve(100, proto::UDP, &[way.vip], &[way.backend]);
        let query = Frame::udp(way.client, way.vip);
        for established in [false, true] {
            oracle.edit_flows(|_| false);
            oracle.set_backend(100, 100, way.backend);
            oracle.set_selection(100, &[100]);
            oracle.raise_epoch();
            way.request(oracle, &query);
            if established {
                way.reply(oracle, &Frame::udp(way.backend, way.seen));
                way.request(oracle, &query);
                assert_eq!(sizes(oracle), (2, 0));
            }
            // The backend leaves, another one comes.
            way.replace_backend(oracle, way.other);
            oracle.remove_backend(100);
            oracle.raise_epoch();
            let run = way.request(oracle, &query);
            assert_frames_eq(&run.bytes, &way.to(&query, way.other));
            assert_eq!(sizes(oracle), (0, 2), "the old flow is gone, both directions");
        }
    });
}

#[test]
fn b26_a_datagram_flow_ends_with_its_service_or_its_last_backend() {
    on_each_way(|oracle, way| {
        for end in ["service deleted", "no backend left", "backend serves another service"] {
            oracle.reset();
            oracle.serve(100, proto::UDP, &[way.vip], &[way.backend]);
            let query = Frame::udp(way.client, way.vip);
            way.request(oracle, &query);
            let expected = match end {
                "service deleted" => {
                    oracle.remove_frontend(way.vip, proto::UDP);
                    oracle.remove_backend(100);
                    Outcome::Pass
                }
                "no backend left" => {
                    oracle.set_empty_selection(100, Selection::REJECT);
                    oracle.remove_backend(100);
                    Outcome::Send(oracle.ifindex(UPLINK))
                }
                _ => {
                    // B63: the address now belongs to a pod of another service, even under the same id.
                    oracle.set_empty_selection(100, Selection::REJECT);
                    oracle.set_backend(100, 999, way.backend);
                    Outcome::Send(oracle.ifindex(UPLINK))
                }
            };
            oracle.raise_epoch();
            assert_eq!(way.request(oracle, &query).outcome, expected, "{end}");
            assert_eq!(sizes(oracle), (0, 0), "{end}");
        }
    });
}
