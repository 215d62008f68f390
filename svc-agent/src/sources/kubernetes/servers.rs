//! The API servers, and which of them is asked.
//!
//! One is used until it fails, then the next, round and round. To those that were configured come the endpoints of
//! `default/kubernetes`, so that the agent depends neither on its own ClusterIP nor on one address.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// Where it is, such as `https://192.0.2.1:6443`.
    pub url: String,
    /// The name that its certificate must be for, where that is not the one in `url`.
    pub certificate_name: Option<String>,
}

impl Server {
    /// A server whose certificate is for the host in its URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), certificate_name: None }
    }
}

/// All that are known.
#[derive(Debug)]
pub struct Servers {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Told by the operator.
    configured: Vec<Server>,
    /// Asked last of all: an address that our own datapath serves.
    last: Option<Server>,
    /// Endpoints of `default/kubernetes`.
    endpoints: Vec<Server>,
    current: Server,
}

impl Servers {
    /// At first those of the configuration. `last` is the ClusterIP, if nothing better is known.
    pub fn new(configured: Vec<Server>, last: Option<Server>) -> Option<Self> {
        let current = configured.first().or(last.as_ref())?.clone();
        Some(Self { state: Mutex::new(State { configured, last, endpoints: Vec::new(), current }) })
    }

    /// The one to ask.
    pub fn current(&self) -> Server {
        self.lock().current.clone()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().all().len()
    }

    /// One has failed: the next one is asked from now on. Others may have noticed before.
    pub fn failed(&self, server: &Server) {
        let mut state = self.lock();
        if state.current != *server {
            return;
        }
        let all = state.all();
        let place = all.iter().position(|other| other == server).map_or(0, |place| place + 1);
        if let Some(next) = all.get(place).or(all.first()) {
            state.current = next.clone();
        }
    }

    /// Where `default/kubernetes` leads to. None at all is no news: somebody answers.
    pub fn discovered(&self, endpoints: &[SocketAddr]) {
        let mut state = self.lock();
        // What the certificate is for is known of the configured ones only.
        let Some(template) = state.configured.first().or(state.last.as_ref()).cloned() else { return };
        let Some(host) = template.url.strip_prefix("https://").map(host) else { return };
        if endpoints.is_empty() {
            return;
        }
        let name = template.certificate_name.clone().unwrap_or_else(|| host.to_owned());
        let known = |url: &str| state.configured.iter().any(|server| server.url.trim_end_matches('/') == url);
        let urls = endpoints.iter().map(|endpoint| format!("https://{endpoint}"));
        state.endpoints =
            urls.filter(|url| !known(url)).map(|url| Server { url, certificate_name: Some(name.clone()) }).collect();
    }

    /// Where `default/kubernetes` led to when somebody answered last. These come before the ClusterIP: after a reboot
    /// nothing leads there.
    pub fn remembered(&self, endpoints: &[SocketAddr]) {
        self.discovered(endpoints);
        let mut state = self.lock();
        if let Some(first) = state.all().first() {
            state.current = first.clone();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn all(&self) -> Vec<Server> {
        self.configured.iter().chain(&self.endpoints).chain(&self.last).cloned().collect()
    }
}

/// The host of what follows a scheme, without brackets.
fn host(rest: &str) -> &str {
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(servers: &Servers, count: usize) -> Vec<String> {
        let ask = |_| {
            let current = servers.current();
            servers.failed(&current);
            current.url
        };
        (0..count).map(ask).collect()
    }

    #[test]
    fn each_is_asked_in_turn_and_the_cluster_ip_last() {
        let last = Server::new("https://10.96.0.1:443");
        let servers = Servers::new(vec![Server::new("https://a:6443")], Some(last)).unwrap();
        assert_eq!(urls(&servers, 3), ["https://a:6443", "https://10.96.0.1:443", "https://a:6443"]);
        let first = servers.current();
        servers.failed(&first);
        servers.discovered(&["192.0.2.1:6443".parse().unwrap(), "[2001:db8::1]:6443".parse().unwrap()]);
        let all = ["https://a:6443", "https://192.0.2.1:6443", "https://[2001:db8::1]:6443", "https://10.96.0.1:443"];
        assert_eq!(urls(&servers, 4), all);
        servers.discovered(&[]);
        assert_eq!(servers.count(), 4, "the last ones known are kept");
    }

    #[test]
    fn what_is_remembered_is_asked_before_the_cluster_ip() {
        let last = Server::new("https://10.96.0.1:443");
        let servers = Servers::new(Vec::new(), Some(last.clone())).unwrap();
        servers.remembered(&["192.0.2.1:6443".parse().unwrap()]);
        assert_eq!(urls(&servers, 2), ["https://192.0.2.1:6443", "https://10.96.0.1:443"]);
        let servers = Servers::new(vec![Server::new("https://a:6443")], Some(last)).unwrap();
        servers.remembered(&["192.0.2.1:6443".parse().unwrap()]);
        assert_eq!(servers.current().url, "https://a:6443");
    }

    #[test]
    fn a_failure_that_others_have_noticed_moves_nobody() {
        let servers = Servers::new(vec![Server::new("https://a"), Server::new("https://b")], None).unwrap();
        let a = servers.current();
        servers.failed(&a);
        servers.failed(&a);
        assert_eq!(servers.current().url, "https://b");
    }

    #[test]
    fn endpoints_show_the_certificate_that_the_configured_server_has() {
        let servers = Servers::new(Vec::new(), Some(Server::new("https://[fd00:96::1]:443"))).unwrap();
        servers.discovered(&["192.0.2.1:6443".parse().unwrap()]);
        assert_eq!(servers.lock().endpoints[0].certificate_name.as_deref(), Some("fd00:96::1"));
        let plain = Servers::new(vec![Server::new("http://127.0.0.1:8001")], None).unwrap();
        plain.discovered(&["192.0.2.1:6443".parse().unwrap()]);
        assert_eq!(plain.count(), 1, "without TLS nobody could tell who answers");
    }
}
