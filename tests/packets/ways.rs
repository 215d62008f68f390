//! The ways of a connection through this node: to a pod of it by tc, and to a pod of another node by XDP where that takes
//! the packet, else by tc.

use svc_common::{net::proto, outcome::Outcome, packet::Hook};
use svc_tests::{
    oracle::{Oracle, ROUTER_MAC, Run, UPLINK, UPLINK_MAC, with_oracle},
    packet::Frame,
};

/// A family's addresses, and where its connections are seen.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Whether the backends are pods of another node.
    pub elsewhere: bool,
    pub vip: &'static str,
    /// Outside.
    pub client: &'static str,
    /// The client as backends see it.
    pub seen: &'static str,
    pub backend: &'static str,
    pub other: &'static str,
    pub third: &'static str,
    /// The first backend's address, another port.
    pub moved: &'static str,
}

/// The port of every client, which source NAT keeps.
const PORT: &str = "20000";

pub const WAYS: [Way; 4] = [
    Way {
        elsewhere: false,
        vip: "10.96.0.10:80",
        client: "198.51.100.7:20000",
        seen: "198.51.100.7:20000",
        backend: "10.244.1.5:8080",
        other: "10.244.1.6:8080",
        third: "10.244.1.7:8080",
        moved: "10.244.1.5:9090",
    },
    Way {
        elsewhere: false,
        vip: "[fd00:96::10]:80",
        client: "[2001:db8:7::7]:20000",
        seen: "[2001:db8:7::7]:20000",
        backend: "[fd00:244:1::5]:8080",
        other: "[fd00:244:1::6]:8080",
        third: "[fd00:244:1::7]:8080",
        moved: "[fd00:244:1::5]:9090",
    },
    Way {
        elsewhere: true,
        vip: "10.96.0.10:80",
        client: "198.51.100.7:20000",
        seen: "192.0.2.10:20000",
        backend: "10.244.2.5:8080",
        other: "10.244.2.6:8080",
        third: "10.244.2.7:8080",
        moved: "10.244.2.5:9090",
    },
    Way {
        elsewhere: true,
        vip: "[fd00:96::10]:80",
        client: "[2001:db8:7::7]:20000",
        seen: "[2001:db8::10]:20000",
        backend: "[fd00:244:2::5]:8080",
        other: "[fd00:244:2::6]:8080",
        third: "[fd00:244:2::7]:8080",
        moved: "[fd00:244:2::5]:9090",
    },
];

/// Runs a test on each way, each time with empty tables.
pub fn on_each_way(test: impl Fn(&mut Oracle, Way) + Send + 'static) {
    on(WAYS.to_vec(), test);
}

/// The same with pods of this node alone, for what takes long or does not depend on the way.
pub fn in_each_family(test: impl Fn(&mut Oracle, Way) + Send + 'static) {
    on(WAYS.into_iter().filter(|way| !way.elsewhere).collect(), test);
}

fn on(ways: Vec<Way>, test: impl Fn(&mut Oracle, Way) + Send + 'static) {
    with_oracle(move |oracle| {
        for way in ways {
            oracle.reset();
            // Shown if the test fails.
            println!("{way:?}");
            test(oracle, way);
        }
    });
}

impl Way {
    /// The same client at another port, and what backends see of it.
    pub fn port(&self, port: u32) -> (String, String) {
        let at = |addr: &str| addr.replace(PORT, &port.to_string());
        (at(self.client), at(self.seen))
    }

    /// A packet comes in from the client.
    #[track_caller]
    pub fn request(&self, oracle: &mut Oracle, frame: &Frame) -> Run {
        self.enter(oracle, &frame.build())
    }

    /// A packet of the backend: on its way out where the backend is a pod of this node, else on its way in.
    #[track_caller]
    pub fn reply(&self, oracle: &mut Oracle, frame: &Frame) -> Run {
        if self.elsewhere {
            self.enter(oracle, &frame.build())
        } else {
            oracle.run(Hook::Egress, UPLINK, &frame.build())
        }
    }

    #[track_caller]
    fn enter(&self, oracle: &mut Oracle, frame: &[u8]) -> Run {
        if self.elsewhere {
            let run = oracle.run(Hook::Xdp, UPLINK, frame);
            if run.outcome != Outcome::Pass {
                return run;
            }
            assert!(run.bytes == frame, "XDP has changed what it passes");
        }
        oracle.run(Hook::Ingress, UPLINK, frame)
    }

    /// What becomes of packets that are served.
    pub fn served(&self, oracle: &Oracle) -> Outcome {
        if self.elsewhere { Outcome::Send(oracle.ifindex(UPLINK)) } else { Outcome::Deliver }
    }

    /// How a packet of the client reaches a backend.
    pub fn to(&self, frame: &Frame, backend: &str) -> Vec<u8> {
        let frame = frame.clone().to(backend);
        if !self.elsewhere {
            return frame.build();
        }
        frame.from(self.seen).ttl(63).macs(UPLINK_MAC, ROUTER_MAC).build()
    }

    /// How a packet of a backend to [`Way::seen`] reaches the client.
    pub fn back(&self, frame: &Frame) -> Vec<u8> {
        let frame = frame.clone().from(self.vip);
        if !self.elsewhere {
            return frame.build();
        }
        frame.to(self.client).ttl(63).macs(UPLINK_MAC, ROUTER_MAC).build()
    }

    /// Serves the first backend by TCP, and establishes a connection.
    pub fn establish(&self, oracle: &mut Oracle) {
        oracle.serve(100, proto::TCP, &[self.vip], &[self.backend]);
        self.request(oracle, &Frame::syn(self.client, self.vip));
        self.reply(oracle, &Frame::tcp(self.backend, self.seen).flags("S."));
        self.request(oracle, &Frame::tcp(self.client, self.vip));
        assert_eq!(sizes(oracle), (2, 0));
    }

    /// Another backend takes the place of the first in the table of the service.
    pub fn replace_backend(&self, oracle: &mut Oracle, with: &str) {
        oracle.set_backend(101, 100, with);
        oracle.set_selection(100, &[101]);
        oracle.raise_epoch();
    }
}

/// (established, half-open) entries.
pub fn sizes(oracle: &Oracle) -> (usize, usize) {
    (oracle.established().len(), oracle.half_open().len())
}
