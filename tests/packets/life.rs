//! What becomes of datagram flows when the world changes.

use svc_common::{maps::Selection, net::proto, outcome::Outcome};
use svc_tests::{
    oracle::{Oracle, UPLINK},
    packet::{Frame, assert_frames_eq},
};

use crate::ways::{Way, on_each_way};

/// What becomes of the client's next datagram.
fn ask(oracle: &mut Oracle, way: &Way) -> (Outcome, Vec<u8>) {
    let run = way.request(oracle, &Frame::udp(way.client, way.vip));
    (run.outcome, run.bytes)
}

/// The client's next datagram arrives there.
#[track_caller]
fn expect(oracle: &mut Oracle, way: &Way, backend: &str) {
    let (_, bytes) = ask(oracle, way);
    assert_frames_eq(&bytes, &way.to(&Frame::udp(way.client, way.vip), backend));
}

fn establish(oracle: &mut Oracle, way: &Way) {
    expect(oracle, way, way.backend);
    way.reply(oracle, &Frame::udp(way.backend, way.seen));
    expect(oracle, way, way.backend);
}

fn flows(oracle: &Oracle) -> usize {
    let (v4, v6) = (&oracle.memory.v4, &oracle.memory.v6);
    v4.flows.len() + v4.embryos.len() + v6.flows.len() + v6.embryos.len()
}

/// On each way, with a flow that was answered and one that was not.
fn with_a_flow(check: impl Fn(&mut Oracle, &Way) + Send + 'static) {
    on_each_way(move |oracle, way| {
        for answered in [false, true] {
            oracle.reset();
            oracle.serve(100, proto::UDP, &[way.vip], &[way.backend]);
            if answered {
                establish(oracle, &way);
            } else {
                expect(oracle, &way, way.backend);
            }
            assert_eq!(flows(oracle), 2);
            check(oracle, &way);
        }
    });
}

#[test]
fn b26_a_removed_backend_and_another_target_port_move_the_flow() {
    with_a_flow(|oracle, way| {
        for target in [way.other, way.moved] {
            oracle.set_backend(101, 100, target);
            oracle.set_selection(100, &[101]);
            oracle.remove_backend(100);
            oracle.raise_epoch();
            expect(oracle, way, target);
            assert_eq!(flows(oracle), 2, "the old flow is gone, both directions");
            oracle.remove_backend(101);
            oracle.set_backend(100, 100, way.backend);
            oracle.set_selection(100, &[100]);
            oracle.raise_epoch();
            expect(oracle, way, way.backend);
        }
    });
}

#[test]
fn b26_a_deleted_service_and_the_loss_of_the_last_backend_end_the_flow_at_once() {
    with_a_flow(|oracle, way| {
        oracle.remove_frontend(way.vip, proto::UDP);
        oracle.remove_backend(100);
        oracle.raise_epoch();
        let (outcome, bytes) = ask(oracle, way);
        assert_eq!(outcome, Outcome::Pass);
        assert_frames_eq(&bytes, &Frame::udp(way.client, way.vip).build());
        assert_eq!(flows(oracle), 0);
    });
    with_a_flow(|oracle, way| {
        oracle.set_empty_selection(100, Selection::REJECT);
        oracle.remove_backend(100);
        oracle.raise_epoch();
        let (outcome, _) = ask(oracle, way);
        assert_eq!(outcome, Outcome::Send(oracle.ifindex(UPLINK)), "refused");
        assert_eq!(flows(oracle), 0);
    });
}

#[test]
fn b63_a_flow_never_follows_an_address_to_another_service() {
    with_a_flow(|oracle, way| {
        // The pod's address, port and even the backend id are another service's; ours has another backend.
        oracle.set_backend(100, 999, way.backend);
        oracle.set_backend(101, 100, way.other);
        oracle.set_selection(100, &[101]);
        oracle.raise_epoch();
        expect(oracle, way, way.other);
    });
}

#[test]
fn b26_a_service_that_takes_the_address_over_gets_the_next_datagram() {
    with_a_flow(|oracle, way| {
        // As when a Service is renamed: the old one's backend is still there.
        oracle.set_backend(200, 200, way.other);
        oracle.set_selection(200, &[200]);
        oracle.set_frontend(way.vip, proto::UDP, 200, 200, 200);
        oracle.raise_epoch();
        expect(oracle, way, way.other);
        assert_eq!(flows(oracle), 2);
    });
}

#[test]
fn b26_a_flow_does_not_follow_a_backend_id_that_means_another_address_or_port() {
    with_a_flow(|oracle, way| {
        for other in [way.other, way.moved, way.backend] {
            oracle.set_backend(100, 100, other);
            oracle.raise_epoch();
            expect(oracle, way, other);
            assert_eq!(flows(oracle), 2);
        }
    });
}

#[test]
fn b27_what_was_refused_leaves_no_entry_and_what_serves_keeps_its_flows() {
    on_each_way(|oracle, way| {
        let way = &way;
        // Before the service is there, and before it has a backend.
        assert_eq!(ask(oracle, way).0, Outcome::Pass);
        oracle.set_empty_selection(100, Selection::REJECT);
        oracle.set_frontend(way.vip, proto::UDP, 100, 100, 100);
        assert_eq!(ask(oracle, way).0, Outcome::Send(oracle.ifindex(UPLINK)), "refused");
        assert_eq!(flows(oracle), 0);
        oracle.serve(100, proto::UDP, &[way.vip], &[way.backend]);
        establish(oracle, way);
        // Other backends come, this one drains and leaves the table: the flow stays.
        oracle.set_backend(101, 100, way.other);
        oracle.set_selection(100, &[101]);
        oracle.raise_epoch();
        expect(oracle, way, way.backend);
        assert_eq!(flows(oracle), 2);
    });
}
