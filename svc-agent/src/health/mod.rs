//! What load balancers and kubelets ask over HTTP: whether a Service has endpoints here (B62), and whether the agent works.

mod answer;
mod listen;
mod progress;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

pub use self::answer::{Condition, Reply};
use self::listen::Listener;
pub use self::progress::{PERIOD, Progress};
use self::services::{Checked, Counts};
use crate::model::{Service, ServiceName};
use crate::resolve::{Desired, Policy};
use crate::sorted::Sorted;
use crate::sources::Snapshot;

/// How long a port that is taken, or an address that is not ready, is waited for before it is tried again.
pub const AGAIN: Duration = Duration::from_secs(5);

/// What the servers look at when they are asked.
pub trait Looks: Send + Sync + 'static {
    /// How the agent is.
    fn condition(&self) -> Condition;

    /// What is told at a path that is none of the health checks.
    fn page(&self, path: &str) -> Option<Reply>;
}

/// Keeps a server at every health-check port.
pub struct HealthPorts {
    looks: Arc<dyn Looks>,
    policy: Policy,
    addresses: watch::Receiver<Vec<IpAddr>>,
    counts: Arc<Counts>,
    /// All Services as they were seen last, and those with a health-check port.
    services: Sorted<ServiceName, Arc<Service>>,
    checked: Vec<Checked>,
    listeners: BTreeMap<SocketAddr, Listener>,
    /// Why some do not listen.
    troubles: BTreeSet<String>,
}

impl HealthPorts {
    /// Listens nowhere yet; `policy` says which addresses of the node answer.
    pub fn new(looks: Arc<dyn Looks>, policy: Policy, addresses: watch::Receiver<Vec<IpAddr>>) -> Self {
        let counts = Arc::default();
        Self {
            looks,
            policy,
            addresses,
            counts,
            services: Sorted::new(),
            checked: Vec::new(),
            listeners: BTreeMap::new(),
            troubles: BTreeSet::new(),
        }
    }

    /// Waits until the addresses have changed, or something that failed may be tried again.
    pub async fn changed(&mut self) {
        let again = async {
            if self.troubles.is_empty() {
                std::future::pending::<()>().await;
            }
            sleep(AGAIN).await;
        };
        tokio::select! {
            changed = self.addresses.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            () = again => {}
        }
    }

    /// Follows what is at work; what does not listen and why.
    pub fn follow(&mut self, snapshot: &Snapshot, desired: &Desired) -> Vec<String> {
        let addresses = self.addresses.borrow_and_update().clone();
        // Most changes are of endpoints.
        if !snapshot.objects.services.changes(&self.services, Arc::ptr_eq).is_empty() {
            self.services = snapshot.objects.services.clone();
            self.checked = services::checked(snapshot);
        }
        let wanted = services::wanted(&self.checked, &addresses, &self.policy);
        self.counts.replace(services::local_endpoints(&self.checked, desired));
        self.listeners.retain(|address, listener| {
            let stays = wanted.get(address).is_some_and(|service| *service == listener.service);
            if !stays {
                info!(%address, service = %listener.service, "no health checks any more");
            }
            stays
        });
        let mut troubles = BTreeSet::new();
        for (address, service) in wanted {
            if self.listeners.contains_key(&address) {
                continue;
            }
            let (looks, counts, asked) = (self.looks.clone(), self.counts.clone(), service.clone());
            let reply = move |_: &str| Reply::of_service(&asked, counts.of(&asked), looks.condition().works());
            match Listener::start(address, &service, reply) {
                Ok(listener) => {
                    info!(%address, service = %service, "answering health checks");
                    self.listeners.insert(address, listener);
                }
                Err(error) => {
                    troubles
                        .insert(format!("Service `{service}`: no health checks at {address}: {error}; trying again"));
                }
            }
        }
        for trouble in troubles.difference(&self.troubles) {
            warn!("{trouble}");
        }
        self.troubles = troubles;
        self.troubles.iter().cloned().collect()
    }
}

/// A server of pages that are no Service's.
#[derive(Debug)]
pub struct Page(Listener);

impl Page {
    /// Listens until it is dropped, and answers every question with what `reply` says of its path.
    ///
    /// # Errors
    /// If the address is taken or not there.
    pub fn start(address: SocketAddr, reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> std::io::Result<Self> {
        Listener::start(address, &ServiceName::new("", ""), reply).map(Self)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }
}

/// The server of the agent's own health.
#[derive(Debug)]
pub struct Own(Option<Listener>);

impl Own {
    /// Listens; with the address `::` on IPv4, too, and on IPv4 alone where there is no IPv6.
    ///
    /// # Errors
    /// If the address is taken.
    pub fn start(address: SocketAddr, looks: Arc<dyn Looks>) -> Result<Self, String> {
        let reply = move |path: &str| looks.page(path).unwrap_or_else(|| Reply::of_agent(path, &looks.condition()));
        let name = ServiceName::new("", "");
        let mut started = Listener::start(address, &name, reply.clone());
        if started.is_err() && address.ip() == IpAddr::from([0_u16; 8]) && !listen::has_v6() {
            started = Listener::start((Ipv4Addr::UNSPECIFIED, address.port()).into(), &name, reply);
        }
        match started {
            Ok(listener) => Ok(Self(Some(listener))),
            Err(error) => Err(format!("no health checks at {address}: {error}; set --healthz-bind")),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.as_ref().map(|listener| listener.address)
    }
}

/// Seconds since then.
fn age_s(at: Option<Instant>) -> Option<u64> {
    at.map(|at| at.elapsed().as_secs())
}
