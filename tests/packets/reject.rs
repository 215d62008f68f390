//! Packets for us that nobody serves.

use svc_common::{net::proto, outcome::Outcome, packet::Hook, reason::Reason};
use svc_tests::{
    oracle::{UPLINK, WORKLOAD, with_oracle},
    packet::{Frame, assert_frames_eq},
};

#[test]
fn b66_an_address_of_the_service_networks_that_no_service_has_is_dropped() {
    with_oracle(|oracle| {
        oracle.serve(100, proto::TCP, &["10.96.0.10:80"], &["10.244.1.5:8080"]);
        oracle.serve(200, proto::TCP, &["[fd00:96::10]:80"], &["[fd00:244:1::5]:8080"]);
        let frames = [
            ("198.51.100.7:40000", "10.96.255.254:80", "10.97.0.1:80"),
            ("[2001:db8:7::7]:40000", "[fd00:96::11]:80", "[fd00:96:0:1::11]:80"),
        ];
        let all = [(Hook::Xdp, UPLINK), (Hook::Ingress, UPLINK), (Hook::Ingress, WORKLOAD), (Hook::Egress, UPLINK)];
        for (hook, device) in all {
            for (client, inside, _) in frames {
                let frame = Frame::udp(client, inside).build();
                assert_eq!(oracle.run(hook, device, &frame).outcome, Outcome::Pass, "no networks are configured");
            }
        }
        let mut v6_mask = [0; 16];
        v6_mask[..8].fill(0xff);
        let v6_net = [0xfd, 0, 0, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        oracle.set_service_networks(([10, 96, 0, 0], [255, 255, 0, 0]), (v6_net, v6_mask));
        for (hook, device) in all {
            for (client, inside, outside) in frames {
                for frame in [Frame::udp(client, inside), Frame::syn(client, inside), Frame::tcp(client, inside)] {
                    let run = oracle.run(hook, device, &frame.build());
                    assert_eq!(run.outcome, Outcome::Drop(Reason::UnassignedAddress), "{inside} at {hook:?}");
                    assert_frames_eq(&run.bytes, &frame.build());
                }
                let frame = Frame::udp(client, outside).build();
                assert_eq!(oracle.run(hook, device, &frame).outcome, Outcome::Pass, "{outside} at {hook:?}");
            }
        }
        // What a service has leaves the node as it is: the socket hooks or the ingress hooks deal with it.
        let frame = Frame::syn("192.0.2.10:40000", "10.96.0.10:80").build();
        assert_eq!(oracle.run(Hook::Egress, UPLINK, &frame).outcome, Outcome::Pass);
    });
}
