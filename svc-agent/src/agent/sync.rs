//! Follows the sources: load -> resolve -> reconcile, whenever a source or the node changes.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::published::{Published, SyncState};
use super::source::Source;
use crate::apply::kernel::KernelStore;
use crate::health::PERIOD;
use crate::metrics::Programming;
use crate::model::{Problem, Severity};
use crate::reconcile::{Reconciler, Report};
use crate::resolve::{Node, Policy, Resolver};
use crate::sources::Snapshot;
use crate::sys::heap;

/// The shortest and the longest pause before what failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How long a start waits for the first state: with what the maps hold, traffic goes on without it.
const FIRST: Duration = Duration::from_secs(10);

/// After a pass over so many Services memory is given back: what was read to get there took more than what stays.
const MANY: usize = 1_000;

/// What the task works with.
pub struct Syncer {
    source: Source,
    snapshot: Arc<Snapshot>,
    resolver: Resolver,
    node: Node,
    /// The zone that the operator told; it counts before the one of the Node object.
    zone: Option<String>,
    reconciler: Reconciler<KernelStore>,
    /// The resolver knows what an earlier agent left.
    inherited: bool,
    addresses: watch::Receiver<Vec<IpAddr>>,
    published: Arc<Published>,
    /// Doubles with each failure in a row; `None` if there is nothing to try again.
    retry: Option<Duration>,
    programming: Programming,
}

impl Syncer {
    /// Reads nothing yet. `node` gets its addresses from `addresses`.
    pub fn new(
        source: Source,
        policy: Policy,
        node: Node,
        reconciler: Reconciler<KernelStore>,
        addresses: watch::Receiver<Vec<IpAddr>>,
        published: Arc<Published>,
    ) -> Self {
        Self {
            source,
            snapshot: Arc::default(),
            resolver: Resolver::new(policy),
            zone: node.zone.clone(),
            node,
            reconciler,
            inherited: false,
            addresses,
            published,
            retry: None,
            programming: Programming::default(),
        }
    }

    /// Waits until the sources can say something, but not long.
    pub async fn first(&mut self) {
        self.source.first(FIRST).await;
    }

    /// Loads the sources and brings the maps in line with them; false if the maps could not even be read.
    pub fn load(&mut self) -> bool {
        let before = std::mem::replace(&mut self.snapshot, Arc::new(self.source.load()));
        self.programming.changed(&before.objects, &self.snapshot.objects);
        let own = self.snapshot.objects.nodes.get(&self.node.name);
        self.node.zone = self.zone.clone().or_else(|| own.and_then(|node| node.zone.clone()));
        self.published.zone.set(self.node.zone.clone());
        self.reconcile()
    }

    /// Follows until it is dropped.
    pub async fn run(mut self) {
        loop {
            let retry = self.retry;
            let again = async {
                match retry {
                    Some(pause) => sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            let load = tokio::select! {
                () = self.source.changed() => true,
                changed = self.addresses.changed() => match changed {
                    Ok(()) => false,
                    // The other end is gone with the agent.
                    Err(_) => return,
                },
                () = again => false,
                // A sign of life.
                () = sleep(PERIOD) => false,
            };
            // Files are read and maps written on this thread: others take over its tasks.
            let _readable = tokio::task::block_in_place(|| if load { self.load() } else { self.reconcile() });
        }
    }

    fn reconcile(&mut self) -> bool {
        let begun = Instant::now();
        self.published.progress.wanted(begun);
        self.node.addresses.clone_from(&self.addresses.borrow_and_update());
        // If the maps cannot be read, the reconciler says so below.
        if !self.inherited
            && let Ok(inherited) = self.reconciler.inherited()
        {
            self.resolver.inherit(inherited);
            self.inherited = true;
        }
        let desired = self.resolver.update(&self.snapshot, &self.node);
        let report = self.reconciler.reconcile(&desired);
        if report.writes > 0 {
            self.published.written.notify_one();
        }
        let before = self.published.sync.get();
        log_problems(&before.desired.problems, &desired.problems);
        log_report(&before.report, &report, begun.elapsed());
        if report.changed >= MANY {
            heap::trim();
        }
        self.retry = report.wants_retry().then(|| self.retry.map_or(RETRY.0, |pause| (pause * 2).min(RETRY.1)));
        let readable = report.error.is_none();
        self.published.timings.pass.observe(begun.elapsed());
        if self.retry.is_none() {
            self.programming.done(Timestamp::now(), &self.published.timings.programming);
        }
        let last_success = if self.retry.is_none() { Some(Instant::now()) } else { before.last_success };
        self.published.sync.set(SyncState { desired, report, last_success });
        self.published.snapshot.send_replace(self.snapshot.clone());
        self.published.progress.passed(Instant::now(), readable);
        readable
    }
}

/// Says what is new, once.
fn log_problems(before: &[Problem], now: &[Problem]) {
    let (new, settled) = changes(before, now);
    for problem in new {
        match problem.severity {
            Severity::Error | Severity::Warning => warn!("{problem}"),
            Severity::Notice => info!("{problem}"),
        }
    }
    for problem in settled {
        info!("settled: {problem}");
    }
}

fn log_report(before: &Report, now: &Report, took: Duration) {
    if now.writes > 0 || now.changed > 0 {
        info!(services = now.changed, writes = now.writes, took_ms = took.as_millis() as u64, "maps are up to date");
    } else {
        debug!(took_ms = took.as_millis() as u64, "nothing to write");
    }
    let (before, now) = (complaints(before), complaints(now));
    let (new, settled) = changes(&before, &now);
    new.for_each(|line| warn!("{line}"));
    settled.for_each(|line| info!("settled: {line}"));
}

/// What a report complains about, one line each.
fn complaints(report: &Report) -> Vec<String> {
    let refused =
        report.refused.iter().map(|(name, why)| format!("Service `{name}` does not fit: {why}; trying again"));
    let failed =
        report.failed.iter().map(|(name, why)| format!("Service `{name}` cannot be written: {why}; trying again"));
    let held = report.held.iter().map(|name| {
        format!(
            "Service `{name}` stays as an earlier agent left it: what it would lose may be in a manifest that cannot be \
             read; correct or remove that manifest"
        )
    });
    let error = report.error.iter().map(|error| format!("{error}; trying again"));
    refused.chain(failed).chain(held).chain(error).collect()
}

/// What is in `now` alone, and what is in `before` alone, each in its order.
fn changes<'a, T: Eq + Hash>(
    before: &'a [T],
    now: &'a [T],
) -> (impl Iterator<Item = &'a T>, impl Iterator<Item = &'a T>) {
    // There may be a complaint about each of ten thousand services.
    let (old, new): (HashSet<&T>, HashSet<&T>) = (before.iter().collect(), now.iter().collect());
    (now.iter().filter(move |item| !old.contains(item)), before.iter().filter(move |item| !new.contains(item)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::ServiceName;

    #[test]
    fn what_is_new_and_what_is_settled_is_said_once() {
        let (new, settled) = changes(&[1, 2, 3], &[4, 3, 2]);
        assert_eq!((new.collect::<Vec<_>>(), settled.collect::<Vec<_>>()), (vec![&4], vec![&1]));
    }

    #[test]
    fn what_does_not_follow_the_manifests_is_named_with_the_reason() {
        let name = |name| ServiceName::new("default", name);
        let report =
            Report { refused: vec![(name("a"), "no room".to_owned())], held: vec![name("b")], ..Report::default() };
        let lines = complaints(&report);
        assert_eq!(lines[0], "Service `default/a` does not fit: no room; trying again");
        assert!(lines[1].starts_with("Service `default/b` stays as an earlier agent left it"), "{lines:?}");
    }
}
