//! What becomes of datagram flows when the world changes, in both families.

use svc_common::{maps::Selection, net::proto, outcome::Outcome, packet::Hook};
use svc_tests::{
    oracle::{Oracle, UPLINK, with_oracle},
    packet::{Frame, assert_frames_eq},
};

/// A family's addresses: VIP, client, and three backends.
struct World {
    vip: &'static str,
    client: &'static str,
    backend: &'static str,
    other: &'static str,
    moved: &'static str,
}

const WORLDS: [World; 2] = [
    World {
        vip: "10.96.0.10:53",
        client: "198.51.100.7:40000",
        backend: "10.244.1.5:8053",
        other: "10.244.1.6:8053",
        moved: "10.244.1.5:9053",
    },
    World {
        vip: "[fd00:96::10]:53",
        client: "[2001:db8:7::7]:40000",
        backend: "[fd00:244:1::5]:8053",
        other: "[fd00:244:1::6]:8053",
        moved: "[fd00:244:1::5]:9053",
    },
];

impl World {
    /// What becomes of the client's next datagram.
    fn ask(&self, oracle: &mut Oracle) -> (Outcome, Vec<u8>) {
        let run = oracle.run(Hook::Ingress, UPLINK, &Frame::udp(self.client, self.vip).build());
        (run.outcome, run.bytes)
    }

    /// The client's next datagram arrives there.
    #[track_caller]
    fn expect(&self, oracle: &mut Oracle, backend: &str) {
        let (_, bytes) = self.ask(oracle);
        assert_frames_eq(&bytes[14..], &Frame::udp(self.client, self.vip).to(backend).build()[14..]);
    }

    fn establish(&self, oracle: &mut Oracle) {
        self.expect(oracle, self.backend);
        oracle.run(Hook::Egress, UPLINK, &Frame::udp(self.backend, self.client).build());
        self.expect(oracle, self.backend);
    }
}

fn flows(oracle: &Oracle) -> usize {
    let (v4, v6) = (&oracle.memory.v4, &oracle.memory.v6);
    v4.flows.len() + v4.embryos.len() + v6.flows.len() + v6.embryos.len()
}

/// In both families, with a flow that was answered and one that was not.
fn with_a_flow(check: impl Fn(&mut Oracle, &World) + Clone + Send + 'static) {
    for world in WORLDS {
        for answered in [false, true] {
            let check = check.clone();
            let world = World { ..world };
            with_oracle(move |oracle| {
                oracle.serve(100, proto::UDP, &[world.vip], &[world.backend]);
                if answered {
                    world.establish(oracle);
                } else {
                    world.expect(oracle, world.backend);
                }
                assert_eq!(flows(oracle), 2);
                check(oracle, &world);
            });
        }
    }
}

#[test]
fn b26_a_removed_backend_and_another_target_port_move_the_flow() {
    with_a_flow(|oracle, world| {
        for target in [world.other, world.moved] {
            oracle.set_backend(101, 100, target);
            oracle.set_selection(100, &[101]);
            oracle.remove_backend(100);
            oracle.raise_epoch();
            world.expect(oracle, target);
            assert_eq!(flows(oracle), 2, "the old flow is gone, both directions");
            oracle.remove_backend(101);
            oracle.set_backend(100, 100, world.backend);
            oracle.set_selection(100, &[100]);
            oracle.raise_epoch();
            world.expect(oracle, world.backend);
        }
    });
}

#[test]
fn b26_a_deleted_service_and_the_loss_of_the_last_backend_end_the_flow_at_once() {
    with_a_flow(|oracle, world| {
        oracle.remove_frontend(world.vip, proto::UDP);
        oracle.remove_backend(100);
        oracle.raise_epoch();
        let (outcome, bytes) = world.ask(oracle);
        assert_eq!(outcome, Outcome::Pass);
        assert_frames_eq(&bytes, &Frame::udp(world.client, world.vip).build());
        assert_eq!(flows(oracle), 0);
    });
    with_a_flow(|oracle, world| {
        oracle.set_empty_selection(100, Selection::REJECT);
        oracle.remove_backend(100);
        oracle.raise_epoch();
        let (outcome, _) = world.ask(oracle);
        assert!(!matches!(outcome, Outcome::Pass | Outcome::Deliver), "{outcome:?}");
        assert_eq!(flows(oracle), 0);
    });
}

#[test]
fn b63_a_flow_never_follows_an_address_to_another_service() {
    with_a_flow(|oracle, world| {
        // The pod's address, port and even the backend id are another service's; ours has another backend.
        oracle.set_backend(100, 999, world.backend);
        oracle.set_backend(101, 100, world.other);
        oracle.set_selection(100, &[101]);
        oracle.raise_epoch();
        world.expect(oracle, world.other);
    });
}

#[test]
fn b26_a_service_that_takes_the_address_over_gets_the_next_datagram() {
    with_a_flow(|oracle, world| {
        // As when a Service is renamed: the old one's backend is still there.
        oracle.set_backend(200, 200, world.other);
        oracle.set_selection(200, &[200]);
        oracle.set_frontend(world.vip, proto::UDP, 200, 200, 200);
        oracle.raise_epoch();
        world.expect(oracle, world.other);
        assert_eq!(flows(oracle), 2);
    });
}

#[test]
fn b26_a_flow_does_not_follow_a_backend_id_that_means_another_address_or_port() {
    with_a_flow(|oracle, world| {
        for other in [world.other, world.moved, world.backend] {
            oracle.set_backend(100, 100, other);
            oracle.raise_epoch();
            world.expect(oracle, other);
            assert_eq!(flows(oracle), 2);
        }
    });
}

#[test]
fn b27_what_was_refused_leaves_no_entry_and_what_serves_keeps_its_flows() {
    for world in WORLDS {
        with_oracle(move |oracle| {
            // Before the service is there, and before it has a backend.
            assert_eq!(world.ask(oracle).0, Outcome::Pass);
            oracle.set_empty_selection(100, Selection::REJECT);
            oracle.set_frontend(world.vip, proto::UDP, 100, 100, 100);
            assert_ne!(world.ask(oracle).0, Outcome::Deliver);
            assert_eq!(flows(oracle), 0);
            oracle.serve(100, proto::UDP, &[world.vip], &[world.backend]);
            world.establish(oracle);
            // Other backends come, this one drains and leaves the table: the flow stays.
            oracle.set_backend(101, 100, world.other);
            oracle.set_selection(100, &[101]);
            oracle.raise_epoch();
            world.expect(oracle, world.backend);
            assert_eq!(flows(oracle), 2);
        });
    }
}
