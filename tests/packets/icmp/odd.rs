//! Messages that are cut short, that end here, or that are no business of ours.

use svc_common::{maps::Frontend, maps::frontend_flags, net::proto, outcome::Outcome, packet::Hook, reason::Reason};
use svc_tests::{
    message::Message,
    oracle::{UPLINK, WORKLOAD, with_oracle},
    packet::{Frame, assert_frames_eq},
};

use super::{LOCAL, REMOTE, set_address};

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

#[test]
fn b38_an_error_without_a_flow_goes_where_its_receiver_would_have_chosen_and_from_tc_alone() {
    with_oracle(|oracle| {
        for (id, path) in (100..).step_by(100).zip(LOCAL) {
            let other = path.backend.replace(".5:", ".6:").replace("::5]", "::6]");
            oracle.serve(id, proto::TCP, &[], &[path.backend, &other]);
            oracle.set_selection(id, &[id]);
            oracle.set_selection(id + 50, &[id + 1]);
            oracle.set_frontend(path.vip, proto::TCP, id, id, id + 50);
            let (kind, code, _) = path.errors[0];
            let error = |client: &str| {
                let seen = Frame::tcp(path.vip, client).build();
                Message::error(path.router, path.vip_addr, (kind, code), &seen, 60).build()
            };
            // About answers to clients outside, and to pods.
            for (device, backend) in [(UPLINK, path.backend), (WORKLOAD, &other)] {
                let run = oracle.run(Hook::Ingress, device, &error(path.client));
                assert_eq!(run.outcome, Outcome::Deliver, "{device}");
                let to = svc_tests::packet::addr(backend).ip();
                let at = if to.is_ipv4() { 30..34 } else { 38..54 };
                let found = match to {
                    std::net::IpAddr::V4(to) => run.bytes[at] == to.octets(),
                    std::net::IpAddr::V6(to) => run.bytes[at] == to.octets(),
                };
                assert!(found, "{device}: {to}");
            }
            for hook in [Hook::Xdp, Hook::Egress] {
                let frame = error(path.client);
                let run = oracle.run(hook, UPLINK, &frame);
                assert_eq!(run.outcome, Outcome::Pass);
                assert_frames_eq(&run.bytes, &frame);
            }
            // The backend of before is another service's.
            oracle.set_backend(id, 999, path.backend);
            let run = oracle.run(Hook::Ingress, UPLINK, &error(path.client));
            assert_eq!(run.outcome, Outcome::Drop(Reason::BackendGone));
        }
    });
}

#[test]
fn b37_an_error_to_whom_no_hardware_address_is_known_is_not_sent_by_xdp() {
    with_oracle(|oracle| {
        for (id, path) in (100..).step_by(100).zip(REMOTE) {
            let far = path.backend.replace("244.2.", "244.3.").replace("244:2:", "244:3:");
            oracle.serve(id, proto::TCP, &[path.vip], &[&far]);
            oracle.run(Hook::Ingress, UPLINK, &Frame::syn(path.client, path.vip).build());
            // A client's router tells the backend, whose node is not known yet.
            let (kind, code, _) = path.errors[0];
            let seen = Frame::tcp(path.vip, path.client).build();
            let error = Message::error(path.router, path.vip_addr, (kind, code), &seen, 60).build();
            let run = oracle.run(Hook::Xdp, UPLINK, &error);
            assert_eq!(run.outcome, Outcome::Pass);
            assert_frames_eq(&run.bytes, &error);
            let run = oracle.run(Hook::Ingress, UPLINK, &error);
            assert_eq!(run.outcome, Outcome::Resolve(oracle.ifindex(UPLINK)));
        }
    });
}
