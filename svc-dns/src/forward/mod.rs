//! Asks others: upstream servers, one after the other, with a cache in front of them.

mod cache;
mod exchange;
mod sift;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::Record;
use tokio::time::timeout;
use tracing::{info, warn};

use cache::{Cache, Key};

/// For one server to answer, once.
const PATIENCE: Duration = Duration::from_millis(1500);
/// For all of them together: shorter than the 5 s after which resolvers give up.
const ALTOGETHER: Duration = Duration::from_millis(4500);
/// How often each is asked.
const ROUNDS: usize = 2;
/// How long a server that did not answer is asked last.
const REST: Duration = Duration::from_secs(10);

/// What upstream servers answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Forwarded {
    /// No error, or no such name.
    pub code: ResponseCode,
    /// The records, aliases first.
    pub answers: Vec<Record>,
    /// Says for how long there is nothing.
    pub authorities: Vec<Record>,
    /// The server vouches for it.
    pub authentic: bool,
}

/// What is asked of upstream servers.
#[derive(Clone, Debug)]
pub struct Asking {
    /// The question.
    pub question: Query,
    /// Signatures are wanted.
    pub dnssec: bool,
    /// Signatures are not to be checked.
    pub unchecked: bool,
}

/// Upstream servers and what they said.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: Vec<Upstream>,
    cache: Mutex<Cache>,
    started: Instant,
}

#[derive(Debug)]
struct Upstream {
    addr: SocketAddr,
    /// Milliseconds since the start until which it is asked last; 0 if it answers.
    rests_until_ms: AtomicU64,
}

impl Forwarder {
    /// Asks these servers, in this order, and remembers so many answers.
    pub fn new(upstreams: &[SocketAddr], cache_entries: usize) -> Self {
        let upstreams =
            upstreams.iter().map(|addr| Upstream { addr: *addr, rests_until_ms: AtomicU64::new(0) }).collect();
        Self { upstreams, cache: Mutex::new(Cache::new(cache_entries)), started: Instant::now() }
    }

    /// What is remembered, if it is still true.
    pub fn remembered(&self, asking: &Asking) -> Option<Forwarded> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&Key::of(asking), Instant::now())
    }

    /// Asks until somebody answers; `None` if nobody does.
    pub async fn ask(&self, asking: &Asking) -> Option<Forwarded> {
        if let Some(remembered) = self.remembered(asking) {
            return Some(remembered);
        }
        let found = timeout(ALTOGETHER, self.ask_all(asking)).await.ok().flatten();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        match &found {
            Some(found) => cache.insert(Key::of(asking), found, Instant::now()),
            None => cache.insert_failure(Key::of(asking), Instant::now()),
        }
        found
    }

    async fn ask_all(&self, asking: &Asking) -> Option<Forwarded> {
        for _ in 0..ROUNDS {
            let now_ms = self.now_ms();
            // Stable: among those that answer, the operator's order counts.
            let mut order: Vec<&Upstream> = self.upstreams.iter().collect();
            order.sort_by_key(|upstream| upstream.rests_until_ms.load(Ordering::Relaxed) > now_ms);
            for upstream in order {
                let answer = timeout(PATIENCE, exchange::ask(upstream.addr, asking)).await;
                match answer.unwrap_or(Err(exchange::Failure::Silent)) {
                    Ok(message) => {
                        self.answers(upstream);
                        if let Some(found) = sift::sift(asking, message) {
                            return Some(found);
                        }
                    }
                    Err(failure) => self.fails(upstream, &failure),
                }
            }
        }
        None
    }

    fn answers(&self, upstream: &Upstream) {
        if upstream.rests_until_ms.swap(0, Ordering::Relaxed) != 0 {
            info!(upstream = %upstream.addr, "answers again");
        }
    }

    fn fails(&self, upstream: &Upstream, failure: &exchange::Failure) {
        let until = self.now_ms() + REST.as_millis() as u64;
        if upstream.rests_until_ms.swap(until, Ordering::Relaxed) == 0 {
            warn!(upstream = %upstream.addr, "does not answer: {failure}; asking it last until it does");
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}
