//! What happens when several services change in one pass (B77).

use super::*;
use crate::apply::MapOp;

/// The writes of one pass.
fn writes(reconciler: &mut Reconciler<FakeStore>, desired: &Desired) -> Vec<MapOp> {
    reconciler.store_mut().log.clear();
    reconcile(reconciler, desired);
    reconciler.store().log.clone()
}

#[test]
fn b77_an_address_that_moves_to_another_service_is_served_all_the_time() {
    let cases = [
        ("renamed", desired([service("b", 1, &[3])])),
        ("renamed, earlier in the order", desired([service("A", 1, &[3])])),
        ("swapped", desired([service("a", 2, &[1]), service("z", 1, &[2])])),
        ("given away", desired([service("a", 3, &[1]), service("z", 1, &[2])])),
    ];
    for (case, after) in cases {
        let mut reconciler = reconciler();
        reconcile(&mut reconciler, &desired([service("a", 1, &[1]), service("z", 2, &[2])]));
        let writes = writes(&mut reconciler, &after);
        let vip = AnyFrontendKey::new(IpAddr::from([10, 96, 0, 1]), 80, 6);
        assert!(!writes.iter().any(|op| matches!(op, MapOp::DeleteFrontend { key } if *key == vip)), "{case}");
        let last = after.services.values().flat_map(|ports| ports.iter()).find(|port| port.frontends[0] == frontend(1));
        let IpAddr::V4(addr) = last.unwrap().backends[0].addr else { panic!("an IPv4 service") };
        assert_eq!(served_by(&reconciler, 1), Some(vec![addr.octets()[3]]), "{case}");
        assert_eq!(reconciler.store().backends.len(), after.services.len(), "{case}");
    }
}

#[test]
fn b77_nothing_goes_before_the_packets_that_saw_the_old_table_have_passed() {
    let mut reconciler = reconciler();
    reconcile(&mut reconciler, &desired([service("a", 1, &[1, 2])]));
    assert_eq!(reconciler.store().settled_after, None, "nobody waits for something new");
    let writes = writes(&mut reconciler, &desired([service("a", 1, &[1])]));
    let settled = reconciler.store().settled_after.unwrap();
    assert!(matches!(writes[settled - 1], MapOp::SetSelection { .. }), "{writes:?}");
    assert!(matches!(writes[settled], MapOp::SetBackend { value, .. } if value.is_free()), "{writes:?}");
}

#[test]
fn b26_the_epoch_rises_once_after_a_change_and_not_for_something_new() {
    let mut reconciler = reconciler();
    let rises = |writes: &[MapOp]| writes.iter().filter(|op| matches!(op, MapOp::RaiseEpoch)).count();
    let new = writes(&mut reconciler, &desired([service("a", 1, &[1, 2]), service("b", 2, &[3, 4])]));
    assert_eq!(rises(&new), 0);
    let more = desired([service("a", 1, &[1, 2]), service("b", 2, &[3, 4]), service("c", 3, &[5])]);
    assert_eq!(rises(&writes(&mut reconciler, &more)), 0);
    let changed = writes(&mut reconciler, &desired([service("a", 1, &[1]), service("b", 2, &[3])]));
    assert_eq!((rises(&changed), changed.last()), (1, Some(&MapOp::RaiseEpoch)));
}

#[test]
fn b26_an_epoch_that_could_not_be_raised_is_raised_in_the_next_pass() {
    let mut reconciler = reconciler();
    reconcile(&mut reconciler, &desired([service("a", 1, &[1, 2])]));
    let after = desired([service("a", 1, &[1])]);
    let mut probe = restarted(&reconciler);
    let count = writes(&mut probe, &after).len();
    reconciler.store_mut().fail_after = Some(count - 1);
    let report = reconciler.reconcile(&after);
    assert!(report.wants_retry() && report.failed.is_empty() && report.error.is_some(), "{report:?}");
    assert_eq!(writes(&mut reconciler, &after), [MapOp::RaiseEpoch]);
}

#[test]
fn b80_services_that_keep_their_arc_are_not_looked_at() {
    let mut reconciler = reconciler();
    let mut wanted = desired([service("a", 1, &[1]), service("b", 2, &[2]), service("c", 3, &[3])]);
    assert_eq!(reconcile(&mut reconciler, &wanted).changed, 3);
    assert_eq!(reconcile(&mut reconciler, &wanted).changed, 0);
    wanted.services.insert(name("b"), Arc::new(vec![service("b", 2, &[2, 4])]));
    let report = reconcile(&mut reconciler, &wanted);
    assert_eq!(report.changed, 1);
    assert_eq!(report.writes, 4, "backend, rows, selection, epoch");
}

#[test]
fn b77_other_readers_learn_every_id() {
    let mut reconciler = reconciler();
    let programmed = reconciler.programmed().clone();
    reconcile(&mut reconciler, &desired([service("a", 1, &[1, 2])]));
    let (key, ids) = programmed.read().ports.first_key_value().map(|(key, ids)| (key.clone(), ids.clone())).unwrap();
    assert_eq!(programmed.service_port(ids.service), Some(key));
    for (name, id) in &ids.backends {
        assert_eq!(reconciler.store().backends[&(AddressFamily::V4, *id)].name(), *name);
    }
    reconcile(&mut reconciler, &desired([]));
    assert!(programmed.read().ports.is_empty() && programmed.read().services.is_empty());
}

#[test]
fn b66_the_row_of_an_address_comes_after_its_frontends_and_goes_after_them() {
    let mut reconciler = reconciler();
    let shared = |name: &str, port: u16| {
        let mut shared = service(name, 1, &[1]);
        (shared.frontends[0].port, shared.frontends[0].kind) = (port, FrontendKind::LoadBalancer);
        shared
    };
    let (a, b) = (shared("a", 80), shared("b", 443));
    let row = |op: &MapOp| matches!(op, MapOp::SetAddress { .. } | MapOp::DeleteAddress { .. });
    let added = writes(&mut reconciler, &desired([a.clone(), b]));
    assert_eq!(added.iter().position(row), Some(added.len() - 1), "one, after the frontends of both: {added:?}");
    let one = writes(&mut reconciler, &desired([a]));
    assert!(!one.iter().any(row), "the other service needs it: {one:?}");
    let gone = writes(&mut reconciler, &desired([]));
    let last = gone.iter().rposition(|op| matches!(op, MapOp::DeleteFrontend { .. }));
    assert!(gone.iter().position(row) > last, "{gone:?}");
    assert!(reconciler.store().addresses.is_empty());
}
