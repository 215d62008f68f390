//! ICMP errors about packets that were translated, echo requests to addresses of services, and what has to be left alone.

mod answers;
mod echo;
mod odd;
mod quotes;
mod requests;

use svc_common::{
    maps::{Frontend, frontend_flags},
    net::proto,
    outcome::Outcome,
    packet::Hook,
};
use svc_tests::{
    message::Message,
    oracle::{NODE, Oracle, ROUTER_MAC, UPLINK, UPLINK_MAC, with_oracle},
    packet::{Frame, assert_frames_eq},
};

/// How a frame of a transport protocol is made.
type Open = fn(&str, &str) -> Frame;
const TRANSPORTS: [(u8, Open); 2] = [(proto::TCP, Frame::tcp), (proto::UDP, Frame::udp)];

/// One family's part of a connection: whose packets are translated, into what, and what may tell of an error.
#[derive(Clone, Copy)]
struct Path {
    vip: &'static str,
    /// As the VIP without its port.
    vip_addr: &'static str,
    backend: &'static str,
    backend_addr: &'static str,
    client: &'static str,
    client_addr: &'static str,
    /// What the backend sees as its client.
    source: &'static str,
    source_addr: &'static str,
    router: &'static str,
    /// (type, code, rest of the header) of errors.
    errors: [(u8, u8, [u8; 4]); 3],
}

/// Next-hop MTU 1300 and what else routers and hosts tell.
const ERRORS_V4: [(u8, u8, [u8; 4]); 3] = [(3, 4, [0, 0, 0x05, 0x14]), (3, 3, [0; 4]), (11, 0, [0; 4])];
const ERRORS_V6: [(u8, u8, [u8; 4]); 3] = [(2, 0, [0, 0, 0x05, 0x14]), (1, 4, [0; 4]), (3, 0, [0; 4])];

/// Clients outside, the backend on another node.
const REMOTE: [Path; 2] = [
    Path {
        vip: "192.0.2.10:30080",
        vip_addr: "192.0.2.10",
        backend: "10.244.2.5:8080",
        backend_addr: "10.244.2.5",
        client: "198.51.100.7:20000",
        client_addr: "198.51.100.7",
        source: "192.0.2.10:20000",
        source_addr: NODE.0,
        router: "203.0.113.1",
        errors: ERRORS_V4,
    },
    Path {
        vip: "[2001:db8::10]:30080",
        vip_addr: "2001:db8::10",
        backend: "[fd00:244:2::5]:8080",
        backend_addr: "fd00:244:2::5",
        client: "[2001:db8:7::7]:20000",
        client_addr: "2001:db8:7::7",
        source: "[2001:db8::10]:20000",
        source_addr: NODE.1,
        router: "2001:db8:9::1",
        errors: ERRORS_V6,
    },
];

/// The same clients, the backend on this node.
const LOCAL: [Path; 2] = [
    Path {
        vip: "10.96.0.10:80",
        vip_addr: "10.96.0.10",
        backend: "10.244.1.5:8080",
        backend_addr: "10.244.1.5",
        source: "198.51.100.7:20000",
        source_addr: "198.51.100.7",
        ..REMOTE[0]
    },
    Path {
        vip: "[fd00:96::10]:80",
        vip_addr: "fd00:96::10",
        backend: "[fd00:244:1::5]:8080",
        backend_addr: "fd00:244:1::5",
        source: "[2001:db8:7::7]:20000",
        source_addr: "2001:db8:7::7",
        ..REMOTE[1]
    },
];

impl Path {
    /// Opens the connection, with an answer.
    fn open(&self, oracle: &mut Oracle, id: u32, protocol: u8, open: Open) {
        oracle.serve(id, protocol, &[self.vip], &[self.backend]);
        for _ in 0..2 {
            let run = oracle.run(Hook::Ingress, UPLINK, &open(self.client, self.vip).build());
            assert!(matches!(run.outcome, Outcome::Send(_) | Outcome::Deliver), "{:?}", run.outcome);
            let hook = if self.source == self.client { Hook::Egress } else { Hook::Ingress };
            oracle.run(hook, UPLINK, &open(self.backend, self.source).build());
        }
    }
}

/// Quotes of a packet with this many bytes of IP header: the least, and all of it.
fn quotes(frame: &[u8]) -> [usize; 2] {
    [if frame[12] == 0x08 { 28 } else { 48 }, usize::MAX - 14]
}

/// Every connection of these paths, each transport, with every kind of error and quote.
fn for_each(
    paths: [Path; 2],
    check: impl Fn(&mut Oracle, &Path, Open, (u8, u8, [u8; 4]), usize) + Copy + Send + 'static,
) {
    with_oracle(move |oracle| {
        for (id, path) in (100..).step_by(100).zip(paths) {
            for (protocol, open) in TRANSPORTS {
                path.open(oracle, id + u32::from(protocol), protocol, open);
                let tables = (oracle.memory.v4.flows.clone(), oracle.memory.v6.flows.clone());
                for error in path.errors {
                    for quoted in quotes(&open(path.client, path.vip).build()) {
                        check(oracle, &path, open, error, quoted);
                    }
                }
                let after = (&oracle.memory.v4.flows, &oracle.memory.v6.flows);
                assert_eq!((&tables.0, &tables.1), after, "errors change no flow (B42)");
            }
        }
    });
}

/// The frame as whoever sent it had it, but for TCP's checksum, which stays as it was `seen` in the quote.
fn unseen(frame: Frame, seen: &[u8]) -> Vec<u8> {
    let mut bytes = frame.build();
    let (proto, l4) =
        if bytes[12] == 0x08 { (bytes[23], 14 + usize::from(bytes[14] & 0xf) * 4) } else { (bytes[20], 54) };
    if proto == proto::TCP {
        bytes[l4 + 16..l4 + 18].copy_from_slice(&seen[l4 + 16..l4 + 18]);
    }
    bytes
}

/// Writes the row of an address; `vip` says that it is a service's alone.
fn set_address(oracle: &mut Oracle, addr: &str, vip: bool) {
    let key = if addr.contains(':') { format!("[{addr}]:0") } else { format!("{addr}:0") };
    let flags = if vip { frontend_flags::VIP } else { frontend_flags::NODE_PORT };
    oracle.put_frontend(&key, 0, Frontend { flags, ..Frontend::default() });
}

/// Our programs send the error on, wherever it comes by, as `expected`, one hop further.
#[track_caller]
fn expect_sent(oracle: &mut Oracle, error: &[u8], expected: &Message) {
    let uplink = oracle.ifindex(UPLINK);
    let expected = expected.clone().ttl(63).macs(UPLINK_MAC, ROUTER_MAC).build();
    for hook in [Hook::Xdp, Hook::Ingress] {
        let run = oracle.run(hook, UPLINK, error);
        assert_eq!(run.outcome, Outcome::Send(uplink));
        assert_frames_eq(&run.bytes, &expected);
    }
}
