//! A tuple that comes again after its connection or its backend is gone, and answers whose flow is lost.

use svc_common::{maps::backend_flags, net::proto, outcome::Outcome, packet::Hook};
use svc_tests::{
    oracle::{NODE, Oracle, UPLINK, WORKLOAD, with_oracle},
    packet::{Frame, assert_frames_eq},
};

/// VIP, two pods of this node, client; a port of the node, a pod elsewhere, the node's own address.
const WORLDS: [[&str; 7]; 2] = [
    [
        "10.96.0.10:80",
        "10.244.1.5:8080",
        "10.244.1.6:8080",
        "198.51.100.7:20000",
        "192.0.2.10:30080",
        "10.244.2.5:8080",
        NODE.0,
    ],
    [
        "[fd00:96::10]:80",
        "[fd00:244:1::5]:8080",
        "[fd00:244:1::6]:8080",
        "[2001:db8:7::7]:20000",
        "[2001:db8::10]:30080",
        "[fd00:244:2::5]:8080",
        NODE.1,
    ],
];

/// How a connection is at the moment at which its backend leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    /// Nobody answered the SYN.
    Unanswered,
    Answered,
    Established,
    /// Both sides have sent their FIN.
    Closed,
    Reset,
}

/// How its backend leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    /// It terminates, and gets no new connections.
    Drains,
    /// Its id is free.
    Gone,
}

#[test]
fn b61_a_new_syn_leaves_a_backend_that_terminates_or_is_gone() {
    use Before::*;
    with_oracle(|oracle| {
        for [vip, first, second, client, ..] in WORLDS {
            for leaves in [Leaves::Drains, Leaves::Gone] {
                for before in [Unanswered, Answered, Established, Closed, Reset] {
                    check(oracle, [vip, first, second, client], before, leaves);
                    oracle.reset();
                }
            }
        }
    });
}

fn check(oracle: &mut Oracle, [vip, first, second, client]: [&str; 4], before: Before, leaves: Leaves) {
    let there = |oracle: &mut Oracle, flags: &str| {
        oracle.run(Hook::Ingress, UPLINK, &Frame::tcp(client, vip).flags(flags).build());
    };
    let back = |oracle: &mut Oracle, flags: &str| {
        oracle.run(Hook::Egress, UPLINK, &Frame::tcp(first, client).flags(flags).build());
    };
    oracle.serve(100, proto::TCP, &[vip], &[first]);
    there(oracle, "S");
    if before != Before::Unanswered {
        back(oracle, "S.");
    }
    if matches!(before, Before::Established | Before::Closed | Before::Reset) {
        there(oracle, ".");
    }
    match before {
        Before::Closed => {
            there(oracle, "F.");
            back(oracle, "F.");
            there(oracle, ".");
        }
        Before::Reset => back(oracle, "R"),
        Before::Unanswered | Before::Answered | Before::Established => {}
    }
    oracle.set_backend(101, 100, second);
    oracle.set_selection(100, &[101]);
    match leaves {
        Leaves::Drains => {
            oracle.set_membership(100, false, false);
            oracle.change_backend_flags(100, |flags| flags & !backend_flags::READY | backend_flags::TERMINATING);
        }
        Leaves::Gone => oracle.remove_backend(100),
    }
    oracle.raise_epoch();
    let stays = match (before, leaves) {
        // Over a connection that may be alive a SYN is a retransmission.
        (Before::Answered | Before::Established, Leaves::Drains) => true,
        (Before::Answered | Before::Established, Leaves::Gone)
        | (Before::Unanswered | Before::Closed | Before::Reset, _) => false,
    };
    let syn = Frame::syn(client, vip);
    for _ in 0..2 {
        let run = oracle.run(Hook::Ingress, UPLINK, &syn.build());
        assert_eq!(run.outcome, Outcome::Deliver);
        let expected = syn.clone().to(if stays { first } else { second });
        assert_eq!(run.bytes, expected.build(), "{client}: {before:?}, {leaves:?}");
    }
}

#[test]
fn b20_an_answer_without_a_flow_is_the_backends_own_until_the_client_speaks_again() {
    for [vip, pod, _, client, node_port, far, node] in WORLDS {
        with_oracle(move |oracle| {
            oracle.serve(100, proto::TCP, &[vip], &[pod]);
            oracle.serve(200, proto::TCP, &[node_port], &[far]);
            let source = std::net::SocketAddr::new(node.parse().unwrap(), 20_000).to_string();
            // Where the answer is seen, what it is, and what it has to become.
            let answers = [
                (Hook::Egress, UPLINK, Frame::tcp(pod, client), vip),
                (Hook::Ingress, UPLINK, Frame::tcp(far, &source), node_port),
            ];
            for (hook, device, answer, dialled) in answers {
                // It looks like any packet of the backend's own: to a client that dials pods, or to this node.
                let run = oracle.run(hook, device, &answer.build());
                assert_eq!(run.outcome, Outcome::Pass, "{dialled}");
                assert_frames_eq(&run.bytes, &answer.build());
                // Nor is anything recorded that would keep the client's next packet from being served.
                let request = Frame::tcp(client, dialled);
                let run = oracle.run(Hook::Ingress, UPLINK, &request.build());
                assert!(matches!(run.outcome, Outcome::Deliver | Outcome::Send(_)), "{run:?}");
                let run = oracle.run(hook, device, &answer.build());
                assert!(matches!(run.outcome, Outcome::Deliver | Outcome::Send(_)), "{run:?}");
                let expected = answer.clone().from(dialled).to(client).build();
                // Source, destination, ports: behind 12 bytes of an IPv4 header, 8 of an IPv6 header.
                let (start, len) = if client.starts_with('[') { (22, 36) } else { (26, 12) };
                assert_eq!(run.bytes[start..start + len], expected[start..start + len], "{dialled}");
            }
            // The same at the pod's device: what the pod sends on its own behalf is left alone.
            let other = Frame::tcp(pod, &client.replace(":20000", ":443"));
            let run = oracle.run(Hook::Ingress, WORKLOAD, &other.build());
            assert_eq!(run.outcome, Outcome::Pass);
            assert_frames_eq(&run.bytes, &other.build());
        });
    }
}
