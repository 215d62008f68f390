//! An agent made of constants, and a server for it in a directory of its own.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot, watch};

use super::api::*;
use super::server::{Limits, serve_within};
use super::{Catalog, Changer, Socket, View};
use crate::resolve::{self, AddressFamily, Choice, PortKey, ResolvedPort};
use crate::sources::Snapshot;

/// The agent of the tests.
#[derive(Default)]
pub struct FakeView {
    /// How many connections it has.
    pub flows: usize,
    /// After so many it fails.
    pub fail_after: Option<usize>,
    /// Every other call fails too.
    pub broken: bool,
    /// Its objects; none if absent.
    pub catalog: Option<Catalog>,
    /// The objects of its sources.
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    /// How many connections were visited.
    pub visited: Arc<AtomicUsize>,
}

impl FakeView {
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.broken, "cannot read the map `CONFIG`: gone");
        Ok(())
    }
}

impl View for FakeView {
    fn status(&self) -> anyhow::Result<Status> {
        self.check()?;
        Ok(status())
    }

    fn services(&self, _: &ObjectFilter) -> anyhow::Result<Vec<Service>> {
        self.check()?;
        Ok(services())
    }

    fn endpoints(&self, _: &ObjectFilter) -> anyhow::Result<Vec<ServiceEndpoints>> {
        let empty = ServiceEndpoints { namespace: "kube-system".into(), name: "dns".into(), endpoints: vec![] };
        Ok(ServiceEndpoints::from_resolved(&resolved_web()).into_iter().chain([empty]).collect())
    }

    fn backends(&self, _: &ObjectFilter) -> anyhow::Result<Vec<Backend>> {
        let backend = |id, address: &str, service, state| Backend {
            id,
            address: address.parse().unwrap(),
            port: 8080,
            protocol: Some(Protocol::Tcp),
            service,
            state,
            local: id == 1,
            share_percent: if id == 1 { 100.0 } else { 0.0 },
            local_share_percent: None,
        };
        Ok(vec![
            backend(1, "10.0.1.1", Some(web_ref()), BackendState::Ready),
            backend(2, "10.0.2.1", None, BackendState::Draining),
        ])
    }

    fn flows(&self, _: &FlowFilter, visit: &mut dyn FnMut(Flow) -> ControlFlow<()>) -> anyhow::Result<()> {
        for index in 0..self.flows {
            anyhow::ensure!(self.fail_after != Some(index), "cannot read the map `FLOWS_V4`: gone");
            self.visited.fetch_add(1, Ordering::Relaxed);
            if visit(flow(index)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn events(&self, filter: EventFilter) -> anyhow::Result<mpsc::Receiver<Arc<Event>>> {
        let (sender, receiver) = mpsc::channel(8);
        for event in events().into_iter().filter(|event| filter.wants(event.kind)) {
            sender.try_send(Arc::new(event))?;
        }
        Ok(receiver)
    }

    fn catalog(&self) -> Catalog {
        self.catalog.clone().unwrap_or_else(|| {
            let (_, snapshots) = watch::channel(Arc::default());
            Catalog::new(snapshots, Changer::Elsewhere("this agent follows an API server: change objects there".into()))
        })
    }

    fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.subscribe()
    }

    fn devices(&self) -> anyhow::Result<Vec<Device>> {
        Ok(devices())
    }
}

/// A dropped packet and a connection.
pub fn events() -> [Event; 2] {
    let drop = Event {
        time_unix_ms: 1_700_000_000_123,
        kind: EventKind::Drop,
        reason: Some("no_local_endpoint".into()),
        hook: Some("tc-ingress".into()),
        device: Some("eth0".into()),
        protocol: "TCP".into(),
        source: "192.0.2.1:40000".parse().unwrap(),
        destination: "10.96.0.1:80".parse().unwrap(),
        backend: None,
        snat: None,
        service: Some(web_ref()),
        length_bytes: Some(74),
    };
    let begin = Event {
        kind: EventKind::Begin,
        reason: None,
        hook: None,
        device: None,
        backend: Some("10.0.1.1:8080".parse().unwrap()),
        snat: Some("198.51.100.1:1024".parse().unwrap()),
        length_bytes: None,
        ..drop.clone()
    };
    [drop, begin]
}

/// A connection; even ones are TCP with source translation, odd ones UDP within the node.
pub fn flow(index: usize) -> Flow {
    let tcp = index.is_multiple_of(2);
    Flow {
        protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
        family: Family::V4,
        client: format!("192.0.2.{}:{}", index % 250 + 1, 40_000 + index % 20_000).parse().unwrap(),
        vip: "10.96.0.1:80".parse().unwrap(),
        backend: "10.0.1.1:8080".parse().unwrap(),
        snat: tcp.then(|| "198.51.100.1:1024".parse().unwrap()),
        service: Some(web_ref()),
        state: if tcp { FlowState::Established } else { FlowState::Unreplied },
        idle_seconds: 3,
        forward: Traffic { packets: 12, bytes: 1_234_567 },
        reverse: Traffic { packets: 34, bytes: 987 },
        next_hop: tcp.then(|| NextHop { ifindex: 2, device: Some("eth0".into()), mac: None }),
    }
}

/// A Service in both families, and one that was refused.
pub fn services() -> Vec<Service> {
    let mut web = Service::from_resolved(&resolved_web(), |_| Default::default()).unwrap();
    let mut v6 = web.ports[0].clone();
    v6.family = Family::V6;
    v6.frontends = vec![Frontend {
        address: "fd00:96::1".parse().unwrap(),
        port: 80,
        kind: FrontendKind::ClusterIp,
        external_local: false,
        internal_local: false,
    }];
    web.ports.push(v6);
    let dns = Service {
        namespace: "kube-system".into(),
        name: "dns".into(),
        service_type: "ClusterIP".into(),
        ports: vec![],
        refused: Some("the map `FRONTENDS_V4` is full".into()),
    };
    vec![web, dns]
}

/// `default/web`, port 80 in IPv4.
pub fn resolved_web() -> Vec<ResolvedPort> {
    let frontend = |addr: &str, port, kind| resolve::Frontend {
        addr: addr.parse().unwrap(),
        port,
        kind,
        external_local: false,
        internal_local: false,
    };
    let backend = |addr: &str, local: bool| resolve::Backend {
        addr: addr.parse().unwrap(),
        port: 8080,
        ready: local,
        serving: true,
        terminating: !local,
        local,
        node: Some(if local { "node-a" } else { "node-b" }.into()),
        target: Some(if local { "web-1" } else { "web-2" }.into()),
    };
    vec![ResolvedPort {
        key: PortKey {
            namespace: "default".into(),
            name: "web".into(),
            port_name: "http".into(),
            port: 80,
            protocol: 6,
            family: AddressFamily::V4,
        },
        service_type: "NodePort".into(),
        frontends: vec![
            frontend("10.96.0.1", 80, resolve::FrontendKind::ClusterIp),
            frontend("198.51.100.1", 30_080, resolve::FrontendKind::NodePort),
        ],
        backends: vec![backend("10.0.1.1", true), backend("10.0.2.1", false)],
        cluster: Choice::Backends(vec![0]),
        local: Choice::Backends(vec![0]),
        affinity_s: None,
        source_ranges: Vec::new(),
        dsr: false,
    }]
}

fn web_ref() -> ServiceRef {
    ServiceRef { namespace: "default".into(), name: "web".into(), port_name: "http".into(), port: 80 }
}

/// Two devices.
pub fn devices() -> Vec<Device> {
    let device = |name: &str, ifindex, class, mode, reason: &str| Device {
        name: name.into(),
        ifindex,
        class,
        xdp: Xdp { mode, reason: reason.into() },
        tc: Tc { kind: TcKind::Tcx, reason: String::new() },
        mtu: 1500,
        mac: "02:00:00:00:00:01".into(),
        addresses: vec!["198.51.100.1".parse().unwrap()],
    };
    vec![
        device("eth0", 2, DeviceClass::Uplink, XdpMode::Native, ""),
        device("veth1", 7, DeviceClass::Workload, XdpMode::Off, "XDP is for uplinks"),
    ]
}

/// An agent that has refused something.
pub fn status() -> Status {
    Status {
        version: "0.1.0".into(),
        pid: 4242,
        uptime_seconds: 11_525,
        node_name: "node-a".into(),
        zone: None,
        pin_dir: "/sys/fs/bpf/svc-agent/v1".into(),
        kernel_release: "6.18.0".into(),
        kernel_notes: Vec::new(),
        sync: Sync {
            last_success_seconds_ago: Some(3),
            pending: 0,
            complete: true,
            last_error: None,
            refused: vec![Refused {
                namespace: "kube-system".into(),
                name: "dns".into(),
                reason: "the map `FRONTENDS_V4` is full".into(),
            }],
            problems: vec![
                "web.yaml document 3: spec.ports[0].port: found the string \"80\", expected a number".into(),
            ],
            notices: vec!["web.yaml document 1, Service `default/web`: no endpoints".into()],
        },
        sources: vec![SourceStatus {
            kind: "services".into(),
            server: "https://192.0.2.1:6443".into(),
            connected: false,
            complete: true,
            objects: 41,
            last_list_seconds_ago: Some(700),
            last_event_seconds_ago: Some(95),
            last_error: Some("connection refused".into()),
        }],
        epoch: 12,
        devices: devices(),
        announced: Some(Announced { table: 99, addresses: 3, ..Announced::default() }),
        segment: Some(Segment {
            devices: vec!["eth0".into()],
            possible: 3,
            held: vec!["192.0.2.80".parse().unwrap()],
            peers: vec![
                Peer { name: "node-1".into(), addresses: Some(3), reason: String::new() },
                Peer { name: "node-2".into(), addresses: None, reason: "connection refused".into() },
            ],
            ..Segment::default()
        }),
        sockets: SocketHooks {
            scope: "host".into(),
            cgroup: "/sys/fs/cgroup".into(),
            attached: ["connect4", "connect6"].map(str::to_owned).into(),
            skipped_namespaces: 0,
            reason: "this kernel lacks the others".into(),
        },
        maps: vec![
            MapUsage { name: "FLOWS_V4".into(), used: Some(1_234_567), capacity: 2_469_134 },
            MapUsage { name: "EMBRYOS_V4".into(), used: None, capacity: 65_536 },
        ],
        counters: vec![ReasonCount { reason: "no_endpoint".into(), count: 5 }],
    }
}

/// A server in a temporary directory.
pub struct Server {
    /// Its socket.
    pub path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
    _home: TempDir,
}

impl Server {
    /// Starts with the usual limits.
    pub fn start(view: FakeView) -> Self {
        Self::start_within(Limits::USUAL, view)
    }

    /// Starts with others.
    pub(in crate::control) fn start_within(limits: Limits, view: FakeView) -> Self {
        let home = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        let path = home.path().join("run/control.sock");
        std::fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let socket = Socket::bind(&path, None).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let task = tokio::spawn(serve_within(limits, socket, Arc::new(view), shutdown));
        Self { path, stop: Some(stop), task, _home: home }
    }

    /// Stops it and waits for its end.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.task).await.unwrap().unwrap();
        assert!(!self.path.exists());
    }
}
