//! Datagrams in pieces.

use svc_common::{maps::datagram_state, net::proto, outcome::Outcome, packet::Hook, reason::Reason};
use svc_tests::{
    oracle::{NODE, Oracle, ROUTER_MAC, UPLINK, UPLINK_MAC, WORKLOAD, with_oracle},
    packet::{Frame, assert_frames_eq},
    pieces::pieces,
};

/// VIP, backend on this node, client outside; in both families.
const WORLDS: [(&str, &str, &str); 2] = [
    ("10.96.0.10:80", "10.244.1.5:8080", "198.51.100.7:40000"),
    ("[fd00:96::10]:80", "[fd00:244:1::5]:8080", "[2001:db8:7::7]:40000"),
];

/// NodePort, the node's own address with the client's port, backend elsewhere, client outside.
const FAR: [(&str, &str, &str, &str); 2] = [
    ("192.0.2.10:30080", "192.0.2.10:20000", "10.244.2.5:8080", "198.51.100.7:20000"),
    ("[2001:db8::10]:30080", "[2001:db8::10]:20000", "[fd00:244:2::5]:8080", "[2001:db8:7::7]:20000"),
];

type Open = fn(&str, &str) -> Frame;
const OPENS: [(u8, Open); 2] = [(proto::UDP, Frame::udp), (proto::TCP, Frame::tcp)];

fn serve(oracle: &mut Oracle) {
    for ((id, (vip, backend, _)), (port, _, far, _)) in (100..).step_by(100).zip(WORLDS).zip(FAR) {
        for (offset, (protocol, _)) in (0..).step_by(10).zip(OPENS) {
            oracle.serve(id + offset, protocol, &[vip], &[backend]);
            oracle.serve(id + offset + 1, protocol, &[port], &[far]);
        }
    }
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

fn count(oracle: &Oracle, reason: Reason) -> u64 {
    oracle.memory.counters.get(&reason).copied().unwrap_or(0)
}

/// Runs frames one after the other; each comes out as the one expected.
#[track_caller]
fn become_frames(oracle: &mut Oracle, hook: Hook, outcome: Outcome, frames: &[Vec<u8>], expected: &[Vec<u8>]) {
    assert_eq!(frames.len(), expected.len());
    for (n, (frame, expected)) in frames.iter().zip(expected).enumerate() {
        let run = oracle.run(hook, UPLINK, frame);
        assert_eq!(run.outcome, outcome, "piece {n} at {hook:?}");
        assert_frames_eq(&run.bytes, expected);
    }
}

#[test]
fn b44_every_piece_gets_the_translation_of_the_first() {
    with_oracle(|oracle| {
        serve(oracle);
        for (vip, backend, client) in WORLDS {
            for (id, (_, open)) in (1..).zip(OPENS) {
                let there = open(client, vip).payload(&payload(3000));
                let cut = |frame: &Frame| pieces(&frame.build(), 1024, id);
                let expected = cut(&there.clone().to(backend));
                become_frames(oracle, Hook::Ingress, Outcome::Deliver, &cut(&there), &expected);
                let back = open(backend, client).payload(&payload(3000));
                let expected = cut(&back.clone().from(vip));
                become_frames(oracle, Hook::Egress, Outcome::Deliver, &cut(&back), &expected);
                // Where the answer comes in, it is left alone.
                become_frames(oracle, Hook::Ingress, Outcome::Pass, &cut(&back), &cut(&back));
            }
        }
        assert_eq!(oracle.memory.services[&100].packets, 3, "a piece is a packet");
        assert_eq!(oracle.memory.services[&100].new_flows, 1);
    });
}

#[test]
fn b44_pieces_are_forwarded_at_every_hook() {
    with_oracle(|oracle| {
        serve(oracle);
        let out = Outcome::Send(oracle.ifindex(UPLINK));
        for (port, source, backend, client) in FAR {
            for (id, hook) in [(0, Hook::Xdp), (10, Hook::Ingress)] {
                for (id, (_, open)) in (id..).zip(OPENS) {
                    let cut = |frame: &Frame| pieces(&frame.build(), 1000, id);
                    let there = open(client, port).payload(&payload(2500));
                    let expected = there.clone().from(source).to(backend).macs(UPLINK_MAC, ROUTER_MAC).ttl(63);
                    become_frames(oracle, hook, out, &cut(&there), &cut(&expected));
                    let back = open(backend, source).payload(&payload(2500));
                    let expected = back.clone().from(port).to(client).macs(UPLINK_MAC, ROUTER_MAC).ttl(63);
                    become_frames(oracle, hook, out, &cut(&back), &cut(&expected));
                }
            }
        }
    });
}

#[test]
fn b45_a_last_piece_may_have_a_single_byte() {
    with_oracle(|oracle| {
        serve(oracle);
        for (vip, backend, client) in WORLDS {
            for (id, last) in (1..).zip(1..=9) {
                // The UDP header is 8 of the first 64 bytes.
                let request = Frame::udp(client, vip).payload(&payload(56 + last));
                let cut = |frame: &Frame| pieces(&frame.build(), 64, id);
                let expected = cut(&request.clone().to(backend));
                assert_eq!(expected.len(), 2);
                become_frames(oracle, Hook::Ingress, Outcome::Deliver, &cut(&request), &expected);
            }
        }
    });
}

#[test]
fn b46_pieces_before_the_first_are_held_and_come_by_again() {
    with_oracle(|oracle| {
        serve(oracle);
        for (vip, backend, client) in WORLDS {
            for (id, hook, (src, dst), expected) in [
                (1, Hook::Ingress, (client, vip), Frame::udp(client, backend)),
                (2, Hook::Egress, (backend, client), Frame::udp(vip, client)),
            ] {
                let frames = pieces(&Frame::udp(src, dst).payload(&payload(5000)).build(), 1024, id);
                let expected = pieces(&expected.payload(&payload(5000)).build(), 1024, id);
                for frame in frames[1..].iter().rev() {
                    let run = oracle.run(hook, UPLINK, frame);
                    assert_eq!(run.outcome, Outcome::Drop(Reason::FragmentHeld));
                }
                become_frames(oracle, hook, Outcome::Deliver, &frames[..1], &expected[..1]);
                let mut again = std::mem::take(&mut oracle.memory.again);
                again.reverse();
                assert_eq!(again.len(), frames.len() - 1);
                for (again, held) in again.iter().zip(&frames[1..]) {
                    assert_frames_eq(again, held);
                }
                become_frames(oracle, hook, Outcome::Deliver, &again, &expected[1..]);
                assert!(oracle.memory.again.is_empty());
            }
        }
        assert!(oracle.memory.v4.held.is_empty() && oracle.memory.v6.held.is_empty());
        assert_eq!(count(oracle, Reason::FragmentHeld), count(oracle, Reason::FragmentReleased));
    });
}

#[test]
fn b46_xdp_leaves_pieces_out_of_order_to_tc() {
    with_oracle(|oracle| {
        serve(oracle);
        let out = Outcome::Send(oracle.ifindex(UPLINK));
        for (port, source, backend, client) in FAR {
            let request = Frame::udp(client, port).payload(&payload(2500));
            let expected = request.clone().from(source).to(backend).macs(UPLINK_MAC, ROUTER_MAC).ttl(63);
            let (frames, expected) = (pieces(&request.build(), 1000, 1), pieces(&expected.build(), 1000, 1));
            become_frames(oracle, Hook::Xdp, Outcome::Pass, &frames[1..2], &frames[1..2]);
            oracle.run(Hook::Ingress, UPLINK, &frames[1]);
            // The first one, too, as XDP cannot send what is held.
            become_frames(oracle, Hook::Xdp, Outcome::Pass, &frames[..1], &frames[..1]);
            become_frames(oracle, Hook::Ingress, out, &frames[..1], &expected[..1]);
            assert_eq!(oracle.memory.again, frames[1..2]);
            oracle.memory.again.clear();
            become_frames(oracle, Hook::Xdp, out, &frames[1..], &expected[1..]);
        }
    });
}

#[test]
fn b46_what_is_held_expires() {
    with_oracle(|oracle| {
        serve(oracle);
        for ((vip, backend, client), limit) in WORLDS.into_iter().zip([30, 60]) {
            let cut = |frame: &Frame| pieces(&frame.build(), 1024, 7);
            let request = Frame::udp(client, vip).payload(&payload(3000));
            let (frames, expected) = (cut(&request), cut(&request.clone().to(backend)));
            oracle.run(Hook::Ingress, UPLINK, &frames[1]);
            oracle.advance(limit);
            become_frames(oracle, Hook::Ingress, Outcome::Deliver, &frames[..1], &expected[..1]);
            assert_eq!(oracle.memory.again.len(), 1, "just in time");
            become_frames(oracle, Hook::Ingress, Outcome::Deliver, &frames[1..], &expected[1..]);
            oracle.memory.again.clear();
            // The ports of a datagram of long ago are not those of this one.
            oracle.advance(limit + 1);
            let run = oracle.run(Hook::Ingress, UPLINK, &frames[1]);
            assert_eq!(run.outcome, Outcome::Drop(Reason::FragmentHeld));
            oracle.advance(limit + 1);
            become_frames(oracle, Hook::Ingress, Outcome::Deliver, &frames[..1], &expected[..1]);
            assert!(oracle.memory.again.is_empty(), "too late");
            // A remnant's place is taken over.
            oracle.advance(limit + 1);
            oracle.run(Hook::Ingress, UPLINK, &frames[1]);
            become_frames(oracle, Hook::Ingress, Outcome::Deliver, &frames[..1], &expected[..1]);
            assert_eq!(oracle.memory.again, frames[1..2]);
            oracle.memory.again.clear();
        }
    });
}

#[test]
fn b46_what_is_held_is_bounded() {
    with_oracle(|oracle| {
        serve(oracle);
        for (vip, _, client) in WORLDS {
            let frames = pieces(&Frame::udp(client, vip).payload(&payload(800)).build(), 16, 7);
            let (mut held, mut lost) = (0, 0);
            for frame in &frames[1..50] {
                match oracle.run(Hook::Ingress, UPLINK, frame).outcome {
                    Outcome::Drop(Reason::FragmentHeld) => held += 1,
                    Outcome::Drop(Reason::FragmentLost) => lost += 1,
                    outcome => panic!("{outcome:?}"),
                }
            }
            assert_eq!((held, lost), (45, 4));
            // One that is too long for its place.
            let frames = pieces(&Frame::udp(client, vip).payload(&payload(3600)).build(), 2032, 8);
            let run = oracle.run(Hook::Ingress, UPLINK, &frames[1]);
            assert_eq!(run.outcome, Outcome::Drop(Reason::FragmentHeld));
            let frames = pieces(&Frame::udp(client, vip).payload(&payload(6000)).build(), 2040, 9);
            let run = oracle.run(Hook::Ingress, UPLINK, &frames[1]);
            assert_eq!(run.outcome, Outcome::Drop(Reason::FragmentLost));
        }
    });
}

#[test]
fn b46_pieces_on_their_way_through_are_not_held() {
    with_oracle(|oracle| {
        serve(oracle);
        for (src, dst) in [("198.51.100.7:1", "203.0.113.9:2"), ("[2001:db8:7::7]:1", "[2001:db8:9::9]:2")] {
            let frames = pieces(&Frame::udp(src, dst).payload(&payload(3000)).build(), 1024, 7);
            for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                become_frames(oracle, hook, Outcome::Pass, &frames[1..], &frames[1..]);
            }
            for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                become_frames(oracle, hook, Outcome::Pass, &frames, &frames);
            }
        }
        // To a pod and to the node itself they are: whatever comes before the first is of no use to them.
        for dst in ["10.244.1.5:9000", NODE.0, "[fd00:244:1::5]:9000", NODE.1] {
            let (src, dst) = match dst.parse::<std::net::IpAddr>() {
                Ok(std::net::IpAddr::V4(ip)) => ("198.51.100.7:1", format!("{ip}:9000")),
                Ok(std::net::IpAddr::V6(ip)) => ("[2001:db8:7::7]:1", format!("[{ip}]:9000")),
                Err(_) if dst.starts_with('[') => ("[2001:db8:7::7]:1", dst.to_owned()),
                Err(_) => ("198.51.100.7:1", dst.to_owned()),
            };
            let frames = pieces(&Frame::udp(src, &dst).payload(&payload(3000)).build(), 1024, 8);
            let run = oracle.run(Hook::Ingress, UPLINK, &frames[2]);
            assert_eq!(run.outcome, Outcome::Drop(Reason::FragmentHeld), "{dst}");
            become_frames(oracle, Hook::Ingress, Outcome::Pass, &frames[..2], &frames[..2]);
            let again = std::mem::take(&mut oracle.memory.again);
            become_frames(oracle, Hook::Ingress, Outcome::Pass, &again, &frames[2..]);
        }
    });
}

#[test]
fn b44_a_beginning_without_its_whole_header_is_refused_at_a_vip() {
    with_oracle(|oracle| {
        serve(oracle);
        for (id, (vip, _, client)) in (1..).zip(WORLDS) {
            for hook in [Hook::Xdp, Hook::Ingress] {
                let frames = pieces(&Frame::tcp(client, vip).build(), 16, id);
                for frame in &frames {
                    let run = oracle.run(hook, UPLINK, frame);
                    assert_eq!(run.outcome, Outcome::Drop(Reason::FragmentRefused), "{hook:?}");
                }
            }
            // Elsewhere it is none of our business.
            let (src, dst) = if id == 1 { (client, "203.0.113.9:2") } else { (client, "[2001:db8:9::9]:2") };
            let frames = pieces(&Frame::tcp(src, dst).build(), 16, id);
            become_frames(oracle, Hook::Ingress, Outcome::Pass, &frames, &frames);
        }
    });
}

#[test]
fn b46_two_beginnings_of_one_ipv6_datagram_void_it() {
    with_oracle(|oracle| {
        serve(oracle);
        let [(vip4, backend4, client4), (vip, backend, client)] = WORLDS;
        let cut = |frame: &Frame| pieces(&frame.build(), 64, 7);
        let request = Frame::udp(client, vip).payload(&payload(100));
        let (frames, expected) = (cut(&request), cut(&request.clone().to(backend)));
        become_frames(oracle, Hook::Ingress, Outcome::Deliver, &frames[..1], &expected[..1]);
        // The same once more is a copy, not a contradiction.
        become_frames(oracle, Hook::Ingress, Outcome::Deliver, &frames[..1], &expected[..1]);
        let other = cut(&request.clone().from("[2001:db8:7::7]:40001"));
        for frame in [&other[0], &frames[0], &frames[1], &other[1]] {
            let run = oracle.run(Hook::Ingress, UPLINK, frame);
            assert_eq!(run.outcome, Outcome::Drop(Reason::FragmentRefused));
        }
        assert_eq!(oracle.memory.v6.datagrams.values().next().unwrap().state, datagram_state::REFUSED);
        // IPv4's identifications come again: the later beginning counts.
        let request = Frame::udp(client4, vip4).payload(&payload(100));
        let other = request.clone().from("198.51.100.7:40001");
        for request in [request, other] {
            let expected = cut(&request.clone().to(backend4));
            become_frames(oracle, Hook::Ingress, Outcome::Deliver, &cut(&request), &expected);
        }
    });
}

#[test]
fn b44_pieces_of_other_protocols_pass() {
    with_oracle(|oracle| {
        serve(oracle);
        for (id, (vip, _, client)) in (1..).zip(WORLDS) {
            for protocol in [proto::ICMP, proto::ICMPV6, 50, 200] {
                let mut frame = Frame::udp(client, vip).payload(&payload(200)).build();
                if frame[12] == 0x08 {
                    frame[23] = protocol;
                } else {
                    frame[20] = protocol;
                }
                let frames = pieces(&frame, 104, id);
                for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                    become_frames(oracle, hook, Outcome::Pass, &frames, &frames);
                }
            }
        }
    });
}

#[test]
fn b42_later_pieces_are_never_answered() {
    with_oracle(|oracle| {
        for (id, (vip, _, client)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::UDP, &[vip], &[]);
            let frames = pieces(&Frame::udp(client, vip).payload(&payload(200)).build(), 104, 7);
            oracle.run(Hook::Ingress, UPLINK, &frames[0]);
            let run = oracle.run(Hook::Ingress, UPLINK, &frames[1]);
            assert_eq!(run.outcome, Outcome::Drop(Reason::Unanswered));
        }
    });
}

#[test]
fn b44_a_pods_pieces_reach_a_vip() {
    with_oracle(|oracle| {
        serve(oracle);
        for (vip, backend, pod) in [
            ("10.96.0.10:80", "10.244.1.5:8080", "10.244.1.6:40000"),
            ("[fd00:96::10]:80", "[fd00:244:1::5]:8080", "[fd00:244:1::6]:40000"),
        ] {
            let request = Frame::udp(pod, vip).payload(&payload(3000));
            let cut = |frame: &Frame| pieces(&frame.build(), 1024, 7);
            for (frame, expected) in cut(&request).iter().zip(cut(&request.clone().to(backend))) {
                let run = oracle.run(Hook::Ingress, WORKLOAD, frame);
                assert_frames_eq(&run.bytes, &expected);
            }
        }
    });
}

#[test]
fn b44_in_ipv4_each_protocol_has_identifications_of_its_own() {
    with_oracle(|oracle| {
        serve(oracle);
        let (vip, backend, client) = WORLDS[0];
        let other = client.replace("40000", "50000");
        let [udp, tcp] = [Frame::udp(client, vip), Frame::tcp(&other, vip)].map(|frame| {
            let there = frame.payload(&payload(2000));
            let expected = pieces(&there.clone().to(backend).build(), 1024, 7);
            (pieces(&there.build(), 1024, 7), expected)
        });
        for n in 0..2 {
            for (frames, expected) in [&udp, &tcp] {
                become_frames(oracle, Hook::Ingress, Outcome::Deliver, &frames[n..=n], &expected[n..=n]);
            }
        }
        assert_eq!(oracle.memory.v4.datagrams.len(), 2);
    });
}

#[test]
fn b46_remnants_neither_take_the_room_of_later_pieces_nor_come_by_again() {
    with_oracle(|oracle| {
        serve(oracle);
        for ((vip, backend, client), limit) in WORLDS.into_iter().zip([30, 60]) {
            let cut = |frame: &Frame| pieces(&frame.build(), 1024, 7);
            let request = Frame::udp(client, vip).payload(&payload(8000));
            let (frames, expected) = (cut(&request), cut(&request.clone().to(backend)));
            // The first piece of these never comes.
            for frame in &frames[1..7] {
                oracle.run(Hook::Ingress, UPLINK, frame);
            }
            oracle.advance(limit + 1);
            let run = oracle.run(Hook::Ingress, UPLINK, &frames[2]);
            assert_eq!(run.outcome, Outcome::Drop(Reason::FragmentHeld));
            become_frames(oracle, Hook::Ingress, Outcome::Deliver, &frames[..1], &expected[..1]);
            assert_eq!(oracle.memory.again, frames[2..3], "that of this datagram alone");
            oracle.memory.again.clear();
            assert!(oracle.memory.v4.held.is_empty() && oracle.memory.v6.held.is_empty());
        }
    });
}
