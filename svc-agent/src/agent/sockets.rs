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

/// What the keeper is made of.
pub struct Parts {
    /// Whose sockets are served.
    pub scope: SocketLb,
    /// Files of the network namespaces that are left alone.
    pub skip: Vec<String>,
    /// The programs, attached or not.
    pub links: SocketLinks,
    /// Where they are pinned.
    pub pins: Arc<PinDir>,
    /// What is known of sockets.
    pub tables: Tables,
    /// For reading only.
    pub store: KernelStore,
    /// The node's addresses.
    pub addresses: watch::Receiver<Vec<IpAddr>>,
    /// Which of them answer nodePorts.
    pub policy: Policy,
    /// Where the state is shown.
    pub published: Arc<Published>,
}

/// What the task works with.
pub struct SocketKeeper {
    parts: Parts,
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
    pub fn new(parts: Parts) -> anyhow::Result<Self> {
        let mut skipped = BTreeSet::new();
        parts.tables.skip.for_each(|cookie, _| {
            skipped.insert(cookie);
        })?;
        Ok(Self { parts, own: own_cookie(), told: None, skipped, sweep: Sweep::default(), unended: None })
    }

    /// Brings maps and hooks in line with the configuration.
    pub fn look(&mut self) {
        let mut reasons = Vec::new();
        if let Err(error) = self.tell(&mut reasons) {
            reasons.push(format!("{error:#}"));
        }
        let mut shown = SocketHooks { scope: self.parts.scope.to_string(), ..SocketHooks::default() };
        if self.parts.scope == SocketLb::Off {
            match self.parts.links.remove(&self.parts.pins) {
                Ok(true) => {
                    info!("the socket hooks are off: detached them");
                    // Nobody will see these sockets end.
                    reasons.extend(self.parts.tables.clear().err().map(|error| format!("{error:#}")));
                }
                Ok(false) => {}
                Err(error) => reasons.push(format!("{error:#}")),
            }
        } else {
            let state = self.parts.links.ensure(&self.parts.pins);
            reasons.extend(Some(state.reason).filter(|reason| !reason.is_empty()));
            reasons.extend(self.unended.clone());
            shown.cgroup = state.cgroup.display().to_string();
            shown.attached = state.attached.iter().map(ToString::to_string).collect();
        }
        shown.skipped_namespaces = self.skipped.len() as u64;
        shown.reason = reasons.join("; ");
        let before = self.parts.published.sockets.get();
        if shown != before && !shown.reason.is_empty() {
            warn!(reason = shown.reason, "socket hooks");
        }
        self.parts.published.sockets.set(shown);
    }

    /// Follows until it is dropped.
    pub async fn run(mut self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let published = self.parts.published.clone();
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
                    if looks.is_multiple_of(SWEEP) && self.parts.scope != SocketLb::Off {
                        tokio::task::block_in_place(|| self.sweep());
                    }
                }
                changed = self.parts.addresses.changed() => match changed {
                    Ok(()) => tokio::task::block_in_place(|| self.look()),
                    // The other end is gone with the agent.
                    Err(_) => return,
                },
                () = published.written.notified() => {
                    if self.parts.scope != SocketLb::Off {
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
            self.parts.tables.configure(config)?;
            self.told = Some(config);
        }
        let (wanted, unknown) = skipped(&self.parts.skip);
        reasons.extend(unknown);
        for cookie in wanted.difference(&self.skipped) {
            self.parts.tables.skip.set(cookie, &1)?;
        }
        for cookie in self.skipped.difference(&wanted) {
            self.parts.tables.skip.remove(cookie);
        }
        self.skipped = wanted;
        Ok(())
    }

    fn config(&mut self) -> SocketConfig {
        let addresses = self.parts.addresses.borrow_and_update();
        let mut answering = addresses.iter().filter(|addr| self.parts.policy.allows_node_port(**addr));
        let v4 =
            answering.clone().find_map(|addr| if let IpAddr::V4(addr) = addr { Some(addr.octets()) } else { None });
        let v6 = answering.find_map(|addr| if let IpAddr::V6(addr) = addr { Some(addr.octets()) } else { None });
        let scope = match self.parts.scope {
            SocketLb::Off => socket_scope::OFF,
            SocketLb::Host => socket_scope::HOST,
            SocketLb::All => socket_scope::ALL,
        };
        SocketConfig { netns: self.own.unwrap_or(0), scope, v4: v4.unwrap_or_default(), v6: v6.unwrap_or_default() }
    }

    /// Ends connected UDP sockets whose backend is gone (B69).
    fn end_lost(&mut self) {
        let lost = match Lost::find(&self.parts.tables, &self.parts.store) {
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
        match self.sweep.run(&mut self.parts.tables) {
            Ok(removed) => debug!(removed, "swept the tables of sockets"),
            Err(error) => warn!(error = format!("{error:#}"), "cannot sweep the tables of sockets"),
        }
    }
}
