//! ICMP errors about packets that were translated, echo requests to addresses of services, and what has to be left alone.

use svc_common::{
    maps::{Frontend, frontend_flags},
    net::proto,
    outcome::Outcome,
    packet::Hook,
    reason::Reason,
};
use svc_tests::{
    message::Message,
    oracle::{NODE, Oracle, ROUTER_MAC, UPLINK, UPLINK_MAC, WORKLOAD, with_oracle},
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

#[test]
fn b38_an_error_about_an_answer_reaches_the_backend_on_another_node() {
    for_each(REMOTE, |oracle, path, open, (kind, code, rest), quoted| {
        let uplink = oracle.ifindex(UPLINK);
        let seen = open(path.vip, path.client).ttl(60).build();
        let sent = unseen(open(path.backend, path.source).ttl(60), &seen);
        for (from, becomes) in [(path.router, path.router), (path.client_addr, path.source_addr)] {
            let error = Message::error(from, path.vip_addr, (kind, code), &seen, quoted).rest(rest).build();
            let expected = Message::error(becomes, path.backend_addr, (kind, code), &sent, quoted)
                .rest(rest)
                .ttl(63)
                .macs(UPLINK_MAC, ROUTER_MAC);
            for hook in [Hook::Xdp, Hook::Ingress] {
                let run = oracle.run(hook, UPLINK, &error);
                assert_eq!(run.outcome, Outcome::Send(uplink));
                assert_frames_eq(&run.bytes, &expected.build());
            }
        }
    });
}

#[test]
fn b38_an_error_about_an_answer_reaches_the_pod() {
    for_each(LOCAL, |oracle, path, open, (kind, code, rest), quoted| {
        let seen = open(path.vip, path.client).ttl(60).build();
        let sent = unseen(open(path.backend, path.client).ttl(60), &seen);
        for from in [path.router, path.client_addr] {
            let error = Message::error(from, path.vip_addr, (kind, code), &seen, quoted).rest(rest).build();
            let run = oracle.run(Hook::Xdp, UPLINK, &error);
            assert_eq!(run.outcome, Outcome::Pass, "XDP leaves pods to tc");
            assert_frames_eq(&run.bytes, &error);
            let run = oracle.run(Hook::Ingress, UPLINK, &error);
            assert_eq!(run.outcome, Outcome::Deliver);
            let expected = Message::error(from, path.backend_addr, (kind, code), &sent, quoted).rest(rest);
            assert_frames_eq(&run.bytes, &expected.build());
        }
    });
}

#[test]
fn b38_an_error_finds_the_backend_on_a_node_that_never_saw_the_connection() {
    with_oracle(|oracle| {
        for (id, path) in (100..).step_by(100).zip(LOCAL) {
            let backends: Vec<_> = (0..8)
                .map(|n| {
                    if path.vip.starts_with('[') {
                        format!("[fd00:244:1::{n}]:8080")
                    } else {
                        format!("10.244.1.{n}:8080")
                    }
                })
                .collect();
            let backends: Vec<_> = backends.iter().map(String::as_str).collect();
            oracle.serve(id, proto::TCP, &[path.vip], &backends);
            let (mut errors, recorded) = (Vec::new(), oracle.memory.v4.embryos.len() + oracle.memory.v6.embryos.len());
            for port in 20_000..20_010 {
                let client = path.client.replace("20000", &port.to_string());
                let seen = Frame::tcp(path.vip, &client).build();
                let error = Message::error(path.router, path.vip_addr, (path.errors[0].0, path.errors[0].1), &seen, 60);
                let run = oracle.run(Hook::Ingress, WORKLOAD, &error.build());
                assert_eq!(run.outcome, Outcome::Deliver);
                errors.push((client, run.bytes));
            }
            let after = oracle.memory.v4.embryos.len() + oracle.memory.v6.embryos.len();
            assert_eq!(recorded, after, "errors record nothing");
            // The connections' own packets show where they belong.
            for (client, found) in errors {
                let run = oracle.run(Hook::Ingress, WORKLOAD, &Frame::tcp(&client, path.vip).build());
                let backend = backends
                    .iter()
                    .find(|backend| run.bytes == Frame::tcp(&client, path.vip).to(backend).build())
                    .expect("one of the backends");
                let seen = Frame::tcp(path.vip, &client).build();
                let sent = unseen(Frame::tcp(backend, &client), &seen);
                let addr = backend.parse::<std::net::SocketAddr>().unwrap().ip().to_string();
                let expected = Message::error(path.router, &addr, (path.errors[0].0, path.errors[0].1), &sent, 60);
                assert_frames_eq(&found, &expected.build());
            }
        }
    });
}

#[test]
fn b39_an_error_about_a_request_reaches_the_client_of_a_node_port() {
    for_each(REMOTE, |oracle, path, open, (kind, code, rest), quoted| {
        let uplink = oracle.ifindex(UPLINK);
        let seen = open(path.source, path.backend).ttl(60).build();
        let sent = unseen(open(path.client, path.vip).ttl(60), &seen);
        for (from, becomes) in [(path.router, path.router), (path.backend_addr, path.vip_addr)] {
            let error = Message::error(from, path.source_addr, (kind, code), &seen, quoted).rest(rest).build();
            let expected = Message::error(becomes, path.client_addr, (kind, code), &sent, quoted)
                .rest(rest)
                .ttl(63)
                .macs(UPLINK_MAC, ROUTER_MAC);
            for hook in [Hook::Xdp, Hook::Ingress] {
                let run = oracle.run(hook, UPLINK, &error);
                assert_eq!(run.outcome, Outcome::Send(uplink));
                assert_frames_eq(&run.bytes, &expected.build());
            }
        }
    });
}

#[test]
fn b39_an_error_about_a_request_is_translated_on_its_way_out() {
    for_each(LOCAL, |oracle, path, open, (kind, code, rest), quoted| {
        let seen = open(path.client, path.backend).ttl(60).build();
        let sent = unseen(open(path.client, path.vip).ttl(60), &seen);
        // A router keeps its address, and so does this node, which is one, too.
        for (from, becomes) in
            [(path.router, path.router), (path.backend_addr, path.vip_addr), (REMOTE[0].source_addr, "")]
        {
            let same_family = from.contains(':') == path.router.contains(':');
            let (from, becomes) = if same_family { (from, becomes) } else { (NODE.1, "") };
            let becomes = if becomes.is_empty() { from } else { becomes };
            let error = Message::error(from, path.client_addr, (kind, code), &seen, quoted).rest(rest).build();
            let run = oracle.run(Hook::Ingress, WORKLOAD, &error);
            assert_eq!(run.outcome, Outcome::Pass, "between the hooks, client and backend are seen");
            assert_frames_eq(&run.bytes, &error);
            let run = oracle.run(Hook::Egress, UPLINK, &error);
            assert_eq!(run.outcome, Outcome::Deliver);
            let expected = Message::error(becomes, path.client_addr, (kind, code), &sent, quoted).rest(rest);
            assert_frames_eq(&run.bytes, &expected.build());
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

#[test]
fn b40_extensions_and_options_inside_and_outside_stay_as_they_are() {
    with_oracle(|oracle| {
        let path = REMOTE[0];
        path.open(oracle, 100, proto::UDP, Frame::udp);
        for options in [&[][..], &[1, 1, 1, 0], &[1; 40]] {
            for outer in [&[][..], &[1; 40]] {
                let seen = Frame::udp(path.source, path.backend).options(options).build();
                let sent = Frame::udp(path.client, path.vip).options(options).build();
                // RFC 4884: the quote filled up to 128 bytes, its length in words, an extension with a checksum.
                let quote = |frame: &[u8]| {
                    let mut quote = frame[14..].to_vec();
                    quote.resize(128, 0);
                    quote.extend([0x20, 0, 0xab, 0xcd, 0, 8, 1, 1, 0, 0x12, 0x34, 0x56]);
                    quote
                };
                let error = Message::new(path.router, path.source_addr, 11, 0).rest([0, 32, 0, 0]).options(outer);
                let run = oracle.run(Hook::Ingress, UPLINK, &error.clone().payload(&quote(&seen)).build());
                let expected = Message::new(path.router, path.client_addr, 11, 0).rest([0, 32, 0, 0]).options(outer);
                let expected = expected.ttl(63).macs(UPLINK_MAC, ROUTER_MAC).payload(&quote(&sent));
                assert_frames_eq(&run.bytes, &expected.build());
            }
        }
    });
}

#[test]
fn b40_extension_headers_in_the_quote_are_followed() {
    with_oracle(|oracle| {
        let path = REMOTE[1];
        path.open(oracle, 100, proto::UDP, Frame::udp);
        let (kind, code, rest) = path.errors[0];
        let destination = (60, vec![1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        // A Fragment header of the first piece, and of another one.
        let piece = |low: u8| (44, vec![0, 0, low, 0xde, 0xad, 0xbe, 0xef]);
        for (extensions, shown) in [
            (vec![destination.clone()], true),
            (vec![piece(1)], true),
            (vec![destination.clone(), piece(1), destination], true),
            (vec![piece(9)], false),
        ] {
            let seen = Frame::udp(path.source, path.backend).extensions(&extensions).build();
            let sent = Frame::udp(path.client, path.vip).extensions(&extensions).build();
            let error = Message::error(path.router, path.source_addr, (kind, code), &seen, 600).rest(rest).build();
            let expected = Message::error(path.router, path.client_addr, (kind, code), &sent, 600).rest(rest);
            for hook in [Hook::Xdp, Hook::Ingress] {
                let run = oracle.run(hook, UPLINK, &error);
                if shown {
                    let expected = expected.clone().ttl(63).macs(UPLINK_MAC, ROUTER_MAC);
                    assert_frames_eq(&run.bytes, &expected.build());
                } else {
                    assert_eq!(run.outcome, Outcome::Pass);
                    assert_frames_eq(&run.bytes, &error);
                }
            }
        }
    });
}

#[test]
fn b59_an_error_without_a_flow_reaches_only_backends_that_its_receiver_serves() {
    with_oracle(|oracle| {
        for (id, path, range) in [(100, LOCAL[0], "203.0.113.0"), (200, LOCAL[1], "2001:db8:9::")] {
            oracle.serve(id, proto::TCP, &[], &[path.backend]);
            let frontend = Frontend {
                service: id,
                external: id,
                internal: id,
                flags: frontend_flags::LOAD_BALANCER | frontend_flags::SOURCE_RANGES,
                affinity_s: 0,
            };
            oracle.put_frontend(path.vip, proto::TCP, frontend);
            oracle.add_range(id, range, if id == 100 { 24 } else { 48 });
            let (kind, code, _) = path.errors[0];
            let inside = if id == 100 { "203.0.113.9:20000" } else { "[2001:db8:9::9]:20000" };
            for (client, outcome) in [(inside, Outcome::Deliver), (path.client, Outcome::Drop(Reason::SourceRange))] {
                let seen = Frame::tcp(path.vip, client).build();
                let error = Message::error(path.router, path.vip_addr, (kind, code), &seen, 60).build();
                assert_eq!(oracle.run(Hook::Ingress, UPLINK, &error).outcome, outcome, "{client}");
            }
        }
    });
}

#[test]
fn b40_a_quoted_datagram_without_checksum_stays_without() {
    with_oracle(|oracle| {
        for (id, path) in (100..).step_by(100).zip(LOCAL) {
            path.open(oracle, id, proto::UDP, Frame::udp);
            let (kind, code, rest) = path.errors[0];
            let seen = Frame::udp(path.vip, path.client).zero_checksum().build();
            let sent = Frame::udp(path.backend, path.client).zero_checksum().build();
            let error = Message::error(path.router, path.vip_addr, (kind, code), &seen, 60).rest(rest).build();
            let run = oracle.run(Hook::Ingress, UPLINK, &error);
            let expected = Message::error(path.router, path.backend_addr, (kind, code), &sent, 60).rest(rest);
            assert_frames_eq(&run.bytes, &expected.build());
        }
    });
}

#[test]
fn b40_quotes_that_show_no_connection_pass_untouched_and_are_counted() {
    with_oracle(|oracle| {
        let mut counted = 0;
        for (id, path) in (100..).step_by(100).zip(REMOTE) {
            path.open(oracle, id, proto::UDP, Frame::udp);
            let (kind, code, _) = path.errors[0];
            let v6 = path.vip.starts_with('[');
            let seen = Frame::udp(path.source, path.backend).build();
            let changed = |offset: usize, value: u8| {
                let mut seen = seen.clone();
                seen[14 + offset] = value;
                seen
            };
            let least = quotes(&seen)[0];
            let (protocol, icmp) = if v6 { (6, 58) } else { (9, 1) };
            let mut cases = vec![
                (changed(protocol, icmp), "a quoted message"),
                (changed(protocol, 200), "an unknown protocol"),
                (changed(protocol, 44), "a fragment of IPv6"),
                (changed(0, 0x55), "no IP"),
                (seen[..14 + least - 1].to_vec(), "less than eight bytes"),
                (seen[..14 + 19].to_vec(), "less than a header"),
                (seen[..14].to_vec(), "nothing"),
            ];
            if !v6 {
                cases.push((changed(7, 1), "a later fragment"));
                cases.push((changed(0, 0x44), "a header of 16 bytes"));
                cases.push((changed(0, 0x4f), "a header longer than the quote"));
            }
            for (quoted, what) in cases {
                let error = Message::error(path.router, path.source_addr, (kind, code), &quoted, 60).build();
                for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                    let run = oracle.run(hook, UPLINK, &error);
                    assert_eq!(run.outcome, Outcome::Pass, "{what}");
                    assert_frames_eq(&run.bytes, &error);
                }
                counted += 1;
            }
            // Good, but sent to somebody else.
            let error = Message::error(path.router, path.client_addr, (kind, code), &seen, 60).build();
            let run = oracle.run(Hook::Ingress, UPLINK, &error);
            assert_eq!(run.outcome, Outcome::Pass);
            counted += 1;
        }
        assert_eq!(oracle.memory.counters[&Reason::IcmpQuote], counted);
    });
}

#[test]
fn b38_an_error_that_no_connection_explains_passes_or_ends_at_a_service_address() {
    with_oracle(|oracle| {
        for path in REMOTE.into_iter().chain(LOCAL) {
            let (kind, code, _) = path.errors[0];
            let seen = Frame::tcp(path.vip, path.client).build();
            let error = Message::error(path.router, path.vip_addr, (kind, code), &seen, 60).build();
            let run = oracle.run(Hook::Ingress, UPLINK, &error);
            assert_eq!(run.outcome, Outcome::Pass, "no address of ours");
            for (vip, outcome) in [(false, Outcome::Pass), (true, Outcome::Drop(Reason::IcmpStray))] {
                set_address(oracle, path.vip_addr, vip);
                let run = oracle.run(Hook::Ingress, UPLINK, &error);
                assert_eq!(run.outcome, outcome);
                assert_frames_eq(&run.bytes, &error);
            }
        }
    });
}

#[test]
fn b08_an_error_whose_ttl_ends_here_is_left_alone() {
    with_oracle(|oracle| {
        for (id, path) in (100..).step_by(100).zip(REMOTE) {
            path.open(oracle, id, proto::TCP, Frame::tcp);
            let (kind, code, _) = path.errors[0];
            let seen = Frame::tcp(path.source, path.backend).build();
            let error = Message::error(path.router, path.source_addr, (kind, code), &seen, 60).ttl(1).build();
            for hook in [Hook::Xdp, Hook::Ingress] {
                let run = oracle.run(hook, UPLINK, &error);
                assert_eq!(run.outcome, Outcome::Pass);
                assert_frames_eq(&run.bytes, &error);
            }
        }
    });
}

/// Writes the row of an address; `vip` says that it is a service's alone.
fn set_address(oracle: &mut Oracle, addr: &str, vip: bool) {
    let key = if addr.contains(':') { format!("[{addr}]:0") } else { format!("{addr}:0") };
    let flags = if vip { frontend_flags::VIP } else { frontend_flags::NODE_PORT };
    oracle.put_frontend(&key, 0, Frontend { flags, ..Frontend::default() });
}

/// Echo request and reply, VIP, asker, node.
const ECHOES: [(u8, u8, &str, &str, &str); 2] =
    [(8, 0, "10.96.0.10", "198.51.100.7", NODE.0), (128, 129, "fd00:96::10", "2001:db8:7::7", NODE.1)];

#[test]
fn b43_an_echo_request_to_a_vip_is_answered() {
    with_oracle(|oracle| {
        let (uplink, workload) = (oracle.ifindex(UPLINK), oracle.ifindex(WORKLOAD));
        for (request, reply, vip, client, _) in ECHOES {
            set_address(oracle, vip, true);
            for data in [vec![], vec![0xff; 1], (0..56).collect(), vec![0xa5; 1400]] {
                for options in [&[][..], &[1; 12]] {
                    let options = if vip.contains(':') { &[] } else { options };
                    let ask = Message::new(client, vip, request, 0).rest([0xbe, 0xef, 0, 7]).payload(&data).ttl(3);
                    let ask = ask.options(options).build();
                    let answer = Message::new(vip, client, reply, 0).rest([0xbe, 0xef, 0, 7]).payload(&data);
                    let answer = answer.options(options).macs([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
                    for (hook, device, ifindex) in [
                        (Hook::Xdp, UPLINK, uplink),
                        (Hook::Ingress, UPLINK, uplink),
                        (Hook::Ingress, WORKLOAD, workload),
                    ] {
                        let run = oracle.run(hook, device, &ask);
                        assert_eq!(run.outcome, Outcome::Send(ifindex));
                        assert_frames_eq(&run.bytes, &answer.build());
                    }
                }
            }
        }
    });
}

#[test]
fn b43_other_echo_requests_pass_untouched() {
    with_oracle(|oracle| {
        for (request, reply, vip, client, node) in ECHOES {
            set_address(oracle, vip, true);
            set_address(oracle, node, false);
            let v6 = vip.contains(':');
            let (unspecified, multicast) = if v6 { ("::", "ff02::1") } else { ("0.0.0.0", "224.0.0.1") };
            let loopback = if v6 { "::1" } else { "127.0.0.1" };
            for (what, message) in [
                ("to the node", Message::new(client, node, request, 0)),
                ("to a pod", Message::new(client, if v6 { "fd00:244:1::5" } else { "10.244.1.5" }, request, 0)),
                ("a reply", Message::new(client, vip, reply, 0)),
                ("with a code", Message::new(client, vip, request, 1)),
                ("from nowhere", Message::new(unspecified, vip, request, 0)),
                ("from many", Message::new(multicast, vip, request, 0)),
                ("from inside", Message::new(loopback, vip, request, 0)),
            ] {
                let frame = message.payload(b"data").build();
                for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                    let run = oracle.run(hook, UPLINK, &frame);
                    assert_eq!(run.outcome, Outcome::Pass, "{what} at {hook:?}");
                    assert_frames_eq(&run.bytes, &frame);
                }
            }
            let frame = Message::new(client, vip, request, 0).build();
            let run = oracle.run(Hook::Egress, UPLINK, &frame);
            assert_eq!(run.outcome, Outcome::Pass, "on its way out");
            // A part of a request.
            let mut frame = Message::new(client, vip, request, 0).payload(b"data").build();
            if v6 {
                frame[20] = 44
            } else {
                frame[20] = 0x20
            }
            for hook in [Hook::Xdp, Hook::Ingress] {
                let run = oracle.run(hook, UPLINK, &frame);
                assert_eq!(run.outcome, Outcome::Pass, "a fragment at {hook:?}");
                assert_frames_eq(&run.bytes, &frame);
            }
        }
    });
}

#[test]
fn b48_neighbour_discovery_and_listeners_are_never_touched() {
    with_oracle(|oracle| {
        let path = LOCAL[1];
        path.open(oracle, 100, proto::UDP, Frame::udp);
        set_address(oracle, path.vip_addr, true);
        let addresses = [
            (path.router, path.vip_addr),
            (path.client_addr, path.vip_addr),
            (path.backend_addr, path.client_addr),
            (path.vip_addr, "ff02::1"),
            ("fe80::1", "ff02::16"),
        ];
        for kind in (130..=137).chain([143]) {
            for (src, dst) in addresses {
                // A payload that would be the quote of an error.
                let quote = Frame::udp(path.vip, path.client).build();
                let frame = Message::new(src, dst, kind, 0).payload(&quote[14..]).ttl(255).build();
                // Listeners' reports have a router alert before them.
                let mut alert = frame.clone();
                alert[20] = 0;
                alert[18..20].copy_from_slice(&(u16::from_be_bytes([frame[18], frame[19]]) + 8).to_be_bytes());
                alert.splice(54..54, [58, 0, 5, 2, 0, 0, 1, 0]);
                for frame in [frame, alert] {
                    for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                        let run = oracle.run(hook, UPLINK, &frame);
                        assert_eq!(run.outcome, Outcome::Pass, "type {kind} from {src} to {dst} at {hook:?}");
                        assert_frames_eq(&run.bytes, &frame);
                    }
                }
            }
        }
    });
}

#[test]
fn b01_every_truncation_of_a_message_is_survived() {
    with_oracle(|oracle| {
        for (id, path) in (100..).step_by(100).zip(REMOTE) {
            path.open(oracle, id, proto::UDP, Frame::udp);
            let (kind, code, _) = path.errors[0];
            let seen = Frame::udp(path.source, path.backend).build();
            let error = Message::error(path.router, path.source_addr, (kind, code), &seen, 60).build();
            let v6 = error[12] != 0x08;
            for len in 14 + if v6 { 40 } else { 20 }..error.len() {
                let mut frame = error[..len].to_vec();
                // The frame cut, and the packet with it.
                for shorter in [false, true] {
                    if shorter {
                        let total = (len - if v6 { 54 } else { 14 }) as u16;
                        let at = if v6 { 18 } else { 16 };
                        frame[at..at + 2].copy_from_slice(&total.to_be_bytes());
                    }
                    for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                        oracle.run(hook, UPLINK, &frame);
                    }
                }
            }
        }
    });
}
