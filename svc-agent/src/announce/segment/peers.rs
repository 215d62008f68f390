//! Asks the agents of other nodes, once a second, which addresses they would answer for.
//!
//! A node whose agent is gone answers for nothing, whatever its Node object says; one that is going away says so itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt as _, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::elect::Peer;

/// The path at the address of `healthz-bind`.
pub const PATH: &str = "/announce";

/// How often a node is asked, and how long it may take.
const PERIOD: Duration = Duration::from_secs(1);
/// Questions without an answer after which it is out: a restart of the agent is shorter.
const MISSES: u32 = 3;
/// More than a hundred thousand addresses have.
const MAX_BYTES: usize = 8 << 20;

/// What an agent tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The node that it runs on.
    pub node: String,
    /// The addresses that it would answer for.
    pub addresses: BTreeSet<IpAddr>,
}

/// What is known of a node.
#[derive(Clone, Debug, Default)]
struct State {
    /// The last answer; `None` before the first, and when there were none for too long.
    offer: Option<Arc<BTreeSet<IpAddr>>>,
    /// Why there is no answer.
    error: String,
    misses: u32,
}

impl State {
    fn is_out(&self) -> bool {
        self.offer.is_none() && self.misses >= MISSES
    }

    /// Takes an answer in; whether that changes anything.
    fn take(&mut self, answer: Result<Offer, String>) -> bool {
        match answer {
            Ok(offer) => {
                let is_new = self.offer.as_deref() != Some(&offer.addresses);
                *self = Self { offer: Some(Arc::new(offer.addresses)), ..Self::default() };
                is_new
            }
            Err(error) => {
                let was_out = self.is_out();
                (self.misses, self.error) = (self.misses.saturating_add(1), error);
                if self.misses >= MISSES {
                    self.offer = None;
                }
                self.is_out() != was_out
            }
        }
    }
}

type States = Arc<Mutex<BTreeMap<String, State>>>;

/// The nodes that are asked, one small task for each. Dropped, it asks no more.
#[derive(Debug)]
pub struct Peers {
    tasks: BTreeMap<String, (Vec<SocketAddr>, JoinHandle<()>)>,
    states: States,
    changes: watch::Sender<()>,
    changed: watch::Receiver<()>,
}

impl Default for Peers {
    fn default() -> Self {
        let (changes, changed) = watch::channel(());
        Self { tasks: BTreeMap::new(), states: States::default(), changes, changed }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.tasks.values().for_each(|(_, task)| task.abort());
    }
}

impl Peers {
    /// Asks these nodes from now on, each at the first of its addresses that answers, and no others.
    pub fn follow(&mut self, wanted: BTreeMap<String, Vec<SocketAddr>>) {
        self.tasks.retain(|name, (addresses, task)| {
            let stays = wanted.get(name) == Some(addresses);
            if !stays {
                task.abort();
            }
            stays
        });
        lock(&self.states).retain(|name, _| wanted.contains_key(name));
        for (name, addresses) in wanted.into_iter().filter(|(_, addresses)| !addresses.is_empty()) {
            let (states, changes) = (self.states.clone(), self.changes.clone());
            self.tasks.entry(name).or_insert_with_key(|name| {
                lock(&states).entry(name.clone()).or_default();
                (addresses.clone(), tokio::spawn(keep_asking(name.clone(), addresses, states, changes)))
            });
        }
    }

    /// What is known of a node in respect of an address.
    pub fn about(&self, name: &str, addr: IpAddr) -> Peer {
        match lock(&self.states).get(name) {
            Some(State { offer: Some(offer), .. }) if offer.contains(&addr) => Peer::Willing,
            Some(state) if state.offer.is_none() && !state.is_out() => Peer::Unknown,
            Some(_) => Peer::Out,
            None => Peer::Unknown,
        }
    }

    /// Every node that is asked: how many addresses it would answer for, or why it does not tell.
    pub fn told(&self) -> BTreeMap<String, Result<usize, String>> {
        let told = |state: &State| state.offer.as_ref().map(|offer| offer.len()).ok_or_else(|| state.error.clone());
        lock(&self.states).iter().map(|(name, state)| (name.clone(), told(state))).collect()
    }

    /// Waits until a node tells something else, or nothing any more. May be dropped at any await.
    pub async fn changed(&mut self) {
        // The other end is in this very value.
        let _open = self.changed.changed().await;
    }
}

fn lock(states: &States) -> MutexGuard<'_, BTreeMap<String, State>> {
    states.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn keep_asking(name: String, addresses: Vec<SocketAddr>, states: States, changes: watch::Sender<()>) {
    let mut turns = addresses.iter().cycle();
    let mut address = turns.next();
    while let Some(asked) = address {
        let due = Instant::now() + PERIOD;
        let answer = match timeout(PERIOD, ask(*asked)).await {
            Ok(answer) => answer.and_then(|offer| from(&name, offer)),
            Err(_elapsed) => Err("no answer within a second".to_owned()),
        };
        if answer.is_err() {
            address = turns.next();
        }
        // Removed meanwhile: nobody wants to know.
        let Some(news) = lock(&states).get_mut(&name).map(|state| state.take(answer)) else { return };
        if news {
            changes.send_replace(());
        }
        sleep_until(due).await;
    }
}

/// An address may have become another node's since the Node object was written.
fn from(name: &str, offer: Offer) -> Result<Offer, String> {
    if offer.node == name { Ok(offer) } else { Err(format!("node `{}` answers at its address", offer.node)) }
}

async fn ask(address: SocketAddr) -> Result<Offer, String> {
    let text = |error: hyper::Error| error.to_string();
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake::<_, Body>(TokioIo::new(stream)).await.map_err(text)?;
    // Ends with the exchange; what goes wrong with it is told there.
    tokio::spawn(connection);
    let request = Request::get(PATH).header(HOST, address.to_string()).body(Body::empty());
    let answer = sender.send_request(request.map_err(|error| error.to_string())?).await.map_err(text)?;
    if answer.status() != 200 {
        return Err(format!("its agent answers {PATH} with the status {}", answer.status().as_u16()));
    }
    let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| format!("its agent answers {PATH} with {error}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const ADDR: &str = "192.0.2.80";

    fn addr() -> IpAddr {
        ADDR.parse().unwrap()
    }

    /// Answers every connection with this, and ends it.
    async fn server(status: &'static str, body: String) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 512];
                let _read = stream.read(&mut request).await;
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _written = stream.write_all(answer.as_bytes()).await;
            }
        });
        (address, task)
    }

    fn offer(node: &str) -> String {
        serde_json::to_string(&Offer { node: node.to_owned(), addresses: [addr()].into() }).unwrap()
    }

    #[tokio::test]
    async fn an_agent_is_believed_if_it_is_the_one_of_that_node() {
        for (status, body, expected) in [
            ("200 OK", offer("node-1"), Ok(())),
            ("200 OK", offer("node-2"), Err("`node-2`")),
            ("200 OK", "{}".to_owned(), Err("missing field")),
            ("200 OK", "[".to_owned(), Err("EOF")),
            ("404 Not Found", offer("node-1"), Err("status 404")),
        ] {
            let (address, _task) = server(status, body).await;
            let got = ask(address).await.and_then(|offer| from("node-1", offer));
            match (got, expected) {
                (Ok(offer), Ok(())) => assert_eq!(offer.addresses, [addr()].into()),
                (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
                (got, expected) => panic!("{got:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn a_node_is_out_after_three_misses_and_back_with_an_answer() {
        let mut state = State::default();
        let miss = || Err("refused".to_owned());
        let answer = |addresses: &[IpAddr]| {
            Ok(Offer { node: "node-1".to_owned(), addresses: addresses.iter().copied().collect() })
        };
        assert_eq!([miss(), miss(), miss(), miss()].map(|answer| state.take(answer)), [false, false, true, false]);
        assert!(state.is_out());
        assert!(state.take(answer(&[addr()])) && !state.take(answer(&[addr()])));
        assert!(!state.take(miss()) && !state.take(miss()) && state.offer.is_some(), "as in a restart");
        assert!(!state.take(answer(&[addr()])) && !state.take(miss()) && !state.take(miss()), "counted from anew");
        assert!(state.take(miss()) && state.is_out());
        assert!(state.take(answer(&[])), "back, though for nothing");
    }

    #[tokio::test]
    async fn who_answers_at_any_of_its_addresses_is_there() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (there, _task) = server("200 OK", offer("node-1")).await;
        let mut peers = Peers::default();
        assert_eq!(peers.about("node-1", addr()), Peer::Unknown, "nobody was asked");
        peers.follow([("node-1".to_owned(), vec![gone, there])].into());
        peers.changed().await;
        assert_eq!(peers.about("node-1", addr()), Peer::Willing);
        assert_eq!(peers.about("node-1", "192.0.2.81".parse().unwrap()), Peer::Out);
        assert_eq!(peers.told()["node-1"], Ok(1));
        peers.follow(BTreeMap::new());
        assert_eq!(peers.about("node-1", addr()), Peer::Unknown);
        assert!(peers.told().is_empty() && peers.tasks.is_empty());
    }
}
