//! Asks every target again and again, and tells when a verdict changes.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::ask::ask;
use super::state::State;
use super::{Failing, Target};

/// Questions under way at once: sockets and memory are bounded, whatever the number of endpoints.
const AT_ONCE: usize = 128;

/// Where one endpoint begins to fail, others often do.
const GATHER: Duration = Duration::from_millis(50);

/// All targets, one small task for each. Dropped, it asks no more.
#[derive(Debug)]
pub struct Prober {
    tasks: BTreeMap<Target, JoinHandle<()>>,
    states: Arc<Mutex<BTreeMap<Target, State>>>,
    slots: Arc<Semaphore>,
    changes: watch::Sender<()>,
    changed: watch::Receiver<()>,
    /// When a change that was noticed is told.
    told: Option<Instant>,
}

impl Default for Prober {
    fn default() -> Self {
        let (changes, changed) = watch::channel(());
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        Self { tasks: BTreeMap::new(), states: Arc::default(), slots, changes, changed, told: None }
    }
}

impl Prober {
    /// Asks these targets from now on, and no others; what is known of those that stay is kept.
    ///
    /// To be called within a runtime, if there are any.
    pub fn follow(&mut self, targets: BTreeSet<Target>) {
        self.tasks.retain(|target, task| {
            let stays = targets.contains(target);
            if !stays {
                task.abort();
            }
            stays
        });
        self.states.lock().unwrap_or_else(PoisonError::into_inner).retain(|target, _| targets.contains(target));
        for target in targets {
            let (states, slots, changes) = (self.states.clone(), self.slots.clone(), self.changes.clone());
            self.tasks.entry(target).or_insert_with_key(|target| {
                let target = target.clone();
                states.lock().unwrap_or_else(PoisonError::into_inner).insert(target.clone(), State::default());
                tokio::spawn(keep_asking(target, states, slots, changes))
            });
        }
    }

    /// The targets that fail.
    pub fn failing(&self) -> Failing {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = states.iter().filter_map(|(target, state)| Some((target.clone(), state.failing()?.to_owned())));
        Arc::new(failing.collect())
    }

    /// Waits until a verdict changes, and a little for others; one that did since the last call counts. May be dropped
    /// at any await.
    pub async fn changed(&mut self) {
        let told = match self.told {
            Some(told) => told,
            None => {
                // The other end is in this very value.
                let _open = self.changed.changed().await;
                *self.told.insert(Instant::now() + GATHER)
            }
        };
        sleep_until(told).await;
        self.told = None;
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

async fn keep_asking(
    target: Target,
    states: Arc<Mutex<BTreeMap<Target, State>>>,
    slots: Arc<Semaphore>,
    changes: watch::Sender<()>,
) {
    let interval = Duration::from_secs(target.check.interval_s.into());
    // So that the targets of a Service, and the nodes that ask them, do not all ask at the same moment: the first
    // question comes soon, the second one after a part of the interval that differs between them.
    let mut due = Instant::now() + (interval / 10).mul_f64(share(&target));
    let mut pause = interval.mul_f64(0.5 + share(&target) / 2.0);
    loop {
        sleep_until(due).await;
        let Ok(slot) = slots.acquire().await else { return };
        let answer = ask(&target).await;
        drop(slot);
        let mut states = states.lock().unwrap_or_else(PoisonError::into_inner);
        // Removed meanwhile: nobody wants to know.
        let Some(state) = states.get_mut(&target) else { return };
        let failed = state.failing().is_some();
        if state.take(&target.check, answer) && state.failing().is_some() != failed {
            changes.send_replace(());
        }
        drop(states);
        due = (due + pause).max(Instant::now() + pause / 2);
        pause = interval;
    }
}

/// A number from 0 to 1 that differs between targets, and between agents.
fn share(target: &Target) -> f64 {
    let mut hasher = DefaultHasher::new();
    (target, std::process::id()).hash(&mut hasher);
    (hasher.finish() >> 32) as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::TcpListener;

    use super::*;
    use crate::model::{CheckKind, HealthCheck};

    fn target(addr: SocketAddr) -> Target {
        let kind = CheckKind::Tcp;
        Target { addr, check: HealthCheck { kind, port: None, interval_s: 1, timeout_s: 1, healthy: 1, unhealthy: 1 } }
    }

    #[tokio::test]
    async fn a_verdict_that_changes_is_told_and_forgotten_with_its_target() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = target(listener.local_addr().unwrap());
        let gone = target(TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
        let mut prober = Prober::default();
        prober.follow([there.clone(), gone.clone()].into());
        assert!(prober.failing().is_empty(), "nobody was asked yet");
        prober.changed().await;
        assert_eq!(prober.failing().get(&gone).map(String::as_str), Some("connection refused"));
        assert!(!prober.failing().contains_key(&there));
        drop(listener);
        prober.changed().await;
        assert_eq!(prober.failing().len(), 2);
        let _again = TcpListener::bind(there.addr).await.unwrap();
        prober.changed().await;
        assert!(!prober.failing().contains_key(&there));
        prober.follow(BTreeSet::new());
        assert!(prober.failing().is_empty() && prober.tasks.is_empty());
    }
}
