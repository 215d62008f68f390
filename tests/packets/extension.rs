//! IPv6 extension headers before the transport header.

use svc_common::{net::proto, outcome::Outcome, packet::Hook, reason::Reason};
use svc_tests::{
    oracle::{Oracle, UPLINK, with_oracle},
    packet::{Frame, assert_frames_eq},
};

const VIP: &str = "[fd00:96::10]:80";
const BACKEND: &str = "[fd00:244:1::5]:8080";
const CLIENT: &str = "[2001:db8:7::7]:40000";

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Options (PadN) in a header of `units` units of 8 bytes and 8.
fn options(kind: u8, units: u8) -> (u8, Vec<u8>) {
    let padding = usize::from(units) * 8 + 4;
    (kind, [vec![units, 1, padding as u8], vec![0; padding]].concat())
}

/// A Routing header of `units` units of 8 bytes and 8.
fn routing(units: u8, segments_left: u8) -> (u8, Vec<u8>) {
    (ROUTING, [vec![units, 4, segments_left], vec![0xab; usize::from(units) * 8 + 4]].concat())
}

/// An Authentication header with a check value of `words` words.
fn authentication(words: u8) -> (u8, Vec<u8>) {
    (AUTHENTICATION, [vec![words + 1, 0, 0, 0, 1, 2, 3, 0, 0, 0, 9], vec![0xcd; usize::from(words) * 4]].concat())
}

/// The Fragment header of a datagram that is whole (RFC 6946).
fn atomic() -> (u8, Vec<u8>) {
    (FRAGMENT, vec![0, 0, 0, 0xde, 0xad, 0xbe, 0xef])
}

fn serve(oracle: &mut Oracle) {
    for protocol in [proto::TCP, proto::UDP] {
        oracle.serve(u32::from(protocol) * 100, protocol, &[VIP], &[BACKEND]);
        // Behind this one's packets comes source translation, at XDP and tc.
        oracle.serve(u32::from(protocol) * 100 + 1, protocol, &["[2001:db8::10]:30080"], &["[fd00:244:2::5]:8080"]);
    }
}

/// Chains of headers that are followed.
fn chains() -> Vec<Vec<(u8, Vec<u8>)>> {
    let mut chains: Vec<_> = (0..4).map(|units| vec![options(HOP_BY_HOP, units)]).collect();
    chains.extend((0..4).map(|units| vec![options(DESTINATION, units)]));
    chains.extend((0..4).map(|units| vec![routing(units, 0)]));
    chains.extend((0..6).map(|words| vec![authentication(words)]));
    chains.push(vec![atomic()]);
    // In the order that RFC 8200 recommends, and in another.
    let all = vec![
        options(HOP_BY_HOP, 0),
        options(DESTINATION, 1),
        routing(2, 0),
        atomic(),
        authentication(3),
        options(DESTINATION, 2),
    ];
    chains.push(all.iter().rev().cloned().collect());
    chains.push(all);
    chains.push(vec![options(DESTINATION, 0); 12]);
    chains.push(vec![options(DESTINATION, 4); 8]);
    // The transport header begins at the last place where it may: 54 bytes before, 456 of headers.
    chains.push(vec![options(DESTINATION, 56)]);
    chains
}

#[test]
fn b47_every_chain_of_extension_headers_is_followed() {
    with_oracle(|oracle| {
        serve(oracle);
        for chain in chains() {
            for open in [Frame::tcp as fn(&str, &str) -> Frame, Frame::udp] {
                let request = open(CLIENT, VIP).extensions(&chain);
                let run = oracle.run(Hook::Ingress, UPLINK, &request.build());
                assert_eq!(run.outcome, Outcome::Deliver, "{chain:?}");
                assert_frames_eq(&run.bytes, &request.to(BACKEND).build());
                let reply = open(BACKEND, CLIENT).extensions(&chain);
                let run = oracle.run(Hook::Egress, UPLINK, &reply.build());
                assert_frames_eq(&run.bytes, &reply.from(VIP).build());
            }
        }
        assert_eq!(oracle.memory.services[&600].new_flows, 1, "a chain does not change whose packet it is");
    });
}

#[test]
fn b47_packets_with_extension_headers_are_forwarded_at_every_hook() {
    with_oracle(|oracle| {
        serve(oracle);
        let (vip, source, backend) = ("[2001:db8::10]:30080", "[2001:db8::10]:20000", "[fd00:244:2::5]:8080");
        let client = "[2001:db8:7::7]:20000";
        let (own, router) = (svc_tests::oracle::UPLINK_MAC, svc_tests::oracle::ROUTER_MAC);
        let chain = [options(HOP_BY_HOP, 0), authentication(1), options(DESTINATION, 20)];
        for hook in [Hook::Xdp, Hook::Ingress] {
            for _ in 0..2 {
                let there = Frame::udp(client, vip).extensions(&chain);
                let run = oracle.run(hook, UPLINK, &there.build());
                assert_eq!(run.outcome, Outcome::Send(oracle.ifindex(UPLINK)), "{hook:?}");
                assert_frames_eq(&run.bytes, &there.from(source).to(backend).macs(own, router).ttl(63).build());
                let back = Frame::udp(backend, source).extensions(&chain);
                let run = oracle.run(hook, UPLINK, &back.build());
                assert_eq!(run.outcome, Outcome::Send(oracle.ifindex(UPLINK)), "{hook:?}");
                assert_frames_eq(&run.bytes, &back.from(vip).to(client).macs(own, router).ttl(63).build());
            }
        }
    });
}

#[test]
fn b47_what_is_not_followed_passes_untouched_and_is_counted() {
    with_oracle(|oracle| {
        serve(oracle);
        let cut = |bytes: usize| {
            let mut frame = Frame::udp(CLIENT, VIP).extensions(&[options(DESTINATION, 3)]).build();
            frame.truncate(frame.len() - bytes);
            let len = frame.len() as u16 - 54;
            frame[18..20].copy_from_slice(&len.to_be_bytes());
            frame
        };
        let payload = Frame::udp(CLIENT, VIP).build().len() - 54;
        let longer_than_the_packet = {
            // The header's length reaches into what is behind the packet.
            let mut frame = Frame::udp(CLIENT, VIP).extensions(&[options(DESTINATION, 0)]).build();
            frame[55] = 30;
            frame.extend([0; 300]);
            frame
        };
        let chain = |chain: &[(u8, Vec<u8>)]| Frame::udp(CLIENT, VIP).extensions(chain).build();
        for (frame, reason, what) in [
            (chain(&vec![options(DESTINATION, 0); 13]), Reason::ExtensionHeader, "too many"),
            (chain(&[options(DESTINATION, 57)]), Reason::ExtensionHeader, "too long"),
            (chain(&[options(DESTINATION, 255)]), Reason::ExtensionHeader, "very long"),
            (chain(&[routing(2, 1)]), Reason::ExtensionHeader, "another destination follows"),
            (chain(&[atomic(), atomic()]), Reason::ExtensionHeader, "two Fragment headers"),
            (chain(&[(59, vec![0; 7])]), Reason::UnknownProtocol, "no next header"),
            (cut(payload), Reason::Malformed, "nothing behind the header"),
            (cut(payload - 7), Reason::Malformed, "UDP cut short"),
            (cut(payload + 8), Reason::Malformed, "header cut short"),
            (cut(payload + 30), Reason::Malformed, "header cut to its first bytes"),
            (longer_than_the_packet, Reason::Malformed, "header longer than the packet"),
        ] {
            let before = oracle.memory.counters.get(&reason).copied().unwrap_or(0);
            for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                let run = oracle.run(hook, UPLINK, &frame);
                assert_eq!(run.outcome, Outcome::Pass, "{what} at {hook:?}");
                assert_frames_eq(&run.bytes, &frame);
            }
            assert_eq!(oracle.memory.counters.get(&reason), Some(&(before + 1)), "{what}");
        }
        assert!(oracle.memory.v6.embryos.is_empty());
    });
}

#[test]
fn b48_multicast_listener_discovery_behind_a_router_alert_passes() {
    with_oracle(|oracle| {
        serve(oracle);
        for kind in [130u8, 131, 132, 143] {
            let mut frame =
                Frame::udp("[fe80::7]:1", "[ff02::16]:1").extensions(&[options(HOP_BY_HOP, 0)]).ttl(1).build();
            (frame[54], frame[62]) = (proto::ICMPV6, kind);
            for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                let run = oracle.run(hook, UPLINK, &frame);
                assert_eq!(run.outcome, Outcome::Pass);
                assert_frames_eq(&run.bytes, &frame);
            }
        }
    });
}
