//! A new agent goes on with what it finds (B78).

use super::*;
use crate::apply::{AnyBackend, MapOp};

/// Services with one and several backends, with one scope and with both, without endpoints, and in both families.
fn many() -> Desired {
    let mut both = service("both", 3, &[1, 2, 3]);
    both.frontends.push(Frontend { external_local: true, kind: FrontendKind::NodePort, ..frontend(103) });
    both.local = Choice::Backends(vec![2]);
    let mut only_local = service("only-local", 4, &[1, 2]);
    (only_local.frontends[0].external_local, only_local.frontends[0].internal_local) = (true, true);
    let mut v6 = service("one", 1, &[]);
    v6.key.family = AddressFamily::V6;
    v6.frontends[0].addr = "2001:db8::1".parse().unwrap();
    v6.backends = vec![Backend { addr: "2001:db8:1::1".parse().unwrap(), ..backend(1) }];
    v6.cluster = Choice::Backends(vec![0]);
    desired([service("one", 1, &[7]), v6, service("none", 2, &[]), both, only_local])
}

#[test]
fn b78_a_restart_with_equal_input_writes_nothing_and_keeps_every_id() {
    let mut first = reconciler();
    reconcile(&mut first, &many());
    let mut second = restarted(&first);
    let report = reconcile(&mut second, &many());
    assert_eq!((report.writes, report.changed), (0, 4));
    assert_eq!(first.programmed().read().ports, second.programmed().read().ports);
    assert_eq!(first.programmed().read().services, second.programmed().read().services);
}

#[test]
fn b78_what_changed_while_no_agent_ran_is_changed_and_the_rest_keeps_its_ids() {
    let mut first = reconciler();
    reconcile(&mut first, &desired([service("web", 1, &[1, 2, 3]), service("dns", 2, &[4])]));
    let mut second = restarted(&first);
    let epoch = second.store().epoch;
    reconcile(&mut second, &desired([service("web", 1, &[1, 3, 5]), service("dns", 2, &[4])]));
    assert_eq!((served_by(&second, 1), served_by(&second, 2)), (Some(vec![1, 3, 5]), Some(vec![4])));
    assert_eq!(second.store().epoch, epoch + 1);
    let (before, after) = (first.programmed().read(), second.programmed().read());
    for (key, before) in &before.ports {
        let after = &after.ports[key];
        assert_eq!((before.service, before.cluster), (after.service, after.cluster));
        for (name, id) in &before.backends {
            assert!(after.backends.get(name).is_none_or(|after| after == id), "{name:?} has another id");
        }
    }
}

#[test]
fn b78_a_policy_that_changed_while_no_agent_ran_is_brought_in() {
    let mut port = service("web", 1, &[1, 2]);
    port.frontends.push(frontend(101));
    let mut first = reconciler();
    reconcile(&mut first, &desired([port.clone()]));
    for (external, internal) in [(true, false), (true, true), (false, true), (false, false)] {
        let mut changed = port.clone();
        (changed.frontends[1].external_local, changed.frontends[1].internal_local) = (external, internal);
        changed.local = Choice::Backends(vec![1]);
        first = restarted(&first);
        reconcile(&mut first, &desired([changed.clone()]));
        let key = AnyFrontendKey::new(IpAddr::from([10, 96, 0, 101]), 80, 6);
        let answer = |local: bool| {
            let all = [1, 2].map(|last| (IpAddr::from([10, 0, 0, last]), 8080));
            Answer::Backends(all.into_iter().skip(usize::from(local)).collect())
        };
        assert_eq!(answers(first.store(), &key), Some([answer(external), answer(internal)]));
        first = restarted(&first);
        assert_eq!(reconcile(&mut first, &desired([changed])).writes, 0);
    }
}

#[test]
fn b78_what_nobody_wants_is_removed_only_when_all_inputs_are_known() {
    let mut first = reconciler();
    reconcile(&mut first, &desired([service("web", 1, &[1, 2]), service("dns", 2, &[4])]));
    let mut second = restarted(&first);
    let mut partial = desired([service("dns", 2, &[4])]);
    partial.complete = false;
    assert_eq!(second.reconcile(&partial).writes, 0);
    assert_eq!(served_by(&second, 1), Some(vec![1, 2]));
    let epoch = second.store().epoch;
    partial.complete = true;
    reconcile(&mut second, &partial);
    assert_eq!((served_by(&second, 1), served_by(&second, 2)), (None, Some(vec![4])));
    assert_eq!((second.store().backends.len(), second.store().epoch), (1, epoch + 1));
}

#[test]
fn b78_an_adopted_service_loses_nothing_until_all_inputs_are_known() {
    let mut first = reconciler();
    reconcile(&mut first, &desired([service("web", 1, &[1, 2])]));
    let mut second = restarted(&first);
    let mut partial = desired([service("web", 1, &[]), service("new", 2, &[3])]);
    partial.complete = false;
    let report = second.reconcile(&partial);
    assert_eq!(report.held, [name("web")]);
    assert_eq!((served_by(&second, 1), served_by(&second, 2)), (Some(vec![1, 2]), Some(vec![3])));
    // What this agent itself was told and is not told any more is really gone.
    let mut smaller = desired([service("web", 1, &[1, 2, 4]), service("new", 2, &[])]);
    smaller.complete = false;
    reconcile(&mut second, &smaller);
    assert_eq!((served_by(&second, 1), served_by(&second, 2)), (Some(vec![1, 2, 4]), Some(vec![])));
    partial.complete = true;
    reconcile(&mut second, &partial);
    assert_eq!(served_by(&second, 1), Some(vec![]));
}

#[test]
fn b78_an_agent_killed_between_any_two_writes_leaves_a_state_that_the_next_one_completes() {
    let before = many();
    let mut port = service("both", 3, &[2, 4]);
    port.frontends.push(frontend(5));
    let after = desired([port, service("moved", 1, &[7]), service("none", 2, &[9, 10])]);
    let mut start = reconciler();
    reconcile(&mut start, &before);
    let mut completed = 0;
    for writes in 0.. {
        let mut killed = restarted(&start);
        reconcile(&mut killed, &before);
        killed.store_mut().fail_after = Some(writes);
        killed.reconcile(&after);
        if killed.store().fail_after.is_some() {
            break;
        }
        // Failing services do not stop the others, a kill does: cut what came after it.
        let cut: Vec<_> = killed.store().log[start.store().log.len()..].iter().take(writes).cloned().collect();
        let mut store = start.store().clone();
        cut.iter().for_each(|op| store.write(op).unwrap());
        store.check().unwrap();
        let mut next = Reconciler::new(store);
        reconcile(&mut next, &after);
        assert_eq!(served_by(&next, 3), Some(vec![2, 4]));
        assert_eq!((next.store().frontends.len(), next.store().backends.len()), (4, 5), "after {writes} writes");
        assert_eq!(next.store().selections.len(), 3, "after {writes} writes");
        completed += 1;
    }
    assert!(completed > 20, "{completed} writes were cut");
}

fn set(store: &mut FakeStore, index: u32, selection: Selection) {
    store.selections.insert(index, selection);
}

#[test]
fn b78_maps_that_no_agent_would_write_are_put_right() {
    let mut first = reconciler();
    reconcile(&mut first, &many());
    let (ids, one) = {
        let index = first.programmed().read();
        let ids = |name: &str| index.ports.iter().find(|(key, _)| key.name == name).unwrap().1.clone();
        (ids("both"), ids("only-local"))
    };
    let key = |last| AnyFrontendKey::new(IpAddr::from([10, 96, 0, last]), 80, 6);
    let damage: Vec<fn(&mut FakeStore, u32, u32)> = vec![
        |store, both, only_local| set(store, both, store.selections[&only_local]),
        |store, both, _| set(store, both, Selection::new(3, 1021)),
        |store, both, _| set(store, both, Selection::new(16 * 8191, 1021)),
        |store, both, _| set(store, both, Selection::new(u32::MAX - 15, u32::MAX)),
        |store, both, only_local| {
            store.frontends.values_mut().filter(|f| f.internal == both).for_each(|f| f.internal = only_local);
        },
        |store, both, _| store.frontends.values_mut().filter(|f| f.internal == both).for_each(|f| f.internal = 0),
        |store, _, _| store.frontends.values_mut().for_each(|f| f.internal = u32::MAX),
        |store, _, _| store.frontends.values_mut().for_each(|f| f.service = 0),
        |store, _, _| store.frontends.values_mut().for_each(|f| f.service = 1),
        |store, _, _| store.frontends.values_mut().for_each(|f| f.service = u32::MAX),
        |store, _, _| store.backends.clear(),
        |store, _, _| {
            store.backends.insert((AddressFamily::V4, 200), AnyBackend::new(IpAddr::from([1, 1, 1, 1]), 1, 1, 0));
        },
        |store, _, _| store.rows.values_mut().for_each(|row| row.0.reverse()),
        |store, _, _| store.rows.clear(),
    ];
    for (case, damage) in damage.into_iter().enumerate() {
        let mut store = FakeStore { strict: false, ..first.store().clone() };
        damage(&mut store, ids.cluster.unwrap(), one.local.unwrap());
        let mut second = Reconciler::new(store);
        reconcile(&mut second, &many());
        assert_eq!(answers(second.store(), &key(3)), answers(first.store(), &key(3)), "case {case}");
        assert_eq!(second.store().frontends.len(), first.store().frontends.len(), "case {case}");
        assert_eq!(second.store().backends.len(), first.store().backends.len(), "case {case}");
        assert_eq!(second.store().selections.len(), first.store().selections.len(), "case {case}");
        let mut third = restarted(&second);
        assert_eq!(reconcile(&mut third, &many()).writes, 0, "case {case}");
        let gone = reconcile(&mut third, &desired([]));
        assert!(matches!(third.store().log.last(), Some(MapOp::RaiseEpoch)) && gone.writes > 0);
        assert!(third.store().frontends.is_empty() && third.store().backends.is_empty());
        assert!(third.store().selections.is_empty());
    }
}
