//! Echo requests to addresses of services.

use svc_common::{outcome::Outcome, packet::Hook};
use svc_tests::{
    message::Message, oracle::NODE, oracle::UPLINK, oracle::WORKLOAD, oracle::with_oracle, packet::assert_frames_eq,
};

use super::set_address;

/// Echo request and reply, VIP, asker, node.
const ECHOES: [(u8, u8, &str, &str, &str); 2] =
    [(8, 0, "10.96.0.10", "198.51.100.7", NODE.0), (128, 129, "fd00:96::10", "2001:db8:7::7", NODE.1)];

#[test]
fn b43_an_echo_request_to_a_vip_is_answered() {
    with_oracle(|oracle| {
        let (uplink, workload) = (oracle.ifindex(UPLINK), oracle.ifindex(WORKLOAD));
        for (request, reply, vip, client, _) in ECHOES {
            set_address(oracle, vip, true);
            for data in [vec![], vec![0xff; 1], (0..56).collect(), vec![0xa5; 1400]] {
                for options in [&[][..], &[1; 12]] {
                    let options = if vip.contains(':') { &[] } else { options };
                    let ask = Message::new(client, vip, request, 0).rest([0xbe, 0xef, 0, 7]).payload(&data).ttl(3);
                    let ask = ask.options(options).build();
                    let answer = Message::new(vip, client, reply, 0).rest([0xbe, 0xef, 0, 7]).payload(&data);
                    let answer = answer.options(options).macs([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
                    for (hook, device, ifindex) in [
                        (Hook::Xdp, UPLINK, uplink),
                        (Hook::Ingress, UPLINK, uplink),
                        (Hook::Ingress, WORKLOAD, workload),
                    ] {
                        let run = oracle.run(hook, device, &ask);
                        assert_eq!(run.outcome, Outcome::Send(ifindex));
                        assert_frames_eq(&run.bytes, &answer.build());
                    }
                }
            }
        }
    });
}

#[test]
fn b43_other_echo_requests_pass_untouched() {
    with_oracle(|oracle| {
        for (request, reply, vip, client, node) in ECHOES {
            set_address(oracle, vip, true);
            set_address(oracle, node, false);
            let v6 = vip.contains(':');
            let (unspecified, multicast) = if v6 { ("::", "ff02::1") } else { ("0.0.0.0", "224.0.0.1") };
            let loopback = if v6 { "::1" } else { "127.0.0.1" };
            for (what, message) in [
                ("to the node", Message::new(client, node, request, 0)),
                ("to a pod", Message::new(client, if v6 { "fd00:244:1::5" } else { "10.244.1.5" }, request, 0)),
                ("a reply", Message::new(client, vip, reply, 0)),
                ("with a code", Message::new(client, vip, request, 1)),
                ("from nowhere", Message::new(unspecified, vip, request, 0)),
                ("from many", Message::new(multicast, vip, request, 0)),
                ("from inside", Message::new(loopback, vip, request, 0)),
            ] {
                let frame = message.payload(b"data").build();
                for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                    let run = oracle.run(hook, UPLINK, &frame);
                    assert_eq!(run.outcome, Outcome::Pass, "{what} at {hook:?}");
                    assert_frames_eq(&run.bytes, &frame);
                }
            }
            let frame = Message::new(client, vip, request, 0).build();
            let run = oracle.run(Hook::Egress, UPLINK, &frame);
            assert_eq!(run.outcome, Outcome::Pass, "on its way out");
            // A part of a request.
            let mut frame = Message::new(client, vip, request, 0).payload(b"data").build();
            if v6 {
                frame[20] = 44
            } else {
                frame[20] = 0x20
            }
            for hook in [Hook::Xdp, Hook::Ingress] {
                let run = oracle.run(hook, UPLINK, &frame);
                assert_eq!(run.outcome, Outcome::Pass, "a fragment at {hook:?}");
                assert_frames_eq(&run.bytes, &frame);
            }
        }
    });
}
