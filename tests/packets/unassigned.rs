//! Packets of every kind to addresses that services get and none has (B66).

use svc_common::{net::proto, outcome::Outcome, packet::Hook, reason::Reason};
use svc_tests::{
    message::Message,
    oracle::{Oracle, UPLINK, WORKLOAD, with_oracle},
    packet::{Frame, assert_frames_eq, inside},
    pieces::pieces,
};

/// Client, an address that no service has, one outside of the networks of services, a ClusterIP.
const WORLDS: [[&str; 4]; 2] = [
    ["198.51.100.7", "10.96.0.99", "10.97.0.1", "10.96.0.10"],
    ["2001:db8:7::7", "fd00:96::99", "fd00:97::1", "fd00:96::10"],
];
/// Where packets are dropped; XDP leaves what it does not read to tc.
const HOOKS: [(Hook, &str); 3] = [(Hook::Ingress, UPLINK), (Hook::Ingress, WORKLOAD), (Hook::Egress, UPLINK)];

fn port(addr: &str, port: u16) -> String {
    std::net::SocketAddr::new(addr.parse().unwrap(), port).to_string()
}

/// A frame with another protocol number than it was made with.
fn with_protocol(mut frame: Vec<u8>, protocol: u8) -> Vec<u8> {
    let offset = if frame[12] == 0x08 { 23 } else { 20 };
    frame[offset] = protocol;
    frame
}

/// Frames from `src` to `dst` of all the kinds that the ordinary path does not read.
fn frames(src: &str, dst: &str) -> Vec<(&'static str, Vec<u8>)> {
    let v4 = src.contains('.');
    let (from, to) = (port(src, 40_000), port(dst, 80));
    let datagram = Frame::udp(&from, &to).payload(&[7; 600]).build();
    let answer = Frame::tcp(&to, &from).build();
    let mut frames = vec![
        ("echo request", Message::new(src, dst, if v4 { 8 } else { 128 }, 0).payload(b"ping").build()),
        ("echo reply", Message::new(src, dst, if v4 { 0 } else { 129 }, 0).payload(b"ping").build()),
        ("ICMP of another type", Message::new(src, dst, 200, 0).payload(b"what?").build()),
        ("ICMP error", Message::error(src, dst, if v4 { (3, 1) } else { (1, 3) }, &answer, 1500).build()),
        (
            "ICMP error with a strange quote",
            Message::new(src, dst, if v4 { 3 } else { 1 }, 1).payload(&[7; 40]).build(),
        ),
        ("GRE", with_protocol(datagram.clone(), 47)),
        ("an unassigned protocol", with_protocol(datagram.clone(), 200)),
        ("SCTP cut short", with_protocol(Frame::udp(&from, &to).payload(b"").build(), proto::SCTP)),
        ("TCP cut short", with_protocol(Frame::udp(&from, &to).payload(b"").build(), proto::TCP)),
        ("a packet in a packet", inside(&Frame::syn(&from, &to).build(), src, dst)),
    ];
    for piece in pieces(&datagram, 128, 7) {
        frames.push(("fragment", piece));
    }
    for piece in pieces(&with_protocol(datagram, 47), 128, 8) {
        frames.push(("fragment of another protocol", piece));
    }
    if !v4 {
        let padding = |len: u8| {
            let mut body = vec![0; 7];
            body.splice(0..1, [0, 1, len]);
            body.truncate(7);
            body
        };
        let behind = |kind| Frame::udp(&from, &to).extensions(&[(kind, padding(4))]).build();
        frames.push(("destination options", behind(60)));
        let mut unknown = behind(60);
        // The header behind the options is of an unassigned protocol.
        unknown[54] = 200;
        frames.push(("options before an unassigned protocol", unknown));
    }
    frames
}

fn configure(oracle: &mut Oracle) {
    for (id, [_, _, _, vip]) in (100..).zip(WORLDS) {
        let backend = if id == 100 { "10.244.1.5:8080" } else { "[fd00:244:1::5]:8080" };
        oracle.serve(id, proto::TCP, &[&port(vip, 80)], &[backend]);
    }
    let mut v6_mask = [0; 16];
    v6_mask[..8].fill(0xff);
    let v6_net = [0xfd, 0, 0, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    oracle.set_service_networks(([10, 96, 0, 0], [255, 255, 0, 0]), (v6_net, v6_mask));
}

#[test]
fn b66_packets_of_every_kind_to_an_unassigned_address_end_here() {
    with_oracle(|oracle| {
        configure(oracle);
        for [client, unassigned, outside, _] in WORLDS {
            for (hook, device) in HOOKS {
                for (kind, frame) in frames(client, unassigned) {
                    let run = oracle.run(hook, device, &frame);
                    let expected = Outcome::Drop(Reason::UnassignedAddress);
                    assert_eq!(run.outcome, expected, "{kind} to {unassigned} at {hook:?} of {device}");
                    assert_frames_eq(&run.bytes, &frame);
                }
                for (kind, frame) in frames(client, outside) {
                    let run = oracle.run(hook, device, &frame);
                    assert_eq!(run.outcome, Outcome::Pass, "{kind} to {outside} at {hook:?} of {device}");
                    assert_frames_eq(&run.bytes, &frame);
                }
            }
            for (kind, frame) in frames(client, unassigned) {
                let run = oracle.run(Hook::Xdp, UPLINK, &frame);
                assert!(!matches!(run.outcome, Outcome::Send(_)), "{kind} at XDP: {run:?}");
                assert_frames_eq(&run.bytes, &frame);
            }
        }
    });
}

#[test]
fn b66_what_a_service_has_is_not_unassigned() {
    with_oracle(|oracle| {
        configure(oracle);
        for [client, _, _, vip] in WORLDS {
            for (hook, device) in HOOKS {
                for (kind, frame) in frames(client, vip) {
                    let run = oracle.run(hook, device, &frame);
                    let dropped = run.outcome == Outcome::Drop(Reason::UnassignedAddress);
                    assert!(!dropped, "{kind} to {vip} at {hook:?} of {device}");
                }
            }
        }
    });
}
