//! Keeps the socket hooks attached and told, and the sockets free of backends that are gone.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use svc_common::maps::{SocketConfig, socket_scope};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::published::Published;
use crate::apply::kernel::KernelStore;
use crate::attach::pins::PinDir;
use crate::attach::sockets::SocketLinks;
use crate::config::SocketLb;
use crate::control::api::SocketHooks;
use crate::resolve::Policy;
use crate::sockets::{Lost, Sweep, Tables, end, own_cookie, skipped};

/// How often everything is looked at without having been told to.
const LOOK: Duration = Duration::from_secs(5);
/// After how many looks the tables are swept.
const SWEEP: u32 = 6;

/// What the task works with.
pub struct SocketKeeper {
    scope: SocketLb,
    /// Files of the network namespaces that are left alone.
    skip: Vec<String>,
    links: SocketLinks,
    pins: Arc<PinDir>,
    tables: Tables,
    /// For reading only.
    store: KernelStore,
    addresses: watch::Receiver<Vec<IpAddr>>,
    policy: Policy,
    published: Arc<Published>,
    /// The cookie of this network namespace.
    own: Option<u64>,
    /// What the programs were told.
    told: Option<SocketConfig>,
    skipped: BTreeSet<u64>,
    sweep: Sweep,
    /// Why sockets could not be ended the last time.
    unended: Option<String>,
}

impl SocketKeeper {
    /// Attaches nothing yet.
    ///
    /// # Errors
    /// If the maps cannot be read.
    #[expect(clippy::too_many_arguments, reason = "called once, where the parts are put together")]
    pub fn new(
        scope: SocketLb,
        skip: Vec<String>,
        links: SocketLinks,
        pins: Arc<PinDir>,
        tables: Tables,
        store: KernelStore,
        addresses: watch::Receiver<Vec<IpAddr>>,
        policy: Policy,
        published: Arc<Published>,
    ) -> anyhow::Result<Self> {
        let mut skipped = BTreeSet::new();
        tables.skip.for_each(|cookie, _| {
            skipped.insert(cookie);
        })?;
        let (own, told, sweep, unended) = (own_cookie(), None, Sweep::default(), None);
        Ok(Self {
            scope,
            skip,
            links,
            pins,
            tables,
            store,
            addresses,
            policy,
            published,
            own,
            told,
            skipped,
            sweep,
            unended,
        })
    }

    /// Brings maps and hooks in line with the configuration.
    pub fn look(&mut self) {
        let mut reasons = Vec::new();
        if let Err(error) = self.tell(&mut reasons) {
            reasons.push(format!("{error:#}"));
        }
        let mut shown = SocketHooks { scope: self.scope.to_string(), ..SocketHooks::default() };
        if self.scope == SocketLb::Off {
            match self.links.remove(&self.pins) {
                Ok(true) => {
                    info!("the socket hooks are off: detached them");
                    // Nobody will see these sockets end.
                    reasons.extend(self.tables.clear().err().map(|error| format!("{error:#}")));
                }
                Ok(false) => {}
                Err(error) => reasons.push(format!("{error:#}")),
            }
        } else {
            let state = self.links.ensure(&self.pins);
            reasons.extend(Some(state.reason).filter(|reason| !reason.is_empty()));
            reasons.extend(self.unended.clone());
            shown.cgroup = state.cgroup.display().to_string();
            shown.attached = state.attached.iter().map(ToString::to_string).collect();
        }
        shown.skipped_namespaces = self.skipped.len() as u64;
        shown.reason = reasons.join("; ");
        let before = self.published.sockets.get();
        if shown != before && !shown.reason.is_empty() {
            warn!(reason = shown.reason, "socket hooks");
        }
        self.published.sockets.set(shown);
    }

    /// Follows until it is dropped.
    pub async fn run(mut self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let published = self.published.clone();
        let mut looks = 0_u32;
        // A process may have dialled while a backend went away, and be told of it after the first search.
        let mut again = false;
        loop {
            tokio::select! {
                _ = look.tick() => {
                    tokio::task::block_in_place(|| self.look());
                    if std::mem::take(&mut again) {
                        tokio::task::block_in_place(|| self.end_lost());
                    }
                    looks += 1;
                    if looks.is_multiple_of(SWEEP) && self.scope != SocketLb::Off {
                        tokio::task::block_in_place(|| self.sweep());
                    }
                }
                changed = self.addresses.changed() => match changed {
                    Ok(()) => tokio::task::block_in_place(|| self.look()),
                    // The other end is gone with the agent.
                    Err(_) => return,
                },
                () = published.written.notified() => {
                    if self.scope != SocketLb::Off {
                        tokio::task::block_in_place(|| self.end_lost());
                        again = true;
                    }
                }
            }
        }
    }

    /// Writes what the programs have to know.
    fn tell(&mut self, reasons: &mut Vec<String>) -> anyhow::Result<()> {
        let config = self.config();
        if self.told != Some(config) {
            self.tables.configure(config)?;
            self.told = Some(config);
        }
        let (wanted, unknown) = skipped(&self.skip);
        reasons.extend(unknown);
        for cookie in wanted.difference(&self.skipped) {
            self.tables.skip.set(cookie, &1)?;
        }
        for cookie in self.skipped.difference(&wanted) {
            self.tables.skip.remove(cookie);
        }
        self.skipped = wanted;
        Ok(())
    }

    fn config(&mut self) -> SocketConfig {
        let addresses = self.addresses.borrow_and_update();
        let mut answering = addresses.iter().filter(|addr| self.policy.allows_node_port(**addr));
        let v4 =
            answering.clone().find_map(|addr| if let IpAddr::V4(addr) = addr { Some(addr.octets()) } else { None });
        let v6 = answering.find_map(|addr| if let IpAddr::V6(addr) = addr { Some(addr.octets()) } else { None });
        let scope = match self.scope {
            SocketLb::Off => socket_scope::OFF,
            SocketLb::Host => socket_scope::HOST,
            SocketLb::All => socket_scope::ALL,
        };
        SocketConfig { netns: self.own.unwrap_or(0), scope, v4: v4.unwrap_or_default(), v6: v6.unwrap_or_default() }
    }

    /// Ends connected UDP sockets whose backend is gone (B69).
    fn end_lost(&mut self) {
        let lost = match Lost::find(&self.tables, &self.store) {
            Ok(lost) => lost,
            Err(error) => return warn!(error = format!("{error:#}"), "cannot look for sockets whose backend is gone"),
        };
        if lost.is_empty() {
            return;
        }
        let (ended, reason) = end(&lost, self.own);
        if ended > 0 {
            info!(sockets = ended, "ended connected UDP sockets whose backend is gone");
        }
        self.unended = reason.map(|reason| format!("connected UDP sockets may keep a backend that is gone: {reason}"));
    }

    fn sweep(&mut self) {
        match self.sweep.run(&mut self.tables) {
            Ok(removed) => debug!(removed, "swept the tables of sockets"),
            Err(error) => warn!(error = format!("{error:#}"), "cannot sweep the tables of sockets"),
        }
    }
}
