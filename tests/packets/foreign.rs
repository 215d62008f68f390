//! Frames that nobody here made: by scapy, with what they become and all checksums by scapy, too. `foreign.py` wrote them.

use svc_common::{
    maps::{Frontend, backend_flags, frontend_flags},
    net::proto,
    outcome::Outcome,
    packet::Hook,
};
use svc_tests::{
    oracle::{Oracle, UPLINK, with_oracle},
    packet::{assert_frames_eq, hex},
};

const FRAMES: &str = include_str!("foreign.txt");
/// VIP and backend, a pod of this node.
const SERVICES: [(&str, &str); 2] =
    [("10.96.0.10:80", "10.244.1.5:8080"), ("[fd00:96::10]:80", "[fd00:244:1::5]:8080")];

/// A frame, and what it has to become; nothing if it is left alone.
struct Line {
    name: &'static str,
    frame: Vec<u8>,
    becomes: Option<Vec<u8>>,
    /// Whether another node sent it, inside of a packet.
    carried: bool,
}

fn lines() -> impl Iterator<Item = Line> {
    FRAMES.lines().filter(|line| !line.starts_with('#')).map(|line| match line.split('|').collect::<Vec<_>>()[..] {
        [name, "pass", frame] => Line { name, frame: bytes(frame), becomes: None, carried: false },
        [name, fate @ ("deliver" | "unpack"), frame, becomes] => {
            Line { name, frame: bytes(frame), becomes: Some(bytes(becomes)), carried: fate == "unpack" }
        }
        _ => panic!("foreign.txt: not a line of foreign.py: {line}"),
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

fn serve(oracle: &mut Oracle) {
    for (id, (vip, backend)) in (100..).step_by(200).zip(SERVICES) {
        for protocol in [proto::TCP, proto::UDP, proto::SCTP] {
            oracle.serve(id + u32::from(protocol), protocol, &[vip], &[backend]);
        }
    }
}

#[test]
fn b03_frames_of_scapy_become_what_scapy_says() {
    with_oracle(|oracle| {
        serve(oracle);
        let mut wrong = Vec::new();
        for Line { name, frame, becomes, .. } in lines().filter(|line| !line.carried) {
            let run = oracle.run(Hook::Ingress, UPLINK, &frame);
            let outcome = if becomes.is_some() { Outcome::Deliver } else { Outcome::Pass };
            let expected = becomes.unwrap_or(frame);
            if run.outcome != outcome || run.bytes != expected {
                wrong.push(format!(
                    "{name}: {:?}\n  ours: {}\n scapy: {}",
                    run.outcome,
                    hex(&run.bytes),
                    hex(&expected)
                ));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

#[test]
fn b28_packets_that_scapy_put_into_others_come_out_as_scapy_says() {
    with_oracle(|oracle| {
        serve(oracle);
        let flags = frontend_flags::LOAD_BALANCER | frontend_flags::DSR;
        for (id, (vip, _)) in (100..).step_by(200).zip(SERVICES) {
            for protocol in [proto::TCP, proto::UDP, proto::SCTP] {
                let service = id + u32::from(protocol);
                let frontend = Frontend { service, external: service, internal: service, flags, affinity_s: 0 };
                oracle.put_frontend(vip, protocol, frontend);
                oracle.change_backend_flags(service, |flags| flags | backend_flags::LOCAL);
            }
        }
        let mut seen = 0;
        for Line { name, frame, becomes, .. } in lines().filter(|line| line.carried) {
            let run = oracle.run(Hook::Ingress, UPLINK, &frame);
            assert_eq!(run.outcome, Outcome::Deliver, "{name}");
            assert_frames_eq(&run.bytes, &becomes.expect("a frame"));
            seen += 1;
        }
        assert_eq!(seen, 18);
    });
}

#[test]
fn b01_no_hook_changes_or_drops_what_scapy_sends_to_others() {
    with_oracle(|oracle| {
        serve(oracle);
        for Line { name, frame, .. } in lines().filter(|line| line.becomes.is_none()) {
            for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                let run = oracle.run(hook, UPLINK, &frame);
                assert_eq!(run.outcome, Outcome::Pass, "{name} at {hook:?}");
                assert_frames_eq(&run.bytes, &frame);
            }
        }
    });
}
