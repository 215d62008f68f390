//! An agent that comes, tells, goes and comes back.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::{Value, json};
use svc_agent::control::api;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::lines::Line;
use super::{Source, State};
use crate::fixtures;
use crate::zone::Zone;

/// A source with a place for the agent's socket, and no agent there.
struct World {
    home: TempDir,
    zone: Arc<RwLock<Zone>>,
    state: watch::Receiver<State>,
}

impl World {
    fn start() -> Self {
        let home = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        let zone = Arc::new(RwLock::new(Zone::new(fixtures::zone().settings().clone(), 1)));
        let (sender, state) = watch::channel(State::Waiting(String::new()));
        tokio::spawn(Source::new(home.path().join("s"), zone.clone(), sender).run());
        Self { home, zone, state }
    }

    /// Waits until the zone has these Services.
    async fn expect(&self, loaded: bool, names: &[&str]) {
        let look = async {
            while self.found() != (loaded, names.iter().map(|name| (*name).to_owned()).collect()) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(Duration::from_secs(10), look).await.is_ok(), "{names:?}: {:?}", *self.state.borrow());
    }

    fn found(&self) -> (bool, Vec<String>) {
        let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<String> = zone.keys().map(|key| key.name).collect();
        names.sort();
        (zone.is_loaded(), names)
    }

    async fn expect_state(&mut self, wanted: impl FnMut(&State) -> bool) {
        assert!(timeout(Duration::from_secs(10), self.state.wait_for(wanted)).await.is_ok());
    }
}

/// An agent, once somebody has asked it for names.
async fn agent(path: &Path) -> UnixStream {
    drop(std::fs::remove_file(path));
    let listener = UnixListener::bind(path).unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"GET /v1/names HTTP/1.1\r\n"));
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    stream
}

async fn tell(stream: &mut UnixStream, lines: &[Value]) {
    for line in lines {
        stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }
}

fn service(name: &str) -> Value {
    json!({"service": {"namespace": "default", "name": name, "clusterIps": ["10.96.0.1"], "later": 1}})
}

fn removed(name: &str) -> Value {
    json!({"removed": {"namespace": "default", "name": name}})
}

fn synced(complete: bool) -> Value {
    json!({"synced": {"complete": complete}})
}

#[tokio::test]
async fn what_the_agent_told_last_stays_while_it_is_away() {
    let mut world = World::start();
    let path = world.home.path().join("s");
    world.expect_state(|state| matches!(state, State::Waiting(why) if why.contains("cannot connect"))).await;
    let mut first = agent(&path).await;
    tell(&mut first, &[service("a"), service("b")]).await;
    // Not half of it.
    sleep(Duration::from_millis(50)).await;
    world.expect(false, &[]).await;
    tell(&mut first, &[synced(true)]).await;
    world.expect(true, &["a", "b"]).await;
    tell(&mut first, &[removed("a"), service("c"), synced(true)]).await;
    world.expect(true, &["b", "c"]).await;
    drop(first);
    world.expect_state(|state| matches!(state, State::Lost { .. })).await;
    world.expect(true, &["b", "c"]).await;

    let mut second = agent(&path).await;
    tell(&mut second, &[service("d"), synced(true)]).await;
    world.expect(true, &["d"]).await;
    world.expect_state(|state| *state == State::Following).await;
}

#[tokio::test]
async fn a_state_that_may_lack_something_takes_nothing_away_until_it_is_whole() {
    let world = World::start();
    let path = world.home.path().join("s");
    let mut first = agent(&path).await;
    tell(&mut first, &[service("a"), synced(false)]).await;
    world.expect(false, &["a"]).await;
    tell(&mut first, &[service("b"), synced(true)]).await;
    world.expect(true, &["a", "b"]).await;
    drop(first);

    let mut second = agent(&path).await;
    tell(&mut second, &[service("c"), synced(false)]).await;
    world.expect(true, &["a", "b", "c"]).await;
    tell(&mut second, &[service("b"), synced(true)]).await;
    world.expect(true, &["b", "c"]).await;
}

#[tokio::test]
async fn an_agent_that_refuses_or_talks_nonsense_is_left_and_its_reason_told() {
    let mut world = World::start();
    let path = world.home.path().join("s");
    let mut nonsense = agent(&path).await;
    tell(&mut nonsense, &[json!({"synced": 1})]).await;
    world.expect_state(|state| matches!(state, State::Waiting(why) if why.contains("cannot understand"))).await;
    drop(std::fs::remove_file(&path));
    let listener = UnixListener::bind(&path).unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let body = r#"{"error":"you may not read here"}"#;
    let answer = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await.unwrap();
    world.expect_state(|state| matches!(state, State::Waiting(why) if why.contains("you may not read here"))).await;
}

#[test]
fn both_ends_of_the_control_socket_mean_the_same() {
    let port = api::NamedPort { name: "http".into(), protocol: api::Protocol::Tcp, port: 80 };
    let told = api::NamesLine::Service(api::NamedService {
        namespace: "default".into(),
        name: "db".into(),
        cluster_ips: vec!["10.96.0.1".parse().unwrap()],
        headless: true,
        external_name: "www.example.com".into(),
        ports: vec![port.clone()],
        endpoints: vec![api::NamedEndpoint {
            address: "fd00::1".parse().unwrap(),
            hostname: Some("db-0".into()),
            ports: vec![port],
        }],
    });
    let heard: Line = serde_json::from_value(serde_json::to_value(&told).unwrap()).unwrap();
    let Line::Service(heard) = heard else { panic!("{heard:?}") };
    assert_eq!((&*heard.key.namespace, &*heard.key.name, heard.headless), ("default", "db", true));
    assert_eq!((heard.cluster_ips.len(), &*heard.external_name), (1, "www.example.com"));
    assert_eq!((&*heard.ports[0].name, &*heard.ports[0].protocol, heard.ports[0].port), ("http", "TCP", 80));
    let endpoint = &heard.endpoints[0];
    assert_eq!((endpoint.hostname.as_deref(), endpoint.ports.len()), (Some("db-0"), 1));
    assert_eq!(endpoint.address, "fd00::1".parse::<std::net::IpAddr>().unwrap());

    let name = api::NamedObject { namespace: "default".into(), name: "db".into() };
    for (told, wanted) in [
        (api::NamesLine::Removed(name), serde_json::from_value::<Line>(removed("db")).unwrap()),
        (api::NamesLine::Synced(api::NamesSynced { complete: true }), serde_json::from_value(synced(true)).unwrap()),
    ] {
        assert_eq!(serde_json::from_value::<Line>(serde_json::to_value(&told).unwrap()).unwrap(), wanted);
    }
}
