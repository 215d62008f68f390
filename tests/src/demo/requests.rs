//! Requests to each kind of address, over both families and both transports, and how they spread.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::show::Show;
use super::stage::{Stage, enter};
use crate::answer::Answer;

/// The backends from the start.
const BACKENDS: [&str; 3] = ["web-1", "web-2", "web-3"];
/// HTTP requests of one command.
const HTTP: usize = 60;
/// Questions over TCP or UDP of one command.
const ECHO: usize = 40;

/// A pod to the ClusterIPs.
pub fn from_a_pod(show: &Show, _: &mut Stage) -> Result<()> {
    let clients = ["10.244.0.12", "fd00:244::12"];
    ask(show, "pod-0-2", ["10.96.0.80:80", "[fd00:96::80]:80"], ["10.96.0.7 7", "fd00:96::7 7"], Some(clients))
}

/// The client outside to a node's address.
pub fn node_port(show: &Show, _: &mut Stage) -> Result<()> {
    ask(
        show,
        "client-0",
        ["192.168.50.1:30080", "[fd00:50::1]:30080"],
        ["192.168.50.1 30007", "fd00:50::1 30007"],
        None,
    )
}

/// The client outside to the load balancer's addresses.
pub fn load_balancer(show: &Show, _: &mut Stage) -> Result<()> {
    ask(show, "client-0", ["192.168.60.80:80", "[fd00:60::80]:80"], ["192.168.60.7 7", "fd00:60::7 7"], None)
}

/// `seen_as`: what every backend must see as the client's address in either family, if it is the same for all.
fn ask(show: &Show, from: &str, http: [&str; 2], echo: [&str; 2], seen_as: Option<[&str; 2]>) -> Result<()> {
    let enter = enter(from);
    let seen = |family: usize| seen_as.as_ref().and_then(|clients| clients.get(family)).copied();
    for (family, to) in http.into_iter().enumerate() {
        let answers =
            show.sh(&format!("{enter} curl -sS --fail -m 5 -H 'Connection: close' 'http://{to}/?[1-{HTTP}]'"))?;
        spread(show, &answers, HTTP, seen(family))?;
    }
    for (family, to) in echo.into_iter().enumerate() {
        for nc in ["nc -N -w 3", "nc -u -W 1 -w 3"] {
            let answers =
                show.sh(&format!("{enter} bash -c 'for i in {{1..{ECHO}}}; do echo hi | {nc} {to}; done'"))?;
            spread(show, &answers, ECHO, seen(family))?;
        }
    }
    Ok(())
}

/// Counts answers by pod, and insists that all came and that every backend has a fair share.
fn spread(show: &Show, lines: &str, asked: usize, seen_as: Option<&str>) -> Result<()> {
    let mut by_pod: BTreeMap<String, usize> = BACKENDS.iter().map(|&pod| (pod.to_owned(), 0)).collect();
    let mut last = None;
    for line in lines.lines() {
        let answer: Answer = line.parse().map_err(anyhow::Error::msg)?;
        if seen_as.is_some_and(|client| answer.client.ip().to_string() != client) {
            bail!("`{line}`: a pod keeps its address {seen_as:?}");
        }
        *by_pod.entry(answer.pod).or_default() += 1;
        last = Some(line);
    }
    let total: usize = by_pod.values().sum();
    let counts: Vec<String> = by_pod.iter().map(|(pod, count)| format!("{pod} {count}")).collect();
    show.say(&format!("{total} answers: {}, the last: \"{}\"", counts.join(", "), last.unwrap_or_default()));
    // Connections are spread by a hash, as if by lot: that a backend gets none of so many happens once in a million runs.
    if total != asked || by_pod.len() != BACKENDS.len() || by_pod.values().any(|&count| count == 0) {
        bail!("expected {asked} answers, spread over {}", BACKENDS.join(", "));
    }
    Ok(())
}
