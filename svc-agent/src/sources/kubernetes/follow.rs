//! One kind: list it, watch it, and list it again whenever something may have been missed.
//!
//! A watch that ends when it was asked to goes on from where it was. Whatever else ends it, a full list says what is true,
//! so that no deletion is missed; and so it does from time to time, as a watch may be silent and wrong.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::answer::{self, Page};
use super::backoff::{Backoff, Limits, jitter};
use super::kinds::{Watched, escape};
use super::servers::{Server, Servers};
use super::state::{List, State, Verdict};
use super::transport::{Answer, Request, Transport};

/// Objects of one page.
const PAGE: usize = 500;
/// Bytes of one page: 500 objects of the size that etcd allows are more, and absurd.
const MAX_PAGE_BYTES: usize = 128 << 20;
/// Bytes of one event: etcd takes objects of 1.5 MiB.
const MAX_EVENT_BYTES: usize = 8 << 20;
/// Pages of one list.
const MAX_PAGES: usize = 10_000;
/// How much of a refusal is read.
const MAX_REFUSAL_BYTES: usize = 64 << 10;
/// Lists in a row that may be older than what is known, from each server, before they are believed.
const OLDER: u32 = 3;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The head of an answer, and a whole page.
    pub answer: Duration,
    /// Silence of a watch. A server sends a bookmark about every minute.
    pub silence: Duration,
    /// How long a watch lasts that goes well.
    pub watch: Duration,
    /// The time between full lists.
    pub relist: Duration,
    /// How long a list that lacks much has to be confirmed.
    pub confirm: Duration,
    /// Pauses after failures.
    pub backoff: Limits,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            silence: Duration::from_secs(150),
            watch: Duration::from_secs(300),
            relist: Duration::from_secs(1800),
            confirm: Duration::from_secs(10),
            backoff: Limits { min: Duration::from_millis(200), max: Duration::from_secs(4) },
        }
    }
}

/// What the tasks of all kinds share.
pub struct Shared {
    /// What is known.
    state: Mutex<State>,
    /// Told when the state has changed.
    pub changed: Notify,
    /// Who is asked.
    pub servers: Servers,
    /// How.
    pub transport: Arc<dyn Transport>,
    /// The only Node that is asked for, if not all are.
    node: Option<String>,
    timing: Timing,
}

impl Shared {
    /// Nothing is known yet.
    pub fn new(
        state: State,
        servers: Servers,
        transport: Arc<dyn Transport>,
        node: Option<String>,
        timing: Timing,
    ) -> Self {
        Self { state: Mutex::new(state), changed: Notify::new(), servers, transport, node, timing }
    }

    /// What is known.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a watch ended.
enum End {
    /// As it was asked to.
    Expired,
    /// Anything may have been missed.
    Broken(String),
}

/// Follows a kind for ever.
pub async fn follow(shared: Arc<Shared>, watched: Watched) {
    let mut backoff = Backoff::new(shared.timing.backoff);
    loop {
        let server = shared.servers.current();
        let failed = match list(&shared, watched, &server).await {
            Ok(()) => {
                backoff.reset();
                watch_until_it_breaks(&shared, watched, &server).await
            }
            Err(error) => Some(error),
        };
        let Some(error) = failed else { continue };
        let news = shared.state().lost(watched, &server.url, error.clone());
        shared.servers.failed(&server);
        shared.changed.notify_one();
        let pause = backoff.pause();
        if news {
            warn!(kind = %watched, server = server.url, error, "lost the API server; trying again");
        } else {
            debug!(kind = %watched, server = server.url, error, pause_ms = pause.as_millis() as u64, "still lost");
        }
        sleep(pause).await;
    }
}

/// Takes a full list.
async fn list(shared: &Shared, watched: Watched, server: &Server) -> Result<(), String> {
    let (known, older) = {
        let state = shared.state();
        (state.version(watched), state.older(watched))
    };
    // All servers say so, again and again: the cluster was restored from a backup.
    let believe = older >= OLDER.saturating_mul(shared.servers.count().max(1) as u32);
    let from = known.filter(|_| !believe);
    let list = match pages(shared, watched, server, from.as_deref()).await {
        Ok(list) => list,
        Err(Failure::Behind(text)) => {
            shared.state().is_behind(watched);
            return Err(text);
        }
        Err(Failure::Forbidden(text)) => {
            shared.state().forbidden(watched);
            return Err(text);
        }
        Err(Failure::Other(text)) => return Err(text),
    };
    let (objects, version) = (list.items.len(), list.version.clone());
    match shared.state().replace(watched, list, believe, Instant::now()) {
        Verdict::Taken if believe => {
            warn!(kind = %watched, version, "the API servers went back to an older version; following them");
        }
        Verdict::Taken => debug!(kind = %watched, server = server.url, objects, version, "listed"),
        Verdict::Doubted(why) => return Err(why),
    }
    found(shared, watched);
    Ok(())
}

/// Something may have changed.
fn found(shared: &Shared, watched: Watched) {
    if watched != Watched::Node {
        let endpoints = shared.state().api_endpoints();
        shared.servers.discovered(&endpoints);
    }
    shared.changed.notify_one();
}

/// Why there is no list.
enum Failure {
    /// The server has not seen yet what is known here.
    Behind(String),
    /// This agent may not.
    Forbidden(String),
    Other(String),
}

/// Asks for all pages.
async fn pages(
    shared: &Shared,
    watched: Watched,
    server: &Server,
    not_older_than: Option<&str>,
) -> Result<List, Failure> {
    let base = watched.path(shared.node.as_deref());
    let first = match not_older_than {
        Some(version) => {
            format!("{base}&limit={PAGE}&resourceVersion={}&resourceVersionMatch=NotOlderThan", escape(version))
        }
        None => format!("{base}&limit={PAGE}"),
    };
    let (mut path, mut items) = (first, Vec::new());
    for _ in 0..MAX_PAGES {
        let page = one_page(shared, watched, server, path).await?;
        for value in page.items {
            items.push(shared.state().read(watched, value).map_err(Failure::Other)?);
        }
        let Some(next) = page.next else { return Ok(List { version: page.version, items }) };
        path = format!("{base}&limit={PAGE}&continue={}", escape(&next));
    }
    Err(Failure::Other(format!("found a list of more than {MAX_PAGES} pages")))
}

async fn one_page(shared: &Shared, watched: Watched, server: &Server, path: String) -> Result<Page, Failure> {
    let ask = async {
        let answer = send(shared, server, path).await?;
        let status = answer.status;
        let limit = if status == 200 { MAX_PAGE_BYTES } else { MAX_REFUSAL_BYTES };
        Ok((status, read(answer, limit).await?))
    };
    let (status, bytes) = in_time(shared.timing.answer, ask).await.map_err(Failure::Other)?;
    match status {
        200 => answer::page(watched, &bytes).map_err(Failure::Other),
        // Not 401: a token that is void today is replaced tomorrow.
        403 => Err(Failure::Forbidden(answer::refusal(status, &bytes))),
        504 => Err(Failure::Behind(answer::refusal(status, &bytes))),
        _ => Err(Failure::Other(answer::refusal(status, &bytes))),
    }
}

/// Watches again and again; why it has to be listed, `None` if it is only time to.
async fn watch_until_it_breaks(shared: &Shared, watched: Watched, server: &Server) -> Option<String> {
    let relist = Instant::now() + jitter(shared.timing.relist);
    while Instant::now() < relist {
        match watch(shared, watched, server).await {
            End::Expired => {}
            End::Broken(error) => return Some(error),
        }
    }
    None
}

async fn watch(shared: &Shared, watched: Watched, server: &Server) -> End {
    let lasts = jitter(shared.timing.watch).max(Duration::from_secs(1));
    let Some(version) = shared.state().version(watched) else { return End::Broken("nothing is listed yet".to_owned()) };
    let path = format!(
        "{}&watch=1&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={}",
        watched.path(shared.node.as_deref()),
        escape(&version),
        lasts.as_secs()
    );
    let begun = Instant::now();
    let answer = match in_time(shared.timing.answer, send(shared, server, path)).await {
        Ok(answer) => answer,
        Err(error) => return End::Broken(error),
    };
    if answer.status != 200 {
        let status = answer.status;
        return End::Broken(match in_time(shared.timing.answer, read(answer, MAX_REFUSAL_BYTES)).await {
            Ok(bytes) => answer::refusal(status, &bytes),
            Err(_) => answer::refusal(status, &[]),
        });
    }
    shared.state().connected(watched, &server.url);
    shared.changed.notify_one();
    info!(kind = %watched, server = server.url, version, "watching");
    // The server ends it. If it does not, nobody knows what it does instead.
    match timeout(lasts + shared.timing.answer, events(shared, watched, answer)).await {
        Ok(Err(error)) => End::Broken(error),
        Ok(Ok(())) if begun.elapsed() < lasts.mul_f64(0.9) => End::Broken("the watch ended early".to_owned()),
        Ok(Ok(())) | Err(_) => End::Expired,
    }
}

/// Takes the events of a watch until it ends.
async fn events(shared: &Shared, watched: Watched, mut answer: Answer) -> Result<(), String> {
    let mut line = Vec::new();
    loop {
        let silence = format!("nothing was heard for {} s", shared.timing.silence.as_secs());
        let bytes = match timeout(shared.timing.silence, answer.body.next()).await {
            Err(_) => return Err(silence),
            Ok(None) if line.is_empty() => return Ok(()),
            Ok(None) => return Err("the watch ended within an event".to_owned()),
            Ok(Some(bytes)) => bytes.map_err(|error| format!("the watch broke off: {error}"))?,
        };
        let mut rest = bytes.as_ref();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = rest.split_at(end);
            line.extend_from_slice(head);
            rest = tail.get(1..).unwrap_or_default();
            if !line.trim_ascii().is_empty() {
                let event = answer::event(&line)?;
                let changed = shared.state().apply(watched, event, Instant::now())?;
                if changed {
                    found(shared, watched);
                }
            }
            line.clear();
        }
        line.extend_from_slice(rest);
        if line.len() > MAX_EVENT_BYTES {
            return Err(format!("found an event of more than {MAX_EVENT_BYTES} bytes"));
        }
    }
}

async fn send(shared: &Shared, server: &Server, path: String) -> Result<Answer, String> {
    shared.transport.send(server, Request::get(path)).await.map_err(|error| format!("{error:#}"))
}

/// The whole body.
pub async fn read(mut answer: Answer, limit: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.body.next().await {
        bytes.extend_from_slice(&piece.map_err(|error| format!("the answer broke off: {error}"))?);
        if bytes.len() > limit {
            return Err(format!("found an answer of more than {limit} bytes"));
        }
    }
    Ok(bytes)
}

async fn in_time<T>(limit: Duration, what: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match timeout(limit, what).await {
        Ok(done) => done,
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}
