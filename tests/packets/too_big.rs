//! Packets that are longer than what the next hop takes: whose sender is told, from where, and who is not.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use svc_common::{maps::Answers, net::proto, outcome::Outcome, packet::Hook, reason::Reason};
use svc_tests::{
    message::Message,
    oracle::{NODE, Oracle, UPLINK, WORKLOAD, with_oracle},
    packet::{Frame, assert_frames_eq},
    pieces::pieces,
};

/// Frontend, its address, backend on another node, its address, client, its address, what the backend sees, its address.
const REMOTE: [[&str; 8]; 2] = [
    [
        "192.0.2.10:30080",
        "192.0.2.10",
        "10.244.2.5:8080",
        "10.244.2.5",
        "198.51.100.7:20000",
        "198.51.100.7",
        "192.0.2.10:20000",
        NODE.0,
    ],
    [
        "[2001:db8::10]:30080",
        "2001:db8::10",
        "[fd00:244:2::5]:8080",
        "fd00:244:2::5",
        "[2001:db8:7::7]:20000",
        "2001:db8:7::7",
        "[2001:db8::10]:20000",
        NODE.1,
    ],
];

/// Next-hop MTU 1500, as it stands in the error.
const MTU: [u8; 4] = [0, 0, 0x05, 0xdc];

/// Lets the test run on one CPU, as answers are counted for each.
fn stay_on_one_cpu() {
    let mut cpus = CpuSet::new();
    cpus.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
}

/// A frame with so many bytes of payload.
fn long(open: fn(&str, &str) -> Frame, src: &str, dst: &str) -> Frame {
    let payload: Vec<u8> = (0..=255).cycle().take(1600).collect();
    open(src, dst).payload(&payload)
}

/// What its sender is told: type and code, and as much of the packet as fits into 576 or 1280 bytes, by 32 bytes.
fn told(frame: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (error, quoted) = if frame[12] == 0x08 { ((3, 4), 544) } else { ((2, 0), 1216) };
    Message::error(from, to, error, frame, quoted)
        .rest(MTU)
        .plain()
        .macs([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1])
        .build()
}

/// The same IPv4 frame, but routers may cut it into fragments.
fn to_be_cut(frame: &Frame) -> Vec<u8> {
    let mut bytes = frame.build();
    let (mut ip, _) = etherparse::Ipv4Header::from_slice(&bytes[14..]).unwrap();
    ip.dont_fragment = false;
    ip.header_checksum = ip.calc_header_checksum();
    bytes[14..34].copy_from_slice(&ip.to_bytes());
    bytes
}

fn counted(oracle: &Oracle, reason: Reason) -> u64 {
    oracle.memory.counters.get(&reason).copied().unwrap_or(0)
}

#[test]
fn b41_the_sender_of_a_long_packet_is_told_by_the_address_that_it_used() {
    with_oracle(|oracle| {
        stay_on_one_cpu();
        let uplink = oracle.ifindex(UPLINK);
        for (id, [vip, vip_addr, backend, backend_addr, client, client_addr, source, source_addr]) in
            (100..).step_by(100).zip(REMOTE)
        {
            for (offset, protocol, open) in
                [(0, proto::TCP, Frame::tcp as fn(&str, &str) -> Frame), (1, proto::UDP, Frame::udp)]
            {
                oracle.serve(id + offset, protocol, &[vip], &[backend]);
                // The first packet of the connection, of one that is half open, and of one that is established.
                for _ in 0..3 {
                    let request = long(open, client, vip).build();
                    let run = oracle.run(Hook::Ingress, UPLINK, &request);
                    assert_eq!(run.outcome, Outcome::Send(uplink));
                    assert_frames_eq(&run.bytes, &told(&request, vip_addr, client_addr));

                    let answer = long(open, backend, source).build();
                    let run = oracle.run(Hook::Ingress, UPLINK, &answer);
                    assert_eq!(run.outcome, Outcome::Send(uplink));
                    assert_frames_eq(&run.bytes, &told(&answer, source_addr, backend_addr));

                    oracle.run(Hook::Ingress, UPLINK, &open(backend, source).build());
                    oracle.run(Hook::Ingress, UPLINK, &open(client, vip).build());
                }
                let request = long(open, client, vip).build();
                let run = oracle.run(Hook::Xdp, UPLINK, &request);
                assert_eq!(run.outcome, Outcome::Pass, "XDP leaves it to tc");
                assert_frames_eq(&run.bytes, &request);
            }
        }
        assert_eq!(counted(oracle, Reason::TooBig), 2 * 2 * 6);
    });
}

#[test]
fn b41_a_pod_whose_answer_is_too_long_is_told() {
    with_oracle(|oracle| {
        stay_on_one_cpu();
        oracle.set_fast(&[UPLINK, WORKLOAD]);
        let workload = oracle.ifindex(WORKLOAD);
        for (id, vip, pod, pod_addr, client, client_addr) in [
            (100, "10.96.0.10:80", "10.244.1.5:8080", "10.244.1.5", "198.51.100.7:40000", "198.51.100.7"),
            (
                200,
                "[fd00:96::10]:80",
                "[fd00:244:1::5]:8080",
                "fd00:244:1::5",
                "[2001:db8:7::7]:40000",
                "2001:db8:7::7",
            ),
        ] {
            oracle.serve(id, proto::TCP, &[vip], &[pod]);
            let request = long(Frame::tcp, client, vip);
            let run = oracle.run(Hook::Ingress, UPLINK, &request.build());
            assert_eq!(run.outcome, Outcome::Deliver, "the stack tells the client");
            assert_frames_eq(&run.bytes, &request.to(pod).build());
            // Another transport, whose checksum is of another kind.
            oracle.serve(id + 1, proto::SCTP, &[vip], &[pod]);
            let request = long(|src, dst| Frame::sctp(src, dst, 0), client, vip);
            let run = oracle.run(Hook::Ingress, UPLINK, &request.build());
            assert_eq!(run.outcome, Outcome::Deliver);
            assert_frames_eq(&run.bytes, &request.to(pod).build());

            let answer = long(Frame::tcp, pod, client).build();
            let run = oracle.run(Hook::Ingress, WORKLOAD, &answer);
            assert_eq!(run.outcome, Outcome::Send(workload));
            assert_frames_eq(&run.bytes, &told(&answer, client_addr, pod_addr));
        }
    });
}

#[test]
fn b39_an_error_of_this_nodes_own_stack_is_translated_where_the_programs_forward() {
    with_oracle(|oracle| {
        oracle.set_fast(&[UPLINK, WORKLOAD]);
        for (id, vip, pod, client, node, client_addr, error) in [
            (100, "10.96.0.10:80", "10.244.1.5:8080", "198.51.100.7:40000", NODE.0, "198.51.100.7", (3, 4)),
            (200, "[fd00:96::10]:80", "[fd00:244:1::5]:8080", "[2001:db8:7::7]:40000", NODE.1, "2001:db8:7::7", (2, 0)),
        ] {
            oracle.serve(id, proto::UDP, &[vip], &[pod]);
            oracle.run(Hook::Ingress, UPLINK, &Frame::udp(client, vip).build());
            let seen = Frame::udp(client, pod).build();
            let run = oracle.run(Hook::Egress, UPLINK, &Message::error(node, client_addr, error, &seen, 100).build());
            assert_eq!(run.outcome, Outcome::Deliver);
            let sent = Frame::udp(client, vip).build();
            assert_frames_eq(&run.bytes, &Message::error(node, client_addr, error, &sent, 100).build());
        }
    });
}

#[test]
fn b41_what_may_be_cut_is_left_to_the_stack_if_it_forwards_it() {
    with_oracle(|oracle| {
        let [node_port, _, backend, _, client, _, source, _] = REMOTE[0];
        let vip = "192.168.60.1:80";
        oracle.serve(100, proto::UDP, &[node_port, vip], &[backend]);
        for (frontend, client, source) in [(node_port, client, source), (vip, "198.51.100.8:20001", "192.0.2.10:20001")]
        {
            let run = oracle.run(Hook::Ingress, UPLINK, &Frame::udp(client, frontend).build());
            assert_eq!(run.outcome, Outcome::Send(oracle.ifindex(UPLINK)));
            let run = oracle.run(Hook::Ingress, UPLINK, &to_be_cut(&long(Frame::udp, client, frontend)));
            assert_eq!(run.outcome, Outcome::Drop(Reason::Unanswered), "the stack forwards nothing from this node");
            let answer = long(Frame::udp, backend, source);
            let run = oracle.run(Hook::Ingress, UPLINK, &to_be_cut(&answer));
            if frontend == node_port {
                assert_eq!(run.outcome, Outcome::Drop(Reason::Unanswered));
            } else {
                assert_eq!(run.outcome, Outcome::Deliver);
                assert_frames_eq(&run.bytes, &to_be_cut(&answer.from(vip).to(client)));
            }
        }
    });
}

#[test]
fn b41_an_aggregate_of_long_packets_is_answered_as_one() {
    with_oracle(|oracle| {
        stay_on_one_cpu();
        for (id, [vip, vip_addr, backend, _, client, client_addr, ..]) in (100..).step_by(100).zip(REMOTE) {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            let request = Frame::tcp(client, vip).payload(&[0x5a; 3_200]).build();
            let run = oracle.run_aggregate(Hook::Ingress, UPLINK, &request, 1_600);
            assert_frames_eq(&run.bytes, &told(&request, vip_addr, client_addr));
        }
    });
}

#[test]
fn b42_frames_to_many_are_not_answered() {
    with_oracle(|oracle| {
        stay_on_one_cpu();
        for (id, [vip, _, backend, _, client, ..]) in (100..).step_by(100).zip(REMOTE) {
            oracle.serve(id, proto::UDP, &[vip], &[backend]);
            for destination in [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1]] {
                let request = long(Frame::udp, client, vip).macs([2, 0, 0, 0, 0, 1], destination).build();
                let run = oracle.run(Hook::Ingress, UPLINK, &request);
                assert_eq!(run.outcome, Outcome::Drop(Reason::Unanswered));
                assert_frames_eq(&run.bytes, &request);
            }
        }
        assert_eq!((counted(oracle, Reason::TooBig), counted(oracle, Reason::Unanswered)), (0, 4));
    });
}

#[test]
fn b41_answers_are_few_in_any_second() {
    with_oracle(|oracle| {
        stay_on_one_cpu();
        let [vip, _, backend, _, client, ..] = REMOTE[0];
        oracle.serve(100, proto::UDP, &[vip], &[backend]);
        let request = long(Frame::udp, client, vip).build();
        for _ in 0..2 {
            for _ in 0..Answers::LIMIT {
                let run = oracle.run(Hook::Ingress, UPLINK, &request);
                assert_eq!(run.outcome, Outcome::Send(oracle.ifindex(UPLINK)));
            }
            for _ in 0..2 {
                let run = oracle.run(Hook::Ingress, UPLINK, &request);
                assert_eq!(run.outcome, Outcome::Drop(Reason::Unanswered));
            }
            oracle.advance(1);
        }
    });
}

#[test]
fn b42_nobody_is_told_of_a_later_piece_that_is_too_long() {
    with_oracle(|oracle| {
        stay_on_one_cpu();
        let [vip, _, backend, _, client, ..] = REMOTE[1];
        oracle.serve(200, proto::UDP, &[vip], &[backend]);
        let request = Frame::udp(client, vip).payload(&[7; 4_000]).build();
        let pieces = pieces(&request, 1_600, 7);
        let run = oracle.run(Hook::Ingress, UPLINK, &pieces[0]);
        assert_eq!(run.outcome, Outcome::Send(oracle.ifindex(UPLINK)), "of the first its sender is told");
        let run = oracle.run(Hook::Ingress, UPLINK, &pieces[1]);
        assert_eq!(run.outcome, Outcome::Drop(Reason::Unanswered));
        assert_frames_eq(&run.bytes, &pieces[1]);
    });
}
