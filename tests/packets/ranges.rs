//! Source ranges of load balancers' addresses.

use svc_common::{
    maps::{Frontend, frontend_flags},
    net::proto,
    outcome::Outcome,
    packet::Hook,
    reason::Reason,
};
use svc_tests::{
    oracle::{UPLINK, WORKLOAD, with_oracle},
    packet::Frame,
};

use crate::ways::on_each_way;

#[test]
fn b59_only_sources_in_the_ranges_of_the_service_are_served() {
    with_oracle(|oracle| {
        let worlds = [
            ("203.0.113.10:80", "10.96.0.10:80", "10.244.1.5:8080", "198.51.100.0", 25),
            ("[2001:db8:9::10]:80", "[fd00:96::10]:80", "[fd00:244:1::5]:8080", "2001:db8:7::", 47),
        ];
        for (id, (balancer, cluster_ip, backend, range, bits)) in (100..).step_by(100).zip(worlds) {
            oracle.serve(id, proto::TCP, &[cluster_ip], &[backend]);
            let flags = frontend_flags::LOAD_BALANCER | frontend_flags::SOURCE_RANGES;
            let frontend = Frontend { service: id, external: id, internal: id, flags, affinity_s: 0 };
            oracle.put_frontend(balancer, proto::TCP, frontend);
            oracle.add_range(id, range, bits);
            // Another service's range is not this one's.
            oracle.add_range(id + 1, if id == 100 { "0.0.0.0" } else { "::" }, 0);
        }
        let closed = Outcome::Drop(Reason::SourceRange);
        let cases = [
            (UPLINK, "198.51.100.127:40000", "203.0.113.10:80", Outcome::Deliver),
            (UPLINK, "198.51.100.128:40000", "203.0.113.10:80", closed),
            (UPLINK, "198.51.100.128:40000", "10.96.0.10:80", Outcome::Deliver),
            (WORKLOAD, "10.244.1.6:40000", "203.0.113.10:80", closed),
            (WORKLOAD, "10.244.1.6:40000", "10.96.0.10:80", Outcome::Deliver),
            (UPLINK, "[2001:db8:7:ffff::7]:40000", "[2001:db8:9::10]:80", Outcome::Deliver),
            (UPLINK, "[2001:db8:8::7]:40000", "[2001:db8:9::10]:80", closed),
            (UPLINK, "[2001:db8:8::7]:40000", "[fd00:96::10]:80", Outcome::Deliver),
        ];
        for (device, client, vip, expected) in cases {
            let frame = Frame::syn(client, vip).build();
            assert_eq!(oracle.run(Hook::Ingress, device, &frame).outcome, expected, "{client} -> {vip}");
            if expected == closed && device == UPLINK {
                assert_eq!(oracle.run(Hook::Xdp, device, &frame).outcome, expected, "{client} -> {vip} at XDP");
            }
        }
    });
}

#[test]
fn b59_a_change_of_the_ranges_is_for_new_connections() {
    on_each_way(|oracle, way| {
        oracle.serve(100, proto::UDP, &[way.vip], &[way.backend]);
        let (served, datagram) = (way.served(oracle), Frame::udp(way.client, way.vip));
        assert_eq!(way.request(oracle, &datagram).outcome, served);
        let flags = frontend_flags::LOAD_BALANCER | frontend_flags::SOURCE_RANGES;
        let frontend = Frontend { service: 100, external: 100, internal: 100, flags, affinity_s: 0 };
        oracle.put_frontend(way.vip, proto::UDP, frontend);
        oracle.raise_epoch();
        assert_eq!(way.request(oracle, &datagram).outcome, served, "the flow goes on");
        let other = Frame::udp(&way.port(20_001).0, way.vip);
        assert_eq!(way.request(oracle, &other).outcome, Outcome::Drop(Reason::SourceRange));
    });
}
