//! Session affinity.

use std::collections::BTreeSet;

use svc_common::{
    maps::{Frontend, frontend_flags},
    net::proto,
    outcome::Outcome,
    packet::Hook,
};
use svc_tests::{
    oracle::{Oracle, UPLINK, WORKLOAD, with_oracle},
    packet::Frame,
};

/// VIP, node port, client outside and another, backends on this node; in both families.
const WORLDS: [(&str, &str, &str, &str, [&str; 4]); 2] = [
    (
        "10.96.0.10:80",
        "192.0.2.10:30080",
        "198.51.100.7",
        "198.51.100.8",
        ["10.244.1.5:8080", "10.244.1.6:8080", "10.244.1.7:8080", "10.244.1.8:8080"],
    ),
    (
        "[fd00:96::10]:80",
        "[2001:db8::10]:30080",
        "[2001:db8:7::7]",
        "[2001:db8:7::8]",
        ["[fd00:244:1::5]:8080", "[fd00:244:1::6]:8080", "[fd00:244:1::7]:8080", "[fd00:244:1::8]:8080"],
    ),
];
/// Time-out of the services, in seconds.
const TIMEOUT_S: u32 = 100;

/// A service of all backends with affinity; its id is also the first backend's.
fn serve(oracle: &mut Oracle, id: u32, protocol: u8, vips: &[&str], backends: &[&str]) {
    oracle.serve(id, protocol, vips, backends);
    for offset in 0..backends.len() as u32 {
        oracle.set_membership(id + offset, true, false);
    }
    for vip in vips {
        set_affinity(oracle, id, protocol, vip, true, 0);
    }
}

fn set_affinity(oracle: &mut Oracle, id: u32, protocol: u8, vip: &str, on: bool, generation: u32) {
    let affinity = if on { frontend_flags::AFFINITY } else { 0 };
    let flags = affinity | (generation << frontend_flags::GENERATION_SHIFT);
    let affinity_s = if on { TIMEOUT_S } else { 0 };
    oracle.put_frontend(vip, protocol, Frontend { service: id, external: id, internal: id, flags, affinity_s });
}

/// Opens a connection from outside; the backend that it goes to, by the last byte of its address.
fn open(oracle: &mut Oracle, protocol: u8, client: &str, port: u16, vip: &str) -> u8 {
    open_at(oracle, UPLINK, protocol, client, port, vip)
}

fn open_at(oracle: &mut Oracle, device: &str, protocol: u8, client: &str, port: u16, vip: &str) -> u8 {
    let client = format!("{client}:{port}");
    let frame = if protocol == proto::TCP { Frame::syn(&client, vip) } else { Frame::udp(&client, vip) };
    let run = oracle.run(Hook::Ingress, device, &frame.build());
    assert_eq!(run.outcome, Outcome::Deliver);
    if run.bytes[12] == 0x08 { run.bytes[33] } else { run.bytes[53] }
}

/// The backends that connections from these ports go to.
fn backends(oracle: &mut Oracle, protocol: u8, client: &str, ports: std::ops::Range<u16>, vip: &str) -> BTreeSet<u8> {
    ports.map(|port| open(oracle, protocol, client, port, vip)).collect()
}

#[test]
fn b50_all_connections_of_a_client_go_to_one_backend_and_clients_spread() {
    with_oracle(|oracle| {
        for (world, (vip, node_port, client, _, all)) in (1..).zip(WORLDS) {
            for (id, protocol) in [(world * 100, proto::TCP), (world * 100 + 50, proto::UDP)] {
                serve(oracle, id, protocol, &[vip, node_port], &all);
                let chosen = backends(oracle, protocol, client, 40_000..40_040, vip);
                assert_eq!(chosen.len(), 1, "{chosen:?}");
                assert_eq!(backends(oracle, protocol, client, 41_000..41_010, node_port), chosen, "by another address");
                let spread: BTreeSet<u8> = (1..40)
                    .map(|last| {
                        let other =
                            if world == 1 { format!("203.0.113.{last}") } else { format!("[2001:db8:8::{last}]") };
                        open(oracle, protocol, &other, 40_000, vip)
                    })
                    .collect();
                assert_eq!(spread.len(), 4);
            }
        }
    });
}

#[test]
fn b50_pods_and_clients_outside_have_entries_of_their_own() {
    with_oracle(|oracle| {
        for (id, (vip, .., all)) in (100..).step_by(100).zip(WORLDS) {
            serve(oracle, id, proto::TCP, &[vip], &all);
            let pods: [String; 6] = std::array::from_fn(|n| {
                if id == 100 { format!("10.244.1.{}", 20 + n) } else { format!("[fd00:244:1::{}]", 20 + n) }
            });
            let chosen = pods.each_ref().map(|pod| open_at(oracle, WORKLOAD, proto::TCP, pod, 40_000, vip));
            assert!(BTreeSet::from(chosen).len() > 1, "one entry for the whole node? {chosen:?}");
            for (pod, backend) in pods.iter().zip(chosen) {
                assert_eq!(open_at(oracle, WORKLOAD, proto::TCP, pod, 40_001, vip), backend);
            }
        }
    });
}

#[test]
fn b50_clients_whose_source_is_translated_have_entries_of_their_own() {
    for (vip, node_port, client, ..) in WORLDS {
        for hook in [Hook::Xdp, Hook::Ingress] {
            with_oracle(move |oracle| {
                let v6 = vip.starts_with('[');
                let all: [String; 4] = std::array::from_fn(|n| {
                    if v6 { format!("[fd00:244:2::{}]:8080", 5 + n) } else { format!("10.244.2.{}:8080", 5 + n) }
                });
                serve(oracle, 100, proto::TCP, &[vip, node_port], &all.each_ref().map(String::as_str));
                let uplink = oracle.ifindex(UPLINK);
                let mut open = |client: &str, port: u16, to: &str| {
                    let syn = Frame::syn(&format!("{client}:{port}"), to).build();
                    let run = oracle.run(hook, UPLINK, &syn);
                    assert_eq!(run.outcome, Outcome::Send(uplink), "{client} at {hook:?}");
                    if v6 { run.bytes[53] } else { run.bytes[33] }
                };
                let mut spread = BTreeSet::new();
                for last in 1..20 {
                    let client = client.replace(".7", &format!(".{last}")).replace("::7", &format!("::{last}"));
                    // Ports of their own, which source NAT keeps.
                    let port = 2_000 + last * 100;
                    let first = open(&client, port, vip);
                    for port in port + 1..port + 5 {
                        assert_eq!([vip, node_port].map(|to| open(&client, port, to)), [first; 2], "{client}");
                    }
                    spread.insert(first);
                }
                assert_eq!(spread.len(), 4, "backends see one client, the node; the choice does not");
            });
        }
    }
}

#[test]
fn b51_the_time_out_counts_from_the_last_new_connection_and_then_the_choice_is_fresh() {
    with_oracle(|oracle| {
        for (id, (vip, _, client, _, all)) in (100..).step_by(100).zip(WORLDS) {
            for (id, protocol) in [(id, proto::TCP), (id + 50, proto::UDP)] {
                serve(oracle, id, protocol, &[vip], &all);
                let first = open(oracle, protocol, client, 40_000, vip);
                // Five times just in time.
                for port in 40_001..40_006 {
                    oracle.advance(TIMEOUT_S);
                    assert_eq!(open(oracle, protocol, client, port, vip), first);
                }
                let mut fresh = BTreeSet::new();
                for port in 41_000..41_020 {
                    oracle.advance(TIMEOUT_S + 1);
                    fresh.insert(open(oracle, protocol, client, port, vip));
                }
                assert!(fresh.len() > 1, "the same backend every time: {fresh:?}");
            }
        }
    });
}

#[test]
fn b52_a_backend_that_left_the_set_is_replaced_and_the_new_one_sticks() {
    with_oracle(|oracle| {
        for (id, (vip, _, client, _, all)) in (100..).step_by(100).zip(WORLDS) {
            serve(oracle, id, proto::TCP, &[vip], &all);
            let mut left: Vec<u32> = (id..id + 4).collect();
            let mut port = 40_000;
            let mut seen = BTreeSet::new();
            while left.len() > 1 {
                let chosen = backends(oracle, proto::TCP, client, port..port + 10, vip);
                assert_eq!(chosen.len(), 1, "{chosen:?}");
                let last = *chosen.first().expect("one");
                assert!(seen.insert(last), "a backend that is no candidate any more");
                // It terminates: still there, but in no set.
                let gone = id + u32::from(last) - 5;
                left.retain(|other| *other != gone);
                oracle.set_membership(gone, false, false);
                oracle.set_selection(id, &left);
                oracle.raise_epoch();
                port += 100;
            }
        }
    });
}

#[test]
fn b52_an_entry_of_one_policy_is_not_used_by_another() {
    with_oracle(|oracle| {
        for (id, (vip, _, client, _, all)) in (100..).step_by(100).zip(WORLDS) {
            serve(oracle, id, proto::TCP, &[vip], &all);
            // From outside only the backend that the client does not have is a candidate.
            let first = open(oracle, proto::TCP, client, 40_000, vip);
            let other = if first == 5 { id + 1 } else { id };
            oracle.set_membership(other, true, true);
            oracle.set_selection(id - 10, &[other]);
            let flags = frontend_flags::AFFINITY | frontend_flags::EXTERNAL_LOCAL;
            let frontend = Frontend { service: id, external: id - 10, internal: id, flags, affinity_s: TIMEOUT_S };
            oracle.put_frontend(vip, proto::TCP, frontend);
            assert_eq!(u32::from(open(oracle, proto::TCP, client, 40_001, vip)), other - id + 5);
        }
    });
}

#[test]
fn b53_switching_is_effective_at_once_and_old_entries_are_not_used_again() {
    with_oracle(|oracle| {
        for (id, (vip, _, client, other, all)) in (100..).step_by(100).zip(WORLDS) {
            serve(oracle, id, proto::TCP, &[vip], &all);
            let before = open(oracle, proto::TCP, client, 40_000, vip);
            open(oracle, proto::TCP, other, 40_000, vip);
            set_affinity(oracle, id, proto::TCP, vip, false, 1);
            assert_eq!(backends(oracle, proto::TCP, client, 41_000..41_040, vip).len(), 4, "off");
            // On again, with the backend of before out of the table, but still a member of its set.
            let rest: Vec<u32> = (id..id + 4).filter(|other| *other != id + u32::from(before) - 5).collect();
            oracle.set_selection(id, &rest);
            set_affinity(oracle, id, proto::TCP, vip, true, 1);
            let after = backends(oracle, proto::TCP, client, 42_000..42_040, vip);
            assert!(after.len() == 1 && !after.contains(&before), "{before} before, {after:?} after");
        }
    });
}

#[test]
fn b50_each_service_remembers_its_clients_for_itself() {
    with_oracle(|oracle| {
        for (id, (vip, node_port, client, _, all)) in (100..).step_by(100).zip(WORLDS) {
            serve(oracle, id, proto::TCP, &[vip], &all);
            serve(oracle, id + 50, proto::TCP, &[node_port], &all);
            let first = [vip, node_port].map(|to| open(oracle, proto::TCP, client, 40_000, to));
            for port in 41_000..41_020 {
                let now = [vip, node_port].map(|to| open(oracle, proto::TCP, client, port, to));
                assert_eq!(now, first);
            }
        }
    });
}

#[test]
fn b52_an_entry_does_not_follow_a_backend_id_to_another_service() {
    with_oracle(|oracle| {
        for (id, (vip, _, client, _, all)) in (100..).step_by(100).zip(WORLDS) {
            serve(oracle, id, proto::TCP, &[vip], &all[..1]);
            assert_eq!(open(oracle, proto::TCP, client, 40_000, vip), 5);
            // The id is given to another service, whose backend is in the same kind of set.
            oracle.set_backend(id, 999, all[0]);
            oracle.set_membership(id, true, true);
            oracle.set_backend(id + 1, id, all[1]);
            oracle.set_membership(id + 1, true, false);
            oracle.set_selection(id, &[id + 1]);
            oracle.raise_epoch();
            assert_eq!(open(oracle, proto::TCP, client, 40_001, vip), 6);
        }
    });
}
