//! Connections to backends that the stack reaches: destination NAT and its reverse.

use svc_common::{net::proto, packet::Hook, pipeline::Outcome};
use svc_tests::{
    oracle::{UPLINK, WORKLOAD, with_oracle},
    packet::{Frame, assert_frames_eq},
};

#[test]
fn b10_reply_carries_the_address_the_client_dialled() {
    with_oracle(|oracle| {
        for (vip, backend, client, id) in [
            ("10.96.0.10:80", "10.244.1.5:8080", "198.51.100.7:40000", 100),
            ("[fd00:96::10]:80", "[fd00:244:1::5]:8080", "[2001:db8:7::7]:40000", 200),
        ] {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            let request = Frame::syn(client, vip);
            let run = oracle.run(Hook::Ingress, UPLINK, &request.build());
            assert_eq!(run.outcome, Outcome::Deliver);
            assert_frames_eq(&run.bytes, &request.clone().to(backend).build());

            let reply = Frame::tcp(backend, client).flags("S.");
            let run = oracle.run(Hook::Egress, UPLINK, &reply.build());
            assert_eq!(run.outcome, Outcome::Deliver);
            assert_frames_eq(&run.bytes, &reply.from(vip).build());

            for _ in 0..3 {
                let data = Frame::tcp(client, vip);
                let run = oracle.run(Hook::Ingress, UPLINK, &data.build());
                assert_frames_eq(&run.bytes, &data.to(backend).build());
                let data = Frame::tcp(backend, client);
                let run = oracle.run(Hook::Egress, UPLINK, &data.build());
                assert_frames_eq(&run.bytes, &data.from(vip).build());
            }
            // Where the reply comes in from the pod, it is left alone: the stack sees client and backend.
            let run = oracle.run(Hook::Ingress, WORKLOAD, &Frame::tcp(backend, client).build());
            assert_eq!(run.outcome, Outcome::Pass);
        }
    });
}
