//! What the ordinary packet costs: other CPUs nothing, and packets of others one look-up.

use std::collections::HashMap;

use aya::maps::Map;
use svc_common::{
    env::Table,
    maps::{Flow, spec},
    net::proto,
    outcome::Outcome,
    packet::Hook,
};
use svc_tests::{
    oracle::{Oracle, UPLINK, with_oracle},
    packet::Frame,
};

/// VIP, backend on another node, client, and the address that the backend sees.
const WORLDS: [(&str, &str, &str, &str); 2] = [
    ("10.96.0.10:80", "10.244.2.5:8080", "198.51.100.7:20000", "192.0.2.10:20000"),
    ("[fd00:96::10]:80", "[fd00:244:2::5]:8080", "[2001:db8:7::7]:20000", "[2001:db8::10]:20000"),
];

/// The oracle has seen that the kernel's tables and counters are those of the host.
#[test]
fn a_replayed_packet_writes_its_own_flow_and_counters_of_its_own_cpu_and_nothing_else() {
    with_oracle(|oracle| {
        for (id, (vip, backend, client, node)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            let (request, reply) = (Frame::tcp(client, vip), Frame::tcp(backend, node));
            oracle.run(Hook::Xdp, UPLINK, &Frame::syn(client, vip).build());
            oracle.run(Hook::Xdp, UPLINK, &reply.clone().flags("S.").build());
            oracle.run(Hook::Xdp, UPLINK, &request.build());
            for hook in [Hook::Xdp, Hook::Ingress] {
                for frame in [&request, &reply] {
                    // The first may be attended to; the second is replayed.
                    oracle.run(hook, UPLINK, &frame.build());
                    check(oracle, hook, &frame.build(), id);
                }
            }
        }
        let kind = oracle.kernel().map(spec::SVC_COUNTERS.name).expect("SVC_COUNTERS");
        assert!(matches!(kind, Map::PerCpuArray(_)), "the counters of services are shared by all CPUs");
    });
}

#[track_caller]
fn check(oracle: &mut Oracle, hook: Hook, frame: &[u8], service: u32) {
    let before = oracle.memory.clone();
    let run = oracle.run(hook, UPLINK, frame);
    assert!(matches!(run.outcome, Outcome::Send(_)), "{:?}", run.outcome);
    let after = &oracle.memory;

    let touched = &after.touched;
    assert!(touched.reasons.is_empty() && touched.stages.is_empty(), "{touched:?}");
    assert_eq!(touched.services, [service]);
    assert!(matches!(
        (&touched.v4[..], &touched.v6[..]),
        ([(Table::Established, _)], []) | ([], [(Table::Established, _)])
    ));
    let mut changed = 0;
    for (key, flow) in &after.v4.flows {
        changed += u32::from(counted(&before.v4.flows[key], flow));
    }
    for (key, flow) in &after.v6.flows {
        changed += u32::from(counted(&before.v6.flows[key], flow));
    }
    assert_eq!(changed, 1, "one flow is written");
    assert_eq!((before.v4.flows.len(), before.v6.flows.len()), (after.v4.flows.len(), after.v6.flows.len()));
    assert_eq!((&before.v4.embryos, &before.v6.embryos), (&after.v4.embryos, &after.v6.embryos));
    assert_eq!((&before.v4.affinity, &before.v6.affinity), (&after.v4.affinity, &after.v6.affinity));
    assert_eq!(
        (&before.counters, &before.answers, &before.new_flows),
        (&after.counters, &after.answers, &after.new_flows)
    );
}

/// Whether a packet was counted in a flow, of which nothing else may have changed.
#[track_caller]
fn counted<A: Copy + PartialEq + std::fmt::Debug>(before: &Flow<A>, after: &Flow<A>) -> bool {
    let counts = Flow { packets: after.packets, bytes: after.bytes, ..*before };
    assert_eq!(*after, counts, "more than the counts has changed");
    before != after
}

/// The filter alone says that: what it does not know is asked of no table.
#[test]
fn b10_what_nobody_knows_is_left_alone() {
    with_oracle(|oracle| {
        for (vip, backend, client) in [
            ("10.96.0.10:53", "10.244.1.5:5353", "198.51.100.7:40000"),
            ("[fd00:96::10]:53", "[fd00:244:1::5]:5353", "[2001:db8:7::7]:40000"),
        ] {
            oracle.serve(3, proto::UDP, &[vip], &[backend]);
            let frame = Frame::udp(client, vip).build();
            oracle.forget_known();
            oracle.memory.known = Some(HashMap::new());
            for hook in [Hook::Xdp, Hook::Ingress] {
                let run = oracle.run(hook, UPLINK, &frame);
                assert_eq!((run.outcome, &run.bytes), (Outcome::Pass, &frame));
            }
            oracle.memory.known = None;
            oracle.serve(3, proto::UDP, &[vip], &[backend]);
            assert_ne!(oracle.run(Hook::Ingress, UPLINK, &frame).outcome, Outcome::Pass);
        }
    });
}
