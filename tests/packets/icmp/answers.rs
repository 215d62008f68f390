//! Errors about what a backend sent, which have to reach that backend.

use svc_common::{net::proto, outcome::Outcome, packet::Hook, reason::Reason};
use svc_tests::{
    message::Message, oracle::UPLINK, oracle::WORKLOAD, oracle::with_oracle, packet::Frame, packet::assert_frames_eq,
};

use super::{LOCAL, REMOTE, expect_sent, for_each, set_address, unseen};

#[test]
fn b38_an_error_about_an_answer_reaches_the_backend_on_another_node() {
    for_each(REMOTE, |oracle, path, open, (kind, code, rest), quoted| {
        let seen = open(path.vip, path.client).ttl(60).build();
        let sent = unseen(open(path.backend, path.source).ttl(60), &seen);
        for (from, becomes) in [(path.router, path.router), (path.client_addr, path.source_addr)] {
            let error = Message::error(from, path.vip_addr, (kind, code), &seen, quoted).rest(rest).build();
            let expected = Message::error(becomes, path.backend_addr, (kind, code), &sent, quoted).rest(rest);
            expect_sent(oracle, &error, &expected);
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
