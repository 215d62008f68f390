//! What is not translated: malformed, fragmented and foreign frames; and what is, whatever it carries.

use svc_common::{net::proto, outcome::Outcome, packet::Hook, reason::Reason};
use svc_tests::{
    oracle::{Oracle, UPLINK, with_oracle},
    packet::{Frame, assert_frames_eq},
};

type Open = fn(&str, &str) -> Frame;

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00:96::10]:80";
const CLIENT: &str = "198.51.100.7:40000";
const CLIENT6: &str = "[2001:db8:7::7]:40000";
const HOOKS: [Hook; 3] = [Hook::Xdp, Hook::Ingress, Hook::Egress];

fn serve(oracle: &mut Oracle) {
    for protocol in [proto::TCP, proto::UDP] {
        let id = u32::from(protocol) * 100;
        oracle.serve(id, protocol, &[VIP], &["10.244.1.5:8080"]);
        oracle.serve(id + 1, protocol, &[VIP6], &["[fd00:244:1::5]:8080"]);
    }
}

/// Runs a frame everywhere and expects it untouched, and counted once, where it comes in.
#[track_caller]
fn passes(oracle: &mut Oracle, frame: &[u8], reason: Option<Reason>) {
    let before = reason.map(|reason| oracle.memory.counters.get(&reason).copied().unwrap_or(0));
    for hook in HOOKS {
        let run = oracle.run(hook, UPLINK, frame);
        assert_eq!(run.outcome, Outcome::Pass, "at {hook:?}");
        assert_frames_eq(&run.bytes, frame);
    }
    if let (Some(reason), Some(before)) = (reason, before) {
        assert_eq!(oracle.memory.counters.get(&reason), Some(&(before + 1)), "{reason:?}");
    }
    assert!(oracle.memory.v4.embryos.is_empty() && oracle.memory.v6.embryos.is_empty());
}

#[test]
fn b01_ipv4_options_of_every_length_are_kept() {
    for words in 1..=10 {
        with_oracle(move |oracle| {
            serve(oracle);
            let options = [vec![1; words * 4 - 1], vec![0]].concat();
            let frame = Frame::tcp(CLIENT, VIP).options(&options);
            let run = oracle.run(Hook::Ingress, UPLINK, &frame.build());
            assert_frames_eq(&run.bytes, &frame.to("10.244.1.5:8080").build());
            let frame = Frame::udp(CLIENT, VIP).options(&options);
            let run = oracle.run(Hook::Ingress, UPLINK, &frame.build());
            assert_frames_eq(&run.bytes, &frame.to("10.244.1.5:8080").build());
        });
    }
}

#[test]
fn b01_malformed_headers_pass_untouched_and_are_counted() {
    with_oracle(|oracle| {
        serve(oracle);
        let good = Frame::tcp(CLIENT, VIP).build();
        let good6 = Frame::tcp(CLIENT6, VIP6).build();
        // (frame, offset, value)
        let changes: &[(&[u8], usize, u8, &str)] = &[
            (&good, 14, 0x44, "header length of 16"),
            (&good, 14, 0x40, "header length of 0"),
            (&good, 14, 0x65, "version 6 behind IPv4's ether type"),
            (&good, 16, 0xff, "longer than the frame"),
            (&good6, 14, 0x45, "version 4 behind IPv6's ether type"),
            (&good6, 18, 0xff, "longer than the frame"),
        ];
        for (frame, offset, value, what) in changes {
            let mut frame = frame.to_vec();
            frame[*offset] = *value;
            eprintln!("{what}");
            passes(oracle, &frame, Some(Reason::Malformed));
        }
        // Too short for its own header, and for the transport's.
        for (total, what) in [(19u16, "shorter than its header"), (20 + 19, "TCP cut short")] {
            let mut frame = good.clone();
            frame[16..18].copy_from_slice(&total.to_be_bytes());
            eprintln!("{what}");
            passes(oracle, &frame, Some(Reason::Malformed));
        }
        let mut frame = Frame::udp(CLIENT, VIP).build();
        frame[16..18].copy_from_slice(&(20u16 + 7).to_be_bytes());
        passes(oracle, &frame, Some(Reason::Malformed));
    });
}

#[test]
fn b01_every_truncation_is_survived() {
    with_oracle(|oracle| {
        serve(oracle);
        for (frame, ip) in [
            (Frame::tcp(CLIENT, VIP), 20),
            (Frame::udp(CLIENT, VIP), 20),
            (Frame::tcp(CLIENT6, VIP6), 40),
            (Frame::udp(CLIENT6, VIP6), 40),
        ] {
            let frame = frame.build();
            for len in 14..frame.len() {
                // A test run at tc refuses packets without a whole IP header; the stack drops them before tc.
                let hooks = if len < 14 + ip { &HOOKS[..1] } else { &HOOKS };
                for hook in hooks {
                    let run = oracle.run(*hook, UPLINK, &frame[..len]);
                    assert_eq!(run.outcome, Outcome::Pass, "{len} bytes at {hook:?}");
                    assert_frames_eq(&run.bytes, &frame[..len]);
                }
            }
        }
    });
}

#[test]
fn b07_foreign_frames_pass_untouched() {
    with_oracle(|oracle| {
        serve(oracle);
        // An unassigned protocol, to the VIP; ICMP of a type that does not concern us.
        for (protocol, reason) in [(200, Some(Reason::UnknownProtocol)), (proto::ICMP, None)] {
            let mut frame = Frame::udp(CLIENT, VIP).build();
            frame[23] = protocol;
            passes(oracle, &frame, reason);
        }
        for (protocol, reason) in [(200, Some(Reason::UnknownProtocol)), (proto::ICMPV6, None)] {
            let mut frame = Frame::udp(CLIENT6, VIP6).build();
            frame[20] = protocol;
            passes(oracle, &frame, reason);
        }
        // ARP, a VLAN tag, MPLS, and a length instead of a type.
        for ether_type in [0x0806u16, 0x8100, 0x88a8, 0x8847, 0x0040] {
            let mut frame = Frame::tcp(CLIENT, VIP).build();
            frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
            passes(oracle, &frame, None);
        }
    });
}

#[test]
fn b05_the_program_for_veth_leaves_partial_checksums_to_tc() {
    with_oracle(|oracle| {
        for (id, vip, backend, client) in [
            (100, "192.0.2.10:30080", "10.244.2.5:8080", "198.51.100.7:20000"),
            (200, "[2001:db8::10]:30080", "[fd00:244:2::5]:8080", "[2001:db8:7::7]:20000"),
        ] {
            for (offset, protocol, open) in
                [(0, proto::TCP, Frame::tcp as fn(&str, &str) -> Frame), (1, proto::UDP, Frame::udp)]
            {
                oracle.serve(id + offset, protocol, &[vip], &[backend]);
                let complete = open(client, vip).build();
                assert_eq!(oracle.run_veth(&complete).0, 4, "sent back out, by a redirect that wakes the peer");
                let mut partial = complete.clone();
                Frame::make_checksum_partial(&mut partial);
                let (verdict, bytes) = oracle.run_veth(&partial);
                assert_eq!(verdict, 2, "left to tc");
                assert_frames_eq(&bytes, &partial);
            }
        }
    });
}

#[test]
fn b49_mapped_addresses_on_the_wire_match_no_service() {
    with_oracle(|oracle| {
        serve(oracle);
        let mapped = |addr: &str| {
            let addr = svc_tests::packet::addr(addr);
            let std::net::IpAddr::V4(v4) = addr.ip() else { panic!("{addr}") };
            std::net::SocketAddr::new(v4.to_ipv6_mapped().into(), addr.port()).to_string()
        };
        // Nobody may send such packets (RFC 4038 section 4.2); the stack has its own opinion of them.
        for (src, dst) in [(mapped(CLIENT), mapped(VIP)), (CLIENT6.to_owned(), mapped(VIP))] {
            for frame in [Frame::syn(&src, &dst), Frame::udp(&src, &dst)] {
                passes(oracle, &frame.build(), None);
            }
        }
        // One that claims to come from a mapped address is a client like any other, not that of IPv4.
        let frame = Frame::syn(&mapped(CLIENT), VIP6);
        let run = oracle.run(Hook::Ingress, UPLINK, &frame.build());
        assert_eq!(run.outcome, Outcome::Deliver);
        assert!(oracle.memory.v4.embryos.is_empty() && oracle.memory.v4.flows.is_empty());
        assert_eq!(oracle.memory.v6.embryos.len(), 2);
    });
}

#[test]
fn b01_padding_is_no_part_of_a_transport_header() {
    with_oracle(|oracle| {
        for (id, (vip, backend, client)) in (100..).step_by(100).zip([
            ("10.96.0.10:80", "10.244.1.5:8080", "198.51.100.7:40000"),
            ("[fd00:96::10]:80", "[fd00:244:1::5]:8080", "[2001:db8:7::7]:40000"),
        ]) {
            let opens: [(u8, usize, Open); 3] = [
                (proto::TCP, 20, Frame::tcp),
                (proto::UDP, 8, Frame::udp),
                (proto::SCTP, 12, |src, dst| Frame::sctp(src, dst, 0)),
            ];
            for (offset, (protocol, header, open)) in (0..).step_by(10).zip(opens) {
                oracle.serve(id + offset, protocol, &[vip], &[backend]);
                // The frame goes on, but the packet says that it ends within the header.
                for len in 0..header {
                    let mut frame = open(client, vip).payload(&[0x5a; 64]).build();
                    if frame[12] == 0x08 {
                        frame[16..18].copy_from_slice(&(20 + len as u16).to_be_bytes());
                    } else if len == 0 {
                        // No length means an aggregate.
                        continue;
                    } else {
                        frame[18..20].copy_from_slice(&(len as u16).to_be_bytes());
                    }
                    for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                        let run = oracle.run(hook, UPLINK, &frame);
                        assert_eq!(run.outcome, Outcome::Pass, "protocol {protocol}, {len} bytes");
                        assert_frames_eq(&run.bytes, &frame);
                    }
                }
            }
        }
    });
}
