//! The agent: puts the parts together and keeps them running.
//!
//! The order of a start matters: the maps are adopted or made, the first state of the sources is written to them, and only
//! then are programs attached, so that no packet meets maps that are not filled yet. After a restart the programs of the
//! former agent work until they are replaced in place. Nothing is detached at the end.

mod announcer;
mod follow;
mod health;
mod host;
mod metrics;
mod names;
mod privileges;
mod published;
mod segment;
mod sockets;
mod source;
mod sync;
mod trace;
mod view;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use aya::maps::PerCpuArray;
use sd_notify::NotifyState;
use svc_common::maps::{Flow, Timeouts, Tuple, encapsulation, spec};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use self::announcer::Announcer;
use self::follow::Follower;
use self::health::{Agents, HealthTask};
use self::metrics::MetricsTask;
use self::names::AgentNames;
use self::published::Published;
use self::segment::SegmentTask;
use self::sockets::SocketKeeper;
use self::source::Source;
use self::sync::Syncer;
use self::view::AgentView;
use crate::apply::kernel::{Epoch, KernelStore, set_service_networks};
use crate::attach::devices::Devices;
use crate::attach::links::Links;
use crate::attach::maps::{Maps, Sizes};
use crate::attach::netlink::Netlink;
use crate::attach::pins::PinDir;
use crate::attach::programs::{Clock, Programs, Sweep};
use crate::attach::sockets::SocketLinks;
use crate::config::{Config, SocketLb};
use crate::control::api::EventKind;
use crate::control::{self, Catalog, Changer, Socket};
use crate::datapath;
use crate::events::{self, Hub, Reader};
use crate::expire::{self, Swept};
use crate::flows::Tables;
use crate::health::HealthPorts;
use crate::model::{DsrEncapsulation, Problem, Rules, ServiceName};
use crate::reconcile::Reconciler;
use crate::reports::Reporter;
use crate::reserve::Reserved;
use crate::resolve::{Node, Policy};
use crate::sockets::Tables as SocketTables;
use crate::sources::applied::Applied;
use crate::sources::kubernetes::WatchedApi;
use crate::sys::bpf;

/// How often the flow tables are swept.
const SWEEP: Duration = Duration::from_secs(5);
/// How long to wait before the maps are read again when that failed at the start.
const AGAIN: Duration = Duration::from_secs(1);

/// Runs until the process is told to end by SIGTERM or SIGINT; leaves the datapath at work.
///
/// # Errors
/// If it cannot start: no kernel programs, unsafe pin directory, refused programs, taken socket.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let object = datapath::object()?;
    // First of all: says in a word what is wrong with most first attempts.
    anyhow::ensure!(nix::unistd::geteuid().is_root(), "svc-agent run needs root, to load programs and pin maps");
    privileges::check()?;
    bpf::lift_memory_lock();
    let shutdown = shutdown()?;
    let pins = Arc::new(PinDir::open(&config.pin_dir)?);
    // An API server keeps all that is to be kept.
    let applied = match &config.kubernetes {
        Some(_) => None,
        None => Some(Arc::new(Applied::open(&config.state_dir, rules(&config))?)),
    };
    let socket = Socket::bind(&config.socket, config.socket_group.as_deref())?;
    let (mut programs, maps) =
        Programs::load(&pins, object, Sizes { max_flows: config.max_flows }, config.socket_lb != SocketLb::Off)?;
    let (source, api) = Source::open(&config, &rules(&config), applied.as_deref()).await?;
    let changer = match applied {
        Some(applied) => Changer::Applied(applied),
        None => Changer::Elsewhere("this agent follows an API server: change objects there, with kubectl".into()),
    };
    let debug_log = programs.take_debug_log();
    let mut agent = Agent::new(&config, pins.clone(), programs, Arc::new(maps), source, api, changer)?;
    tokio::pin!(shutdown);
    let mut tasks = JoinSet::new();
    tokio::select! {
        () = &mut shutdown => return Ok(()),
        started = agent.start() => started?,
    }
    // Not before: until here the programs of an agent of another version may have been the ones at work.
    for name in pins.remove_other_layouts(spec::ALL)? {
        info!(map = name, "removed the pin of a map that this version does not use");
    }
    let (closing, closed) = watch::channel(());
    let view = Arc::new(agent.view);
    if let Some(address) = config.metrics_bind {
        let max_ports = config.metrics_service_ports;
        let published = agent.published;
        tasks.spawn(MetricsTask { address, max_ports, view: view.clone(), published }.run());
    }
    let Agent { follower, syncer, sweeper, sockets, reader, names, announcer, segment, health, reporter, .. } = agent;
    tasks.spawn(follower.run());
    tasks.spawn(syncer.run());
    tasks.spawn(sweeper.run());
    tasks.spawn(sockets.run());
    tasks.spawn(reader.run(names));
    if let Some(debug_log) = debug_log {
        tasks.spawn(debug_log.run());
    }
    if let Some(announcer) = announcer {
        tasks.spawn(announcer.run());
    }
    if let Some(segment) = segment {
        tasks.spawn(segment.run());
    }
    tasks.spawn(health.run());
    if let Some(reporter) = reporter {
        tasks.spawn(reporter.run());
    }
    let mut server = tokio::spawn(control::serve(socket, view, async move {
        let mut closed = closed;
        let _closing = closed.changed().await;
    }));
    tell(&[NotifyState::Ready]);
    info!(node = config.node_name, "ready");
    let ended = tokio::select! {
        () = &mut shutdown => Ok(()),
        ended = tasks.join_next() => Err(anyhow::anyhow!("a task of the agent ended: {ended:?}")),
        ended = &mut server => match ended {
            Ok(Ok(())) => Err(anyhow::anyhow!("the control socket was closed")),
            Ok(Err(error)) => Err(error.context("the control socket failed")),
            Err(error) => Err(error.into()),
        },
    };
    tell(&[NotifyState::Stopping]);
    info!("ending; programs and maps stay at work until `svc-agent cleanup`");
    drop(closing);
    if ended.is_ok() {
        let _served = server.await;
    }
    ended
}

/// The parts before they are started.
struct Agent {
    follower: Follower,
    syncer: Syncer,
    view: AgentView,
    published: Arc<Published>,
    sweeper: Sweeper,
    sockets: SocketKeeper,
    reader: Reader,
    names: AgentNames,
    announcer: Option<Announcer>,
    segment: Option<SegmentTask>,
    health: HealthTask,
    /// Where there is an API server to write to.
    reporter: Option<Reporter>,
}

impl Agent {
    fn new(
        config: &Config,
        pins: Arc<PinDir>,
        mut programs: Programs,
        maps: Arc<Maps>,
        source: Source,
        api: Option<WatchedApi>,
        changer: Changer,
    ) -> anyhow::Result<Self> {
        let published = Arc::new(Published::default());
        let settings = svc_common::maps::Config {
            epoch: first_epoch(),
            snat_port_min: config.snat_ports.min,
            snat_port_max: config.snat_ports.max,
            max_new_flows: config.max_new_flows,
            encapsulation: match config.dsr_encapsulation {
                DsrEncapsulation::Ipip => encapsulation::IPIP,
                DsrEncapsulation::Geneve => encapsulation::GENEVE,
            },
        };
        let epoch = Epoch::new(&maps, &settings)?;
        set_service_networks(&maps, &config.service_cidrs)?;
        // The clock runs on as long as its program is loaded, with or without these.
        let clocks = (programs.clock()?, programs.clock()?);
        let store = KernelStore::new(&maps, epoch.clone())?;
        let reconciler = Reconciler::new(store);
        let hub = Arc::new(Hub::new(&maps)?);
        let names = AgentNames { programmed: reconciler.programmed().clone(), published: published.clone() };
        let (send_addresses, addresses) = watch::channel(Vec::new());
        let looks =
            Arc::new(Agents { published: published.clone(), api: api.clone(), node_name: config.node_name.clone() });
        let reporter = api.clone().map(|api| Reporter {
            api,
            node_name: config.node_name.clone(),
            pools: config.load_balancer_pools.clone(),
            snapshots: published.snapshot.subscribe(),
            problems: refusals(&published),
        });
        let health = HealthTask {
            ports: HealthPorts::new(looks.clone(), policy(config), addresses.clone()),
            own: config.healthz_bind,
            looks,
            published: published.clone(),
        };
        let view = AgentView {
            started: Instant::now(),
            node_name: config.node_name.clone(),
            api,
            pin_dir: pins.given().to_owned(),
            pins: pins.clone(),
            published: published.clone(),
            programmed: reconciler.programmed().clone(),
            store: KernelStore::new(&maps, epoch.clone())?,
            maps: maps.clone(),
            tables: Tables::open(&maps)?,
            sockets: SocketTables::open(&maps)?,
            counters: PerCpuArray::try_from(maps.map(&spec::COUNTERS)?)?,
            epoch: epoch.clone(),
            clock: clocks.0,
            events: hub.clone(),
            catalog: Catalog::new(published.snapshot.subscribe(), changer),
        };
        let sweeper = Sweeper {
            tables: Tables::open(&maps)?,
            timeouts: config.timeouts,
            clock: clocks.1,
            program: programs.sweep()?,
            events: hub.clone(),
            names: names.clone(),
            published: published.clone(),
        };
        let sockets = SocketKeeper::new(sockets::Parts {
            scope: config.socket_lb,
            skip: config.socket_lb_skip_netns.clone(),
            links: SocketLinks::new(programs.take_sockets(), config.cgroup.as_deref()),
            pins: pins.clone(),
            tables: SocketTables::open(&maps)?,
            store: KernelStore::new(&maps, epoch.clone())?,
            addresses: addresses.clone(),
            policy: policy(config),
            published: published.clone(),
        })?;
        let reader = Reader::new(&maps, hub)?;
        let announcer = config.route_table.map(|table| Announcer::new(table, &config.node_name, published.clone()));
        let segment = SegmentTask::new(config, published.clone());
        let reserved = Reserved::open(&maps)?;
        let links = Links::new(programs);
        let follower = Follower {
            devices: Devices::new(config, links, &maps, epoch.clone())?,
            netlink: Netlink::connect()?,
            pins,
            maps,
            epoch,
            addresses: send_addresses,
            published: published.clone(),
            snat_ports: config.snat_ports,
            reserved,
            unpinned: None,
        };
        let syncer = Syncer::new(source, policy(config), node(config), reconciler, addresses, published.clone());
        Ok(Self {
            follower,
            syncer,
            view,
            published,
            sweeper,
            sockets,
            reader,
            names,
            announcer,
            segment,
            health,
            reporter,
        })
    }

    /// Fills the maps, then attaches.
    async fn start(&mut self) -> anyhow::Result<()> {
        self.follower.look(false).await?;
        self.syncer.first().await;
        while !tokio::task::block_in_place(|| self.syncer.load()) {
            sleep(AGAIN).await;
        }
        self.follower.look(true).await?;
        tokio::task::block_in_place(|| self.sockets.look());
        Ok(())
    }
}

/// Keeps the flow tables free of what is over.
struct Sweeper {
    tables: Tables,
    timeouts: Timeouts,
    clock: Clock,
    program: Sweep,
    events: Arc<Hub>,
    names: AgentNames,
    published: Arc<Published>,
}

impl Sweeper {
    async fn run(self) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            sweep.tick().await;
            let swept = tokio::task::block_in_place(|| self.once());
            match swept {
                Ok(swept) => {
                    debug!(removed = swept.removed, "swept the flow tables");
                    self.published.swept.set(Some(swept));
                }
                Err(error) => warn!(error = format!("{error:#}"), "cannot sweep the flow tables; trying again"),
            }
        }
    }

    fn once(&self) -> anyhow::Result<Swept> {
        let now_s = self.clock.now_s()?;
        let told = self.events.wants(EventKind::End).then_some(self as &dyn expire::Ended);
        expire::sweep(&self.tables, &self.timeouts, now_s, |frame| self.program.run(frame), told)
    }
}

impl expire::Ended for Sweeper {
    fn ended_v4(&self, key: &Tuple<[u8; 4]>, flow: &Flow<[u8; 4]>) {
        self.events.tell(events::timed_out(key, flow, &self.names));
    }

    fn ended_v6(&self, key: &Tuple<[u8; 16]>, flow: &Flow<[u8; 16]>) {
        self.events.tell(events::timed_out(key, flow, &self.names));
    }
}

/// What is refused, of the sources, of resolving, and for want of room.
fn refusals(published: &Arc<Published>) -> Box<dyn Fn() -> Vec<Problem> + Send + Sync> {
    let published = published.clone();
    Box::new(move || {
        let refused = |(name, why): &(ServiceName, String)| {
            Problem::error(format!("the Service does not fit: {why}")).about(name)
        };
        published.sync.look(|sync| {
            let problems = sync.desired.problems.iter().filter(|problem| problem.about.is_some()).cloned();
            problems.chain(sync.report.refused.iter().map(refused)).collect()
        })
    })
}

fn rules(config: &Config) -> Rules {
    Rules { node_ports: config.node_port_range.min..=config.node_port_range.max }
}

fn policy(config: &Config) -> Policy {
    Policy {
        node_port_addresses: config.node_port_addresses.clone(),
        external_ips: config.external_ips.clone(),
        load_balancer_ips: config.load_balancer_ips.clone(),
    }
}

fn node(config: &Config) -> Node {
    Node {
        name: config.node_name.clone(),
        zone: config.zone.clone(),
        addresses: Vec::new(),
        forwarding_mode: config.forwarding_mode,
    }
}

/// Where the epochs of a new `CONFIG` begin: flows of an earlier map stopped long before.
fn first_epoch() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs() as u32)
}

/// Ends with the first SIGTERM or SIGINT.
fn shutdown() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Tells the service manager, if there is one.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "cannot tell the service manager");
    }
}
