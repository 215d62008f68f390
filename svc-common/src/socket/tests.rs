use std::collections::BTreeSet;

use super::*;
use crate::{
    family::{Family, V4, V6},
    host::Memory,
    maps::{
        Backend, Frontend, FrontendKey, Peer, SLOTS_PER_ROW, Selection, SlotRow, backend_flags, frontend_flags,
        peer_side, socket_scope,
    },
    net::{Be16, proto},
    reason::Reason,
};

const FULL: u32 = 1;
const EMPTY: u32 = 2;
const DROPPED: u32 = 3;

/// What a test needs of a family.
trait Tested: Mapped {
    fn addr(last: u8) -> Self::Addr;
    fn tables(memory: &mut Memory) -> &mut crate::host::Tables<Self>;
}

impl Tested for V4 {
    fn addr(last: u8) -> [u8; 4] {
        [10, 96, 0, last]
    }

    fn tables(memory: &mut Memory) -> &mut crate::host::Tables<Self> {
        &mut memory.v4
    }
}

impl Tested for V6 {
    fn addr(last: u8) -> [u8; 16] {
        let mut addr = [0; 16];
        (addr[0], addr[15]) = (0xfd, last);
        addr
    }

    fn tables(memory: &mut Memory) -> &mut crate::host::Tables<Self> {
        &mut memory.v6
    }
}

fn peer<F: Tested>(last: u8, port: u16) -> Peer {
    Peer::new(F::widen(&F::addr(last)), Be16::from_host(port), peer_side::VIP)
}

fn backend<F: Tested>(id: u32) -> Peer {
    peer::<F>(100 + id as u8, 7000).on(peer_side::BACKEND)
}

/// Service 5 with the backends 1, 2 and 3 at VIPs 1 and 2, port 7; service 6 without any at VIP 3, and at VIP 4 without local
/// ones. VIP 1 is the node's address, where nodePort 30007 answers.
fn memory<F: Tested>() -> Memory {
    let mut memory = Memory::default();
    memory.sockets.config.scope = socket_scope::HOST;
    memory.sockets.config.v4 = V4::addr(1);
    memory.sockets.config.v6 = V6::addr(1);
    for (selection, value) in [(FULL, Selection::new(0, 3)), (EMPTY, Selection::REJECT), (DROPPED, Selection::DROP)] {
        memory.selections.insert(selection, value);
    }
    let mut row = SlotRow([0; SLOTS_PER_ROW as usize]);
    row.0[..3].copy_from_slice(&[1, 2, 3]);
    memory.rows.insert(0, row);
    for (last, port, service, internal, flags) in [
        (1, 7, 5, FULL, frontend_flags::CLUSTER_IP),
        (2, 7, 5, FULL, frontend_flags::CLUSTER_IP),
        (1, 30_007, 5, FULL, frontend_flags::NODE_PORT),
        (3, 7, 6, EMPTY, frontend_flags::CLUSTER_IP),
        (4, 7, 6, DROPPED, frontend_flags::CLUSTER_IP),
        (5, 7, 5, FULL, frontend_flags::LOAD_BALANCER | frontend_flags::SOURCE_RANGES),
    ] {
        for proto in [proto::TCP, proto::UDP] {
            let key = FrontendKey { addr: F::addr(last), port: Be16::from_host(port), proto, pad: 0 };
            let frontend = Frontend { service, external: EMPTY, internal, flags, affinity_s: 0 };
            F::tables(&mut memory).frontends.insert(key, frontend);
        }
    }
    for last in 1..=5 {
        // A node's address may be somebody else's as well.
        let flags = if last == 1 { frontend_flags::NODE_PORT } else { frontend_flags::VIP };
        let row = Frontend { service: 0, external: 0, internal: 0, flags, affinity_s: 0 };
        F::tables(&mut memory).frontends.insert(FrontendKey::of_address(F::addr(last)), row);
    }
    for id in 1..=3 {
        set_backend::<F>(&mut memory, id, 5);
    }
    memory
}

fn set_backend<F: Tested>(memory: &mut Memory, id: u32, service: u32) {
    let it = Backend {
        addr: F::addr(100 + id as u8),
        port: Be16::from_host(7000),
        flags: backend_flags::PRESENT | backend_flags::CLUSTER_SET,
        service,
    };
    F::tables(memory).backends.insert(id, it);
}

fn in_both(check: [fn(); 2]) {
    for check in check {
        check();
    }
}

macro_rules! in_both {
    ($check:ident) => {
        in_both([$check::<V4>, $check::<V6>])
    };
}

fn count(memory: &Memory, reason: Reason) -> u64 {
    memory.counters.get(&reason).copied().unwrap_or_default()
}

#[test]
fn b67_connections_spread_and_are_named_by_their_vip() {
    fn check<F: Tested>() {
        let mut memory = memory::<F>();
        let mut seen = BTreeSet::new();
        for cookie in 1..100 {
            memory.sockets.cookie = cookie;
            let mut at = peer::<F>(1, 7);
            assert_eq!(connect(&mut memory, &mut at, proto::TCP), Dialled::Translated);
            assert!((1..=3).any(|id| at == backend::<F>(id)), "{at:?}");
            seen.insert(at);
            assert!(show(&mut memory, &mut at));
            assert_eq!(at, peer::<F>(1, 7));
        }
        assert_eq!(seen.len(), 3);
        assert_eq!(memory.services[&5].new_flows, 99);
        assert_eq!(memory.services[&5].packets, 0);
        assert_eq!(count(&memory, Reason::SocketTranslated), 99);
    }
    in_both!(check);
}

#[test]
fn b67_what_is_no_service_stays_as_it_is() {
    fn check<F: Tested>() {
        let mut memory = memory::<F>();
        for (last, port, proto) in [(9, 7, proto::TCP), (1, 8, proto::UDP), (1, 7, proto::SCTP), (1, 0, proto::TCP)] {
            let mut at = peer::<F>(last, port);
            assert_eq!(connect(&mut memory, &mut at, proto), Dialled::Unchanged);
            assert_eq!(at, peer::<F>(last, port));
            assert!(!show(&mut memory, &mut at));
        }
        assert_eq!(connect(&mut memory, &mut peer::<F>(2, 8), proto::TCP), Dialled::Refused, "B66");
        assert_eq!(memory.counters.remove(&Reason::UnknownPort), Some(1));
        // The packet path knows the source, and so whether it may.
        assert_eq!(connect(&mut memory, &mut peer::<F>(5, 7), proto::TCP), Dialled::Unchanged);
        assert!(memory.sockets.nat.is_empty() && memory.counters.is_empty());
    }
    in_both!(check);
}

#[test]
fn b50_with_affinity_a_namespace_has_one_backend_until_it_is_silent() {
    fn check<F: Tested>() {
        let mut memory = memory::<F>();
        for frontend in F::tables(&mut memory).frontends.values_mut() {
            (frontend.flags, frontend.affinity_s) = (frontend.flags | frontend_flags::AFFINITY, 60);
        }
        memory.sockets.config.scope = socket_scope::ALL;
        memory.now = 1_000;
        let dialled = |memory: &mut Memory, cookie, netns| {
            (memory.sockets.cookie, memory.sockets.netns) = (cookie, netns);
            let mut at = peer::<F>(1, 7);
            assert_eq!(connect(memory, &mut at, proto::TCP), Dialled::Translated);
            at
        };
        let first = dialled(&mut memory, 1, 7);
        assert!((2..50).all(|cookie| dialled(&mut memory, cookie, 7) == first));
        // Others are other clients.
        assert!((50..99).any(|cookie| dialled(&mut memory, cookie, cookie) != first));
        let later: BTreeSet<_> = (100..140)
            .map(|cookie| {
                memory.now += 61;
                dialled(&mut memory, cookie, 7)
            })
            .collect();
        assert_eq!(later.len(), 3);
        // B52: one that is gone is nobody's.
        let id = (1..=3).find(|id| backend::<F>(*id) == dialled(&mut memory, 200, 7)).unwrap();
        F::tables(&mut memory).backends.remove(&id);
        assert_ne!(dialled(&mut memory, 201, 7), backend::<F>(id));
    }
    in_both!(check);
}

#[test]
fn b59_source_ranges_are_for_the_node_and_the_packet_path() {
    fn check<F: Tested>() {
        let mut memory = memory::<F>();
        memory.sockets.config.scope = socket_scope::ALL;
        F::tables(&mut memory).ranges.insert((5, F::addr(1), 8 * size_of::<F::Addr>() as u8));
        for (netns, dialled) in [(host::FIRST_NETNS, Dialled::Translated), (7, Dialled::Unchanged)] {
            memory.sockets.netns = netns;
            assert_eq!(connect(&mut memory, &mut peer::<F>(5, 7), proto::TCP), dialled);
        }
    }
    in_both!(check);
}

#[test]
fn b68_a_socket_stays_with_its_backend_while_that_serves() {
    fn check<F: Tested>() {
        let mut memory = memory::<F>();
        let mut at = peer::<F>(1, 7);
        assert_eq!(send(&mut memory, &mut at, proto::UDP), Dialled::Translated);
        let first = at;
        for _ in 0..20 {
            at = peer::<F>(1, 7);
            assert_eq!(send(&mut memory, &mut at, proto::UDP), Dialled::Translated);
            assert_eq!(at, first);
        }
        assert_eq!(memory.services[&5].new_flows, 1);
        // B63: its address serves another Service now, and so does its id.
        let id = (1..=3).find(|id| backend::<F>(*id) == first).unwrap();
        set_backend::<F>(&mut memory, id, 7);
        at = peer::<F>(1, 7);
        assert_eq!(send(&mut memory, &mut at, proto::UDP), Dialled::Translated);
        assert_ne!(at, first);
        assert_eq!(count(&memory, Reason::SocketResteered), 1);
        // A late answer of the former one still carries the VIP.
        let mut late = first;
        assert!(show(&mut memory, &mut late) && late == peer::<F>(1, 7));
    }
    in_both!(check);
}

#[test]
fn b69_a_backend_id_that_means_another_address_or_port_is_no_more_the_sockets() {
    fn check<F: Tested>() {
        for (last, port) in [(150, 7000), (101, 7001)] {
            let mut memory = memory::<F>();
            memory.selections.insert(FULL, Selection::new(0, 1));
            let mut at = peer::<F>(1, 7);
            assert_eq!(send(&mut memory, &mut at, proto::UDP), Dialled::Translated);
            assert_eq!(at, backend::<F>(1));
            let it = F::tables(&mut memory).backends.get_mut(&1).unwrap();
            (it.addr, it.port) = (F::addr(last), Be16::from_host(port));
            at = peer::<F>(1, 7);
            assert_eq!(send(&mut memory, &mut at, proto::UDP), Dialled::Translated);
            assert_eq!(at, peer::<F>(last, port).on(peer_side::BACKEND));
        }
    }
    in_both!(check);
}

#[test]
fn b63_a_slot_that_still_names_another_services_backend_is_passed_over() {
    fn check<F: Tested>() {
        let mut memory = memory::<F>();
        set_backend::<F>(&mut memory, 1, 9);
        set_backend::<F>(&mut memory, 2, 9);
        for cookie in 1..50 {
            memory.sockets.cookie = cookie;
            let mut at = peer::<F>(1, 7);
            assert_eq!(connect(&mut memory, &mut at, proto::TCP), Dialled::Translated);
            assert_eq!(at, backend::<F>(3));
        }
    }
    in_both!(check);
}

#[test]
fn b68_two_vips_get_two_backends_also_if_chance_has_it_otherwise() {
    fn check<F: Tested>() {
        let mut memory = memory::<F>();
        let chance = memory.sockets.random;
        let mut peers = [peer::<F>(1, 7), peer::<F>(2, 7)];
        for at in &mut peers {
            memory.sockets.random = chance;
            assert_eq!(send(&mut memory, at, proto::UDP), Dialled::Translated);
        }
        assert_ne!(peers[0], peers[1]);
    }
    in_both!(check);
}

#[test]
fn b68_two_vips_get_two_backends_or_the_last_one_asked() {
    fn check<F: Tested>() {
        let mut memory = memory::<F>();
        for cookie in 1..50 {
            memory.sockets.cookie = cookie;
            let mut peers = [peer::<F>(1, 7), peer::<F>(2, 7)];
            for at in &mut peers {
                assert_eq!(send(&mut memory, at, proto::UDP), Dialled::Translated);
            }
            assert_ne!(peers[0], peers[1]);
            for (at, last) in peers.iter_mut().zip([1, 2]) {
                assert!(show(&mut memory, at) && *at == peer::<F>(last, 7));
            }
        }
        // A single backend has to do for both.
        memory.selections.insert(FULL, Selection::new(0, 1));
        memory.sockets.cookie = 99;
        for last in [1, 2, 1, 2, 2, 1] {
            let mut at = peer::<F>(last, 7);
            assert_eq!(send(&mut memory, &mut at, proto::UDP), Dialled::Translated);
            assert!(show(&mut memory, &mut at) && at == peer::<F>(last, 7));
        }
        release(&mut memory);
        assert!(memory.sockets.nat.keys().all(|key| key.cookie != 99));
    }
    in_both!(check);
}

#[test]
fn b70_a_closed_socket_takes_along_all_that_is_known_of_it() {
    fn check<F: Tested>() {
        let mut memory = memory::<F>();
        for round in 0..3 {
            for cookie in 1..20 {
                memory.sockets.cookie = cookie;
                for last in [1, 2, 1] {
                    let proto = if cookie % 2 == 0 { proto::TCP } else { proto::UDP };
                    assert_eq!(connect(&mut memory, &mut peer::<F>(last, 7), proto), Dialled::Translated, "{round}");
                }
            }
            assert_eq!(memory.sockets.sockets.len(), 19);
            for cookie in 1..20 {
                memory.sockets.cookie = cookie;
                release(&mut memory);
            }
            assert!(memory.sockets.nat.is_empty() && memory.sockets.sockets.is_empty());
        }
    }
    in_both!(check);
}

#[test]
fn b70_a_full_table_harms_no_other_socket() {
    fn check<F: Tested>() {
        for capacities in [(3, usize::MAX), (usize::MAX, 1), (2, usize::MAX)] {
            let mut memory = memory::<F>();
            memory.sockets.capacities = capacities;
            let mut first = peer::<F>(1, 7);
            assert_eq!(connect(&mut memory, &mut first, proto::UDP), Dialled::Translated);
            let known = memory.sockets.nat.clone();
            memory.sockets.cookie = 2;
            let mut second = peer::<F>(1, 7);
            // Without its name there would be no use for the answer.
            assert_eq!(send(&mut memory, &mut second, proto::UDP), Dialled::Unchanged);
            assert_eq!(second, peer::<F>(1, 7));
            assert_eq!(connect(&mut memory, &mut second, proto::TCP), Dialled::Translated);
            assert!(count(&memory, Reason::SocketTableFull) >= 1);
            release(&mut memory);
            assert_eq!(memory.sockets.nat, known);
            memory.sockets.cookie = 1;
            assert!(show(&mut memory, &mut first) && first == peer::<F>(1, 7));
        }
    }
    in_both!(check);
}

#[test]
fn b71_a_service_without_backends_refuses_and_the_reason_is_counted() {
    fn check<F: Tested>() {
        let mut memory = memory::<F>();
        for (last, reason) in [(3, Reason::NoEndpoint), (4, Reason::NoLocalEndpoint)] {
            assert_eq!(connect(&mut memory, &mut peer::<F>(last, 7), proto::TCP), Dialled::Refused);
            assert_eq!(send(&mut memory, &mut peer::<F>(last, 7), proto::UDP), Dialled::Refused);
            assert_eq!(count(&memory, reason), 2);
        }
        F::tables(&mut memory).backends.clear();
        assert_eq!(connect(&mut memory, &mut peer::<F>(1, 7), proto::TCP), Dialled::Refused);
        assert_eq!(count(&memory, Reason::BackendGone), 1);
        assert!(memory.sockets.nat.is_empty() && memory.sockets.sockets.is_empty());
    }
    in_both!(check);
}

#[test]
fn b71_the_scope_says_whose_sockets_are_served() {
    fn check<F: Tested>() {
        let mut memory = memory::<F>();
        memory.sockets.skip.insert(8);
        for (scope, own, served) in [
            (socket_scope::OFF, 0, [false, false, false]),
            (socket_scope::HOST, 0, [true, false, false]),
            (socket_scope::HOST, 7, [false, true, false]),
            (socket_scope::ALL, 7, [true, true, false]),
        ] {
            (memory.sockets.config.scope, memory.sockets.config.netns) = (scope, own);
            for (netns, served) in [host::FIRST_NETNS, 7, 8].into_iter().zip(served) {
                memory.sockets.netns = netns;
                let dialled = connect(&mut memory, &mut peer::<F>(1, 7), proto::TCP);
                assert_eq!(dialled == Dialled::Translated, served, "{scope} {own} {netns}");
            }
        }
    }
    in_both!(check);
}

#[test]
fn b35_loopback_stands_for_the_nodes_own_node_ports() {
    fn check<F: Tested>(loopback: F::Addr) {
        let at = |port| Peer::new(F::widen(&loopback), Be16::from_host(port), peer_side::VIP);
        let mut memory = memory::<F>();
        let mut dialled = at(30_007);
        assert_eq!(connect(&mut memory, &mut dialled, proto::TCP), Dialled::Translated);
        assert!(show(&mut memory, &mut dialled) && dialled == at(30_007));
        // A ClusterIP's port, a pod's own loopback, a node without addresses.
        assert_eq!(connect(&mut memory, &mut at(7), proto::TCP), Dialled::Unchanged);
        memory.sockets.config.scope = socket_scope::ALL;
        memory.sockets.netns = 7;
        assert_eq!(connect(&mut memory, &mut at(30_007), proto::TCP), Dialled::Unchanged);
        memory.sockets.netns = host::FIRST_NETNS;
        (memory.sockets.config.v4, memory.sockets.config.v6) = ([0; 4], [0; 16]);
        assert_eq!(connect(&mut memory, &mut at(30_007), proto::TCP), Dialled::Unchanged);
    }
    check::<V4>([127, 1, 2, 3]);
    check::<V6>([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn b49_mapped_addresses_are_those_of_ipv4() {
    let mapped = |last| V4::widen(&V4::addr(last));
    assert!(Peer::new(mapped(1), Be16::from_host(7), 0).is_v4());
    assert_eq!(V4::narrow(&mapped(1)), V4::addr(1));
    for (at, byte) in [(9, 1), (10, 0xfe), (11, 0), (0, 1)] {
        let mut addr = mapped(1);
        addr[at] = byte;
        assert!(!Peer::new(addr, Be16::from_host(7), 0).is_v4(), "{addr:?}");
    }
    assert!(!V6::is_loopback(&V4::widen(&[127, 0, 0, 1])));
}
