//! Any faults in any order, by seed: in the end the agent knows the last full list, and on the way it never knew less than
//! a whole one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use svc_agent::sources::Snapshot;
use svc_agent::sources::kubernetes::kinds::Watched;
use tokio::time::{Instant, sleep};

use super::faults::Fault;
use super::source_tests::{node, service, slice, start, store};
use super::{Server, Store};
use crate::oracle::random::dice::Dice;

/// What the agent should know: addresses of Services, endpoints of slices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    services: BTreeMap<String, String>,
    slices: BTreeMap<String, Vec<String>>,
}

impl Known {
    fn of_store(store: &Store) -> Self {
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
        let services = store.list(Watched::Services, u64::MAX);
        let slices = store.list(Watched::EndpointSlices, u64::MAX);
        let addresses = |object: &Value| {
            let endpoints = object["endpoints"].as_array().unwrap().iter();
            endpoints.map(|endpoint| endpoint["addresses"][0].as_str().unwrap().to_owned()).collect()
        };
        Self {
            services: services
                .iter()
                .map(|object| (name(object), object["spec"]["clusterIP"].as_str().unwrap().to_owned()))
                .collect(),
            slices: slices.iter().map(|object| (name(object), addresses(object))).collect(),
        }
    }

    fn of(snapshot: &Snapshot) -> Self {
        let slices = snapshot.objects.slices.values().flatten();
        let addresses = |slice: &svc_agent::model::EndpointSlice| {
            slice.endpoints.iter().map(|endpoint| endpoint.addr.to_string()).collect()
        };
        Self {
            services: snapshot
                .objects
                .services
                .iter()
                .map(|(name, service)| (name.name.clone(), service.cluster_ips[0].to_string()))
                .collect(),
            slices: slices.map(|slice| (slice.name.clone(), addresses(slice))).collect(),
        }
    }
}

fn change(store: &Store, dice: &mut Dice<'_>) {
    let n = dice.below(20);
    match dice.below(7) {
        0 | 1 => {
            store.put(Watched::Services, service(&format!("s{n}"), &format!("10.96.{}.{}", 1 + dice.below(3), n + 1)));
        }
        2 => store.delete(Watched::Services, "default", &format!("s{n}")),
        3 | 4 => {
            let addresses: Vec<String> =
                (0..dice.below(4)).map(|_| format!("10.244.0.{}", 1 + dice.below(200))).collect();
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            store.put(Watched::EndpointSlices, slice(&format!("s{n}-x"), &format!("s{n}"), &addresses));
        }
        5 => store.delete(Watched::EndpointSlices, "default", &format!("s{n}-x")),
        _ if dice.one_in(4) => store.compact(),
        _ => {
            store.put(Watched::Node, node("here"));
        }
    }
}

/// One schedule: what went wrong, if anything did.
async fn schedule(seed: u64, faults: &'static [Fault], patience: Duration) -> Result<(), String> {
    let mut dice = Dice::Seed(seed);
    let store = store();
    (0..dice.below(30)).for_each(|_| change(&store, &mut dice));
    let server = Server::new(store.clone());
    let chances = Arc::new(Mutex::new(Dice::Seed(seed ^ 0x5eed)));
    let often = 1 + dice.below(6);
    server.fail(move |_| {
        let mut chances = chances.lock().unwrap();
        if chances.one_in(often) { chances.pick(faults) } else { Fault::None }
    });
    let urls = ["a", "b", "c"].get(..1 + dice.below(3)).unwrap();
    let mut source = start(&server, urls);
    let begun = store.version();
    let mut was_complete = false;
    let mut history = vec![Known::of_store(&store)];
    for _ in 0..dice.below(60) {
        if dice.one_in(3) {
            sleep(Duration::from_millis(dice.below(400_000) as u64)).await;
        }
        if dice.one_in(2) {
            change(&store, &mut dice);
            history.push(Known::of_store(&store));
        }
        let snapshot = source.load();
        if was_complete && !snapshot.complete {
            return Err("complete once, and then no more".to_owned());
        }
        was_complete |= snapshot.complete;
        if !snapshot.complete && Known::of(&snapshot) != Known::default() {
            return Err(format!("half of it was told: {snapshot:?}"));
        }
    }
    server.fail(|_| Fault::None);
    let recovered = Instant::now();
    loop {
        let (found, expected) = (source.load(), Known::of_store(&store));
        if found.complete && Known::of(&found) == expected {
            return Ok(());
        }
        if recovered.elapsed() > patience {
            let found = Known::of(&found);
            return Err(format!("since {begun}: found {found:#?}\nexpected {expected:#?}"));
        }
        sleep(patience / 50).await;
    }
}

fn run(seeds: std::ops::Range<u64>, faults: &'static [Fault], patience: Duration) {
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let outcome = runtime.block_on(schedule(seed, faults, patience));
        assert_eq!(outcome, Ok(()), "seed {seed}");
    }
}

/// Those that show: connections that fail, garbage, and events that contradict each other.
static AT_ONCE: [Fault; 12] = [
    Fault::Refuse,
    Fault::Html(500),
    Fault::Html(503),
    Fault::Html(429),
    Fault::Html(404),
    Fault::HtmlOk,
    Fault::Cut(300),
    Fault::End(300),
    Fault::Gone,
    Fault::GoneLater,
    Fault::Brief,
    Fault::Twice,
];

#[test]
fn b79_after_any_faults_that_show_the_agent_knows_everything_within_five_seconds() {
    run(0..800, &AT_ONCE, Duration::from_secs(5));
}

#[test]
fn b79_after_any_faults_at_all_the_next_full_list_sets_everything_right() {
    run(1000..1400, &Fault::ALL, Duration::from_secs(2300));
}
