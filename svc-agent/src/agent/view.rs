//! The agent as the control socket sees it: reads maps and what the tasks published; changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use aya::maps::{MapData, PerCpuArray};
use svc_common::maps::{SLOTS_PER_ROW, backend_flags, spec};
use svc_common::reason::Reason;
use tokio::sync::{mpsc, watch};

use super::published::Published;
use crate::apply::kernel::{Epoch, KernelStore};
use crate::attach::maps::Maps;
use crate::attach::pins::PinDir;
use crate::attach::programs::Clock;
use crate::control::api::{
    Backend, BackendState, Device, Event, EventFilter, Flow, FlowFilter, MapUsage, ObjectFilter, Protocol, ReasonCount,
    Refused, Service, ServiceEndpoints, ServiceRef, SourceStatus, Status, Sync, Trace, TraceRequest,
};
use crate::control::{Catalog, View};
use crate::events::Hub;
use crate::flows::Tables;
use crate::kernel::{self, Version};
use crate::model::Severity;
use crate::reconcile::{PortIds, Programmed};
use crate::resolve::{AddressFamily, Desired, PortKey, ResolvedPort, ServiceName};
use crate::sockets;
use crate::sources::kubernetes::WatchedApi;
use crate::sources::{Freshness, Snapshot};

/// Everything that the control socket may ask for.
pub struct AgentView {
    /// When the agent started.
    pub started: Instant,
    /// The node's name.
    pub node_name: String,
    /// The API server, if it is the source.
    pub api: Option<WatchedApi>,
    /// Where the pins are.
    pub pin_dir: PathBuf,
    /// The pins themselves.
    pub pins: Arc<PinDir>,
    /// What the tasks tell.
    pub published: Arc<Published>,
    /// Which ids the service ports have.
    pub programmed: Programmed,
    /// For reading only.
    pub store: KernelStore,
    /// The maps, for their capacities.
    pub maps: Arc<Maps>,
    /// The flow tables.
    pub tables: Tables,
    /// The tables of sockets.
    pub sockets: sockets::Tables,
    /// `COUNTERS`.
    pub counters: PerCpuArray<MapData, u64>,
    /// The epoch.
    pub epoch: Epoch,
    /// The datapath's clock.
    pub clock: Clock,
    /// What happens to single packets and connections.
    pub events: Arc<Hub>,
    /// The objects of the sources.
    pub catalog: Catalog,
}

impl View for AgentView {
    fn status(&self) -> anyhow::Result<Status> {
        let mut devices = self.published.devices.get();
        devices.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            node_name: self.node_name.clone(),
            zone: self.published.zone.get(),
            pin_dir: self.pin_dir.display().to_string(),
            kernel_release: kernel::release(),
            kernel_notes: kernel::notes(Version::running()),
            sync: self.sync(),
            sources: self.api.iter().flat_map(WatchedApi::freshness).map(source).collect(),
            epoch: self.epoch.current(),
            devices,
            sockets: self.published.sockets.get(),
            announced: self.published.announced.get(),
            segment: self.published.segment.get(),
            maps: self.map_usage()?,
            counters: self.reasons()?,
        })
    }

    fn services(&self, filter: &ObjectFilter) -> anyhow::Result<Vec<Service>> {
        let sync = self.published.sync.get();
        let index = self.programmed.read();
        let ids: HashMap<PortKey, u32> = index.ports.iter().map(|(key, ids)| (key.clone(), ids.service)).collect();
        drop(index);
        let refused: HashMap<_, _> = sync.report.refused.iter().chain(&sync.report.failed).cloned().collect();
        let counters = |key: &PortKey| ids.get(key).map(|id| self.store.service_counters(*id)).unwrap_or_default();
        let wanted = wanted(&sync.desired, filter);
        Ok(wanted
            .filter_map(|(name, ports)| {
                let service = Service::from_resolved(ports, counters)?;
                Some(Service { refused: refused.get(name).cloned(), ..service })
            })
            .collect())
    }

    fn endpoints(&self, filter: &ObjectFilter) -> anyhow::Result<Vec<ServiceEndpoints>> {
        let sync = self.published.sync.get();
        let endpoints =
            wanted(&sync.desired, filter).filter_map(|(_, ports)| ServiceEndpoints::from_resolved(ports)).collect();
        Ok(endpoints)
    }

    fn backends(&self, filter: &ObjectFilter) -> anyhow::Result<Vec<Backend>> {
        let ports: Vec<(PortKey, PortIds)> = self
            .programmed
            .read()
            .ports
            .iter()
            .filter(|(key, _)| filter.matches(&key.namespace, &key.name))
            .map(|(key, ids)| (key.clone(), ids.clone()))
            .collect();
        let mut backends = Vec::new();
        for (key, ids) in &ports {
            let cluster = ids.cluster.map(|selection| self.shares(selection)).transpose()?.unwrap_or_default();
            let local = ids.local.map(|selection| self.shares(selection)).transpose()?;
            for ((addr, port), id) in &ids.backends {
                let Some(flags) = self.backend_flags(key.family, *id) else { continue };
                backends.push(Backend {
                    id: *id,
                    address: *addr,
                    port: *port,
                    protocol: Protocol::from_number(key.protocol),
                    service: Some(ServiceRef::from(key)),
                    state: BackendState::from_flags(flags),
                    local: flags & backend_flags::LOCAL != 0,
                    share_percent: cluster.get(id).copied().unwrap_or_default(),
                    local_share_percent: local.as_ref().map(|shares| shares.get(id).copied().unwrap_or_default()),
                });
            }
        }
        Ok(backends)
    }

    fn flows(&self, filter: &FlowFilter, visit: &mut dyn FnMut(Flow) -> ControlFlow<()>) -> anyhow::Result<()> {
        let devices = self.published.devices.get();
        let devices: HashMap<u32, String> = devices.into_iter().map(|device| (device.ifindex, device.name)).collect();
        // Few services, many flows: each is looked up once.
        let mut services: HashMap<u32, Option<ServiceRef>> = HashMap::new();
        self.tables.connections(self.clock.now_s()?, |connection| {
            let service = services
                .entry(connection.service)
                .or_insert_with_key(|service| self.programmed.service_port(*service).as_ref().map(ServiceRef::from));
            match Flow::from_connection(&connection, service.clone(), |ifindex| devices.get(&ifindex).cloned()) {
                Some(flow) if filter.matches(&flow) => visit(flow),
                _ => ControlFlow::Continue(()),
            }
        })
    }

    fn events(&self, filter: EventFilter) -> anyhow::Result<mpsc::Receiver<Arc<Event>>> {
        Ok(self.events.listen(filter))
    }

    fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.published.snapshot.subscribe()
    }

    fn devices(&self) -> anyhow::Result<Vec<Device>> {
        Ok(self.published.devices.get())
    }

    fn catalog(&self) -> Catalog {
        self.catalog.clone()
    }

    fn trace(&self, request: &TraceRequest) -> anyhow::Result<Trace> {
        super::trace::trace(self, request)
    }
}

/// The resolved Services that a client wants to see.
fn wanted<'a>(
    desired: &'a Desired,
    filter: &'a ObjectFilter,
) -> impl Iterator<Item = (&'a ServiceName, &'a Vec<ResolvedPort>)> {
    let services = desired.services.iter().map(|(name, ports)| (name, ports.as_ref()));
    services.filter(|(name, _)| filter.matches(&name.namespace, &name.name))
}

impl AgentView {
    fn sync(&self) -> Sync {
        let sync = self.published.sync.get();
        let (notices, problems): (Vec<_>, Vec<_>) =
            sync.desired.problems.iter().partition(|problem| problem.severity == Severity::Notice);
        let mut problems: Vec<String> = problems.into_iter().map(ToString::to_string).collect();
        problems.extend(self.published.health.get().into_iter().map(|trouble| format!("warning: {trouble}")));
        problems.extend(self.published.metrics.get().map(|trouble| format!("warning: {trouble}")));
        problems.extend(self.published.warnings.get().into_iter().map(|warning| format!("warning: {warning}")));
        let refused = |(name, reason): &(ServiceName, String)| Refused {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            reason: reason.clone(),
        };
        Sync {
            last_success_seconds_ago: sync.last_success.map(|at| at.elapsed().as_secs()),
            pending: (sync.report.failed.len() + sync.report.held.len()) as u64,
            complete: sync.desired.complete,
            last_error: sync.report.error.clone(),
            refused: sync.report.refused.iter().chain(&sync.report.failed).map(refused).collect(),
            problems,
            notices: notices.into_iter().map(|notice| notice.text.clone()).collect(),
        }
    }

    /// How full the maps are; those that nobody counts are left out.
    fn map_usage(&self) -> anyhow::Result<Vec<MapUsage>> {
        let sync = self.published.sync.get();
        let swept = self.published.swept.get().map(|swept| swept.entries);
        let frontends = |family| {
            let ports = sync.desired.services.values().flat_map(|ports| ports.iter());
            let frontends = || ports.clone().filter(|port| port.key.family == family).flat_map(|port| &port.frontends);
            // Each address has a row of its own.
            let addresses: HashSet<_> = frontends().map(|frontend| frontend.addr).collect();
            (frontends().count() + addresses.len()) as u64
        };
        let index = self.programmed.read();
        let backends = |family| {
            let ports = index.ports.iter().filter(|(key, _)| key.family == family);
            ports.map(|(_, ids)| ids.backends.len() as u64).sum::<u64>()
        };
        let selections =
            index.ports.values().map(|ids| u64::from(ids.cluster.is_some()) + u64::from(ids.local.is_some()));
        let used = [
            (spec::FRONTENDS_V4, Some(frontends(AddressFamily::V4))),
            (spec::FRONTENDS_V6, Some(frontends(AddressFamily::V6))),
            (spec::SELECTIONS, Some(selections.sum())),
            (spec::SLOTS, None),
            (spec::BACKENDS_V4, Some(backends(AddressFamily::V4))),
            (spec::BACKENDS_V6, Some(backends(AddressFamily::V6))),
            (spec::FLOWS_V4, swept.map(|[flows, ..]| flows)),
            (spec::FLOWS_V6, swept.map(|[_, flows, ..]| flows)),
            (spec::EMBRYOS_V4, swept.map(|[_, _, embryos, _]| embryos)),
            (spec::EMBRYOS_V6, swept.map(|[.., embryos]| embryos)),
            (spec::DEVICES, Some(self.published.devices.get().len() as u64)),
            (spec::SVC_COUNTERS, Some(index.ports.len() as u64)),
            (spec::SOCKETS, self.sockets.sockets.count().ok()),
            (spec::SOCKET_NAT, self.sockets.nat.count().ok()),
        ];
        used.into_iter()
            .map(|(map, used)| Ok(MapUsage { name: map.name.into(), used, capacity: self.maps.capacity(&map)?.into() }))
            .collect()
    }

    fn reasons(&self) -> anyhow::Result<Vec<ReasonCount>> {
        let mut counts = Vec::new();
        for reason in Reason::ALL {
            let cpus = self.counters.get(&u32::from(*reason as u8), 0).context("cannot read `COUNTERS`")?;
            let count: u64 = cpus.iter().sum();
            if count > 0 {
                counts.push(ReasonCount { reason: reason.code().into(), count });
            }
        }
        Ok(counts)
    }

    fn backend_flags(&self, family: AddressFamily, id: u32) -> Option<u16> {
        match family {
            AddressFamily::V4 => self.store.backend_v4(id).map(|backend| backend.flags),
            AddressFamily::V6 => self.store.backend_v6(id).map(|backend| backend.flags),
        }
    }

    /// The part that each backend has of a selection's slots, in percent.
    pub(super) fn shares(&self, selection: u32) -> anyhow::Result<BTreeMap<u32, f64>> {
        let selection = self.store.selection(selection);
        if selection.is_empty() {
            return Ok(BTreeMap::new());
        }
        let first = selection.offset() / SLOTS_PER_ROW;
        let skipped = (selection.offset() % SLOTS_PER_ROW) as usize;
        let count = (skipped as u32 + selection.len()).div_ceil(SLOTS_PER_ROW);
        let rows = self.store.rows(first, count)?;
        let slots = rows.iter().flat_map(|row| row.0).skip(skipped).take(selection.len() as usize);
        let mut shares = BTreeMap::new();
        for backend in slots {
            *shares.entry(backend).or_default() += 100.0 / f64::from(selection.len());
        }
        Ok(shares)
    }
}

/// One kind of objects that comes over a connection.
fn source(kind: Freshness) -> SourceStatus {
    SourceStatus {
        kind: kind.name.to_owned(),
        server: kind.server,
        connected: kind.connected,
        complete: kind.complete,
        objects: kind.objects as u64,
        last_list_seconds_ago: kind.last_list.map(|ago| ago.as_secs()),
        last_event_seconds_ago: kind.last_event.map(|ago| ago.as_secs()),
        last_error: kind.error,
    }
}
