//! Full maps and failing writes (B80).

use super::*;

/// The backends 10.0.0.1 to 10.0.0.`count`.
fn backends(count: u8) -> Vec<u8> {
    (1..=count).collect()
}

#[test]
fn b80_a_service_that_does_not_fit_stays_as_it_was_until_there_is_room() {
    // What is short; a service that fits beside `big` but not in its next version; what is said.
    let cases = [
        (Capacities { backends: 6, ..ROOMY }, "map `BACKENDS_V4` is full: all of its 6 elements are in use"),
        (
            Capacities { slot_rows: 130, ..ROOMY },
            "map `SLOTS` is full: no 64 adjacent ones of its 130 elements are free",
        ),
        (
            Capacities { frontends: 6, ..ROOMY },
            "map `FRONTENDS_V4` is full: 4 more elements are needed, 2 of 6 are free",
        ),
        (Capacities { selections: 3, ..ROOMY }, "map `SELECTIONS` is full: all of its 3 elements are in use"),
    ];
    for (capacities, text) in cases {
        let mut reconciler = Reconciler::new(FakeStore::new(capacities));
        reconcile(&mut reconciler, &desired([service("big", 1, &backends(2)), service("other", 2, &backends(2))]));

        let mut larger = service("big", 1, &backends(5));
        larger.frontends.extend([3, 4].map(|last| Frontend { external_local: true, ..frontend(last) }));
        larger.local = Choice::Backends(vec![0]);
        let mut wanted = desired([larger, service("other", 2, &backends(2))]);
        let before = reconciler.store().clone();
        let report = reconciler.reconcile(&wanted);
        assert_eq!(report.refused, [(name("big"), text.to_string())]);
        assert!(report.wants_retry());
        assert_eq!((report.writes, &before.frontends), (0, &reconciler.store().frontends));
        assert_eq!(served_by(&reconciler, 1), Some(backends(2)));

        // Refused again and again, it costs nothing and uses nothing up; the others go on.
        for affinity_s in [Some(60), None, Some(60)] {
            let changed = ResolvedPort { affinity_s, ..service("other", 2, &backends(2)) };
            wanted.services.insert(name("other"), Arc::new(vec![changed]));
            let report = reconciler.reconcile(&wanted);
            assert_eq!((report.refused.len(), report.changed, report.writes), (1, 1, 2), "{report:?}");
            assert_eq!((served_by(&reconciler, 1), served_by(&reconciler, 3)), (Some(backends(2)), None));
            reconciler.store().check().unwrap();
        }
        wanted.services.remove(&name("other"));
        reconciler.reconcile(&wanted);
        reconcile(&mut reconciler, &wanted);
        assert_eq!((served_by(&reconciler, 1), served_by(&reconciler, 3)), (Some(backends(5)), Some(backends(5))));
    }
}

#[test]
fn b80_a_new_service_that_does_not_fit_leaves_no_trace() {
    let mut reconciler = Reconciler::new(FakeStore::new(Capacities { services: 2, ..ROOMY }));
    let wanted = desired([service("a", 1, &[1]), service("b", 2, &[2])]);
    let report = reconciler.reconcile(&wanted);
    let text = "map `SVC_COUNTERS` is full: all of its 2 elements are in use";
    assert_eq!(report.refused, [(name("b"), text.to_string())]);
    assert_eq!((reconciler.store().frontends.len(), reconciler.store().backends.len()), (1, 1));
    assert_eq!(reconciler.programmed().read().ports.len(), 1);
}

#[test]
fn b80_all_ports_of_a_service_fit_or_none() {
    let mut reconciler = Reconciler::new(FakeStore::new(Capacities { backends: 4, ..ROOMY }));
    let mut metrics = service("a", 2, &[1, 2]);
    metrics.key.port = 9090;
    let report = reconciler.reconcile(&desired([service("a", 1, &[1, 2]), metrics]));
    assert_eq!((report.refused.len(), report.writes), (1, 0));
}

#[test]
fn b80_a_write_that_fails_is_done_in_the_next_pass() {
    let before = desired([service("a", 1, &[1, 2]), service("b", 2, &[3])]);
    let after = desired([service("a", 1, &[2, 4]), service("c", 2, &[5]), service("d", 3, &[6])]);
    for writes in 0.. {
        let mut reconciler = reconciler();
        reconcile(&mut reconciler, &before);
        reconciler.store_mut().fail_after = Some(writes);
        let report = reconciler.reconcile(&after);
        reconciler.store().check().unwrap();
        if reconciler.store().fail_after.is_some() {
            assert!(writes > 15 && !report.wants_retry());
            break;
        }
        assert!(report.wants_retry(), "{writes}: {report:?}");
        assert_eq!(report.failed.len() + usize::from(report.error.is_some()), 1, "only one service fails");
        reconcile(&mut reconciler, &after);
        let served = [1, 2, 3].map(|vip| served_by(&reconciler, vip));
        assert_eq!(served, [Some(vec![2, 4]), Some(vec![5]), Some(vec![6])], "{writes}");
        assert_eq!(reconciler.store().backends.len(), 4, "{writes}");
        assert_eq!(reconcile(&mut restarted(&reconciler), &after).writes, 0, "{writes}");
    }
}
