//! Who is compared, and how each is set up in a stage of its own.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use svc_agent::control::api::XdpMode;

use super::rules::Filter;
use super::services::Services;
use super::stage::{From, Stage};
use crate::agent::Agent;

/// How long an agent may take, also one without optimisation with many services on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A way to reach the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The pod's own address, and nothing on the node but its routes.
    Plain,
    /// The same with devices that leave nothing to "hardware", to compare XDP with.
    PlainWithoutOffloads,
    /// Ours, with socket hooks.
    Sockets,
    /// The pod's own address where [`Way::Sockets`] serves: the packets are the same, nothing was chosen for the socket.
    Direct,
    /// Ours at tc, past the stack into the pod.
    Peer,
    /// Ours at tc, through the stack.
    Kernel,
    /// Ours at XDP in the driver, then past the stack.
    Xdp,
    /// What kube-proxy sets up.
    Rules(Filter),
}

impl Way {
    /// Every one, in the order of the tables.
    pub const ALL: [Self; 11] = [
        Self::Plain,
        Self::Sockets,
        Self::Direct,
        Self::Peer,
        Self::Kernel,
        Self::PlainWithoutOffloads,
        Self::Xdp,
        Self::Rules(Filter::Nftables),
        Self::Rules(Filter::IptablesNft),
        Self::Rules(Filter::IptablesLegacy),
        Self::Rules(Filter::Ipvs),
    ];

    /// For tables and for the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::PlainWithoutOffloads => "plain-no-offloads",
            Self::Sockets => "ours-sockets",
            Self::Direct => "ours-direct",
            Self::Peer => "ours-peer",
            Self::Kernel => "ours-kernel",
            Self::Xdp => "ours-xdp",
            Self::Rules(Filter::Nftables) => "nftables",
            Self::Rules(Filter::IptablesNft) => "iptables-nft",
            Self::Rules(Filter::IptablesLegacy) => "iptables-legacy",
            Self::Rules(Filter::Ipvs) => "ipvs",
        }
    }

    /// Whether packets from there go another way than with the others of ours.
    pub fn concerns(self, from: From) -> bool {
        match self {
            Self::Sockets | Self::Direct => from == From::Pod,
            Self::PlainWithoutOffloads | Self::Xdp => from == From::Outside,
            Self::Plain | Self::Peer | Self::Kernel | Self::Rules(_) => true,
        }
    }

    /// What it is compared with.
    pub fn limit(self) -> Self {
        match self {
            Self::PlainWithoutOffloads | Self::Xdp => Self::PlainWithoutOffloads,
            Self::Plain | Self::Sockets | Self::Direct | Self::Peer | Self::Kernel | Self::Rules(_) => Self::Plain,
        }
    }

    /// Whether it balances anything.
    pub fn has_services(self) -> bool {
        self.limit() != self
    }

    /// Whether it may matter how many services there are.
    pub fn varies(self) -> bool {
        self.dials_service()
    }

    /// Whether clients dial the service, not the pod.
    fn dials_service(self) -> bool {
        self.has_services() && self != Self::Direct
    }

    /// Whether its packets' way through the node is of interest: not where sockets have chosen before.
    pub fn has_path(self) -> bool {
        !matches!(self, Self::Sockets | Self::Direct)
    }
}

/// A contender with so many services.
#[derive(Debug)]
pub struct Contender {
    /// The way.
    pub way: Way,
    services: Services,
    _agent: Option<Agent>,
    /// Its stage.
    pub stage: Stage,
}

impl Contender {
    /// Sets it up; or says why it is not available on this kernel.
    ///
    /// # Errors
    /// If something else goes wrong.
    pub fn start(way: Way, services: Services, cpu: usize) -> Result<Result<Self, String>> {
        let offloads = way.limit() == Way::Plain;
        let stage = Stage::build(offloads, cpu)?;
        let mut agent = None;
        match way {
            Way::Plain | Way::PlainWithoutOffloads => {}
            Way::Rules(filter) => {
                if let Some(why) = filter.missing(&stage) {
                    return Ok(Err(why));
                }
                filter.load(&stage, services)?;
            }
            Way::Sockets | Way::Direct | Way::Peer | Way::Kernel | Way::Xdp => {
                agent = Some(start_agent(way, &stage, services)?);
            }
        }
        Ok(Ok(Self { way, services, _agent: agent, stage }))
    }

    /// Where it belongs among others.
    pub fn place(&self) -> (Option<usize>, usize) {
        (Way::ALL.iter().position(|way| *way == self.way), self.services.0)
    }

    /// What a client there dials.
    pub fn dialled(&self, from: From) -> SocketAddr {
        if self.way.dials_service() { self.services.dialled(from) } else { Services::pod() }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&row(self.way, self.services))
    }
}

/// The name of a row.
pub fn row(way: Way, services: Services) -> String {
    match services.0 {
        _ if !way.has_services() => way.name().to_owned(),
        count => format!("{}, {count}", way.name()),
    }
}

fn start_agent(way: Way, stage: &Stage, services: Services) -> Result<Agent> {
    let cgroup = stage.cgroup.path().to_string_lossy().into_owned();
    let mut args = vec!["--uplinks", "eth0", "--workloads", "veth*", "--service-cidrs", "10.96.0.0/12"];
    args.extend(["--max-flows", "131072"]);
    // The limit is there, and is not reached by packets that are made faster than clients are.
    args.extend(["--max-new-flows", "100000000"]);
    match way {
        Way::Sockets | Way::Direct => args.extend(["--socket-lb", "all", "--cgroup", &cgroup]),
        Way::Kernel => args.extend(["--forwarding", "kernel"]),
        Way::Xdp => args.extend(["--xdp-mode", "native"]),
        Way::Peer | Way::Plain | Way::PlainWithoutOffloads | Way::Rules(_) => {}
    }
    if way != Way::Xdp {
        args.extend(["--xdp-mode", "off"]);
    }
    let mut agent = Agent::prepare(&stage.node, &args)?;
    for (file, text) in services.manifests() {
        agent.write(&file, &text)?;
    }
    agent.spawn()?;
    agent.wait_until_ready_for(PATIENCE).with_context(|| format!("{}, {} services", way.name(), services.0))?;
    let found = agent.status()?;
    if way == Way::Xdp
        && !agent.devices()?.iter().any(|device| device.name == "eth0" && device.xdp.mode == XdpMode::Native)
    {
        bail!("XDP is not attached in the driver of the uplink: {found:?}");
    }
    Ok(agent)
}
