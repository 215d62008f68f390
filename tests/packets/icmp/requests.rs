//! Errors about what a client sent, which have to reach that client.

use svc_common::{outcome::Outcome, packet::Hook};
use svc_tests::{message::Message, oracle::NODE, oracle::UPLINK, oracle::WORKLOAD, packet::assert_frames_eq};

use super::{LOCAL, REMOTE, expect_sent, for_each, unseen};

#[test]
fn b39_an_error_about_a_request_reaches_the_client_of_a_node_port() {
    for_each(REMOTE, |oracle, path, open, (kind, code, rest), quoted| {
        let seen = open(path.source, path.backend).ttl(60).build();
        let sent = unseen(open(path.client, path.vip).ttl(60), &seen);
        for (from, becomes) in [(path.router, path.router), (path.backend_addr, path.vip_addr)] {
            let error = Message::error(from, path.source_addr, (kind, code), &seen, quoted).rest(rest).build();
            let expected = Message::error(becomes, path.client_addr, (kind, code), &sent, quoted).rest(rest);
            expect_sent(oracle, &error, &expected);
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
