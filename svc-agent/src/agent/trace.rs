//! `svcctl trace`: a packet through a copy of the kernel programs, and the words for what they did.
//!
//! The facts are from the maps: what the copy recorded, counted and put into the frame. Names are from the agent.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, bail};
use aya::Pod;
use aya::maps::HashMap;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use svc_common::family::{Family, V4, V6};
use svc_common::flow::partner_key;
use svc_common::maps::{
    Affinity, AffinityKey, Backend, Flow, Frontend, FrontendKey, MapSpec, Tuple, backend_flags, flow_flags,
    frontend_flags, spec,
};
use svc_common::net::{Be16, proto};
use svc_common::packet::Hook;

use super::view::AgentView;
use crate::attach::trial::Trial;
use crate::control::api::{
    BackendState, Device, DeviceClass, FrontendKind, NextHop, Protocol, ServiceRef, Trace, TraceRequest, TracedBackend,
    TracedFrontend, TracedHook, Translation, XdpMode,
};
use crate::kernel::Version;
use crate::sys::ethtool;

/// The maps of one family, and its addresses.
trait InMaps: Family {
    const FRONTENDS: MapSpec;
    const FLOWS: MapSpec;
    const EMBRYOS: MapSpec;
    const AFFINITY: MapSpec;

    fn addr(ip: IpAddr) -> Option<Self::Addr>;
    fn ip(addr: Self::Addr) -> IpAddr;
    fn backend(view: &AgentView, id: u32) -> Option<Backend<Self::Addr>>;
}

impl InMaps for V4 {
    const FRONTENDS: MapSpec = spec::FRONTENDS_V4;
    const FLOWS: MapSpec = spec::FLOWS_V4;
    const EMBRYOS: MapSpec = spec::EMBRYOS_V4;
    const AFFINITY: MapSpec = spec::AFFINITY_V4;

    fn addr(ip: IpAddr) -> Option<[u8; 4]> {
        if let IpAddr::V4(ip) = ip { Some(ip.octets()) } else { None }
    }

    fn ip(addr: [u8; 4]) -> IpAddr {
        addr.into()
    }

    fn backend(view: &AgentView, id: u32) -> Option<Backend<[u8; 4]>> {
        view.store.backend_v4(id)
    }
}

impl InMaps for V6 {
    const FRONTENDS: MapSpec = spec::FRONTENDS_V6;
    const FLOWS: MapSpec = spec::FLOWS_V6;
    const EMBRYOS: MapSpec = spec::EMBRYOS_V6;
    const AFFINITY: MapSpec = spec::AFFINITY_V6;

    fn addr(ip: IpAddr) -> Option<[u8; 16]> {
        if let IpAddr::V6(ip) = ip { Some(ip.octets()) } else { None }
    }

    fn ip(addr: [u8; 16]) -> IpAddr {
        addr.into()
    }

    fn backend(view: &AgentView, id: u32) -> Option<Backend<[u8; 16]>> {
        view.store.backend_v6(id)
    }
}

/// Asks.
pub(super) fn trace(view: &AgentView, request: &TraceRequest) -> anyhow::Result<Trace> {
    if request.source.is_ipv4() { trace_in::<V4>(view, request) } else { trace_in::<V6>(view, request) }
}

fn trace_in<F: InMaps>(view: &AgentView, request: &TraceRequest) -> anyhow::Result<Trace>
where
    Tuple<F::Addr>: Pod,
    Flow<F::Addr>: Pod,
    FrontendKey<F::Addr>: Pod,
    AffinityKey<F::Addr>: Pod,
{
    let (source, destination) = (request.source, request.destination);
    let (Some(src), Some(dst)) = (F::addr(source.ip()), F::addr(destination.ip())) else {
        bail!("source and destination are of different families");
    };
    let devices = view.published.devices.get();
    let device = device(&devices, request.device.as_deref())?;
    let protocol = match request.protocol {
        Protocol::Tcp => proto::TCP,
        Protocol::Udp => proto::UDP,
        Protocol::Sctp => bail!("only packets of TCP and UDP can be traced"),
    };
    let (sport, dport) = (Be16::from_host(source.port()), Be16::from_host(destination.port()));
    let key = Tuple { src, dst, sport, dport, proto: protocol, pad: [0; 3] };
    let live = live::<F>(view, &key)?;
    // The answers of a connection without source NAT are translated where they leave.
    let answers = live.as_ref().is_some_and(|live| live.flow.flags & flow_flags::EGRESS != 0);
    let hooks: &[Hook] = match (answers, device.xdp.mode) {
        (true, _) => &[Hook::Egress],
        (false, XdpMode::Off) => &[Hook::Ingress],
        // Ingress does the same with whatever XDP leaves to it.
        (false, _) if Version::running() < Version::XDP_QUESTIONS => &[Hook::Ingress],
        (false, XdpMode::Native | XdpMode::Generic) => &[Hook::Xdp, Hook::Ingress],
    };
    let veth = ethtool::driver(&device.name).is_ok_and(|driver| driver == "veth");
    let mut trial = Trial::load(&view.pins, hooks, veth)?;
    if let Some(live) = &live {
        live.give::<F>(&mut trial, &key)?;
    }
    let frontend: Option<Frontend> = trial.get(&F::FRONTENDS, &FrontendKey::dialled(&key));
    if let Some(frontend) = frontend {
        seed_affinity::<F>(view, &mut trial, src, &frontend)?;
    }

    // What opens a connection, or goes on with the one there is.
    let syn = live.is_none() && protocol == proto::TCP;
    let sent = packet(device, source, destination, protocol, syn)?;
    let (hooks, after) = run(&trial, hooks, device.ifindex, &sent)?;

    let flow: Option<Flow<F::Addr>> = trial.get(&F::FLOWS, &key).or_else(|| trial.get(&F::EMBRYOS, &key));
    let counted = trial.counted()?.iter().map(|reason| reason.code().to_owned()).collect::<Vec<_>>();
    let translation = (after != sent).then(|| addresses(&after)).flatten();
    let redirected = hooks.last().is_some_and(|hook| hook.verdict.contains("REDIRECT") || hook.verdict == "XDP_TX");
    let next_hop = flow.filter(|flow| redirected && flow.ifindex != 0).map(|flow| NextHop {
        ifindex: flow.ifindex,
        device: devices.iter().find(|device| device.ifindex == flow.ifindex).map(|device| device.name.clone()),
        mac: flow.is_resolved().then(|| flow.dst_mac.to_string()),
    });
    let backend = flow.filter(|_| translation.is_some()).and_then(|flow| {
        F::backend(view, flow.backend).map(|backend| TracedBackend {
            id: flow.backend,
            address: SocketAddr::new(F::ip(backend.addr), backend.port.to_host()),
            state: BackendState::from_flags(backend.flags),
            local: backend.flags & backend_flags::LOCAL != 0,
        })
    });
    let peer = flow.is_some_and(|flow| flow.flags & flow_flags::HOP_PEER != 0);
    let verdict = verdict(&hooks, translation.as_ref(), request, next_hop.as_ref(), peer, &counted);
    Ok(Trace {
        protocol: request.protocol,
        source,
        destination,
        device: device.name.clone(),
        class: device.class,
        packet: match (protocol, syn) {
            (proto::TCP, true) => "SYN",
            (proto::TCP, false) => "ACK",
            _ => "datagram",
        }
        .into(),
        flow: live.map(|live| if live.established { "established" } else { "half-open" }.into()),
        frontend: frontend.map(|frontend| view.traced_frontend(&frontend, device.class)).transpose()?,
        backend,
        translation,
        next_hop,
        hooks,
        counted,
        verdict,
    })
}

/// The device of that name, or the first uplink.
fn device<'a>(devices: &'a [Device], name: Option<&str>) -> anyhow::Result<&'a Device> {
    let found = match name {
        Some(name) => devices.iter().find(|device| device.name == name),
        None => devices.iter().filter(|device| device.class == DeviceClass::Uplink).min_by_key(|device| &device.name),
    };
    found.with_context(|| {
        let known: Vec<_> = devices.iter().map(|device| format!("`{}`", device.name)).collect();
        let what = name.map_or_else(|| "uplink".to_owned(), |name| format!("device `{name}`"));
        format!("there is no {what}; name one with --device: {}", known.join(", "))
    })
}

/// The live flow of a packet.
struct Live<A> {
    established: bool,
    flow: Flow<A>,
    /// Its other direction.
    partner: Option<(Tuple<A>, Flow<A>)>,
}

fn live<F: InMaps>(view: &AgentView, key: &Tuple<F::Addr>) -> anyhow::Result<Option<Live<F::Addr>>>
where
    Tuple<F::Addr>: Pod,
    Flow<F::Addr>: Pod,
{
    for (map, established) in [(F::FLOWS, true), (F::EMBRYOS, false)] {
        let table: HashMap<_, Tuple<F::Addr>, Flow<F::Addr>> = HashMap::try_from(view.maps.map(&map)?)?;
        let Ok(flow) = table.get(key, 0) else { continue };
        let partner = partner_key(&flow, key.proto);
        let partner = table.get(&partner, 0).ok().map(|flow| (partner, flow));
        return Ok(Some(Live { established, flow, partner }));
    }
    Ok(None)
}

impl<A: Copy> Live<A> {
    /// Gives it to the copy.
    fn give<F: InMaps<Addr = A>>(&self, trial: &mut Trial, key: &Tuple<A>) -> anyhow::Result<()>
    where
        Tuple<A>: Pod,
        Flow<A>: Pod,
    {
        let table = if self.established { F::FLOWS } else { F::EMBRYOS };
        trial.insert(&table, key, &self.flow)?;
        match &self.partner {
            Some((key, flow)) => trial.insert(&table, key, flow),
            None => Ok(()),
        }
    }
}

/// Gives the copy the backend that the client has, if the service remembers.
fn seed_affinity<F: InMaps>(
    view: &AgentView,
    trial: &mut Trial,
    client: F::Addr,
    frontend: &Frontend,
) -> anyhow::Result<()>
where
    AffinityKey<F::Addr>: Pod,
{
    if frontend.flags & frontend_flags::AFFINITY == 0 {
        return Ok(());
    }
    let key = AffinityKey { client, service: frontend.service, generation: frontend.generation() };
    let table: HashMap<_, AffinityKey<F::Addr>, Affinity> = HashMap::try_from(view.maps.map(&F::AFFINITY)?)?;
    match table.get(&key, 0) {
        Ok(affinity) => trial.insert(&F::AFFINITY, &key, &affinity),
        Err(_) => Ok(()),
    }
}

/// The frame that asks.
fn packet(device: &Device, src: SocketAddr, dst: SocketAddr, protocol: u8, syn: bool) -> anyhow::Result<Vec<u8>> {
    let mac: Vec<u8> = device.mac.split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
    let mac: [u8; 6] = mac.try_into().unwrap_or_default();
    let eth = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0], mac);
    let ip = match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => eth.ipv4(src.octets(), dst.octets(), 64),
        (IpAddr::V6(src), IpAddr::V6(dst)) => eth.ipv6(src.octets(), dst.octets(), 64),
        _ => bail!("source and destination are of different families"),
    };
    let mut frame = Vec::new();
    if protocol == proto::TCP {
        let tcp = ip.tcp(src.port(), dst.port(), 0, u16::MAX);
        let tcp = if syn { tcp.syn() } else { tcp.ack(0) };
        tcp.write(&mut frame, &[])?;
    } else {
        ip.udp(src.port(), dst.port()).write(&mut frame, &[])?;
    }
    Ok(frame)
}

/// Runs the hooks that would see it, until one decides: their verdicts, and the frame afterwards.
fn run(trial: &Trial, hooks: &[Hook], ifindex: u32, sent: &[u8]) -> anyhow::Result<(Vec<TracedHook>, Vec<u8>)> {
    let mut seen = Vec::new();
    let mut frame = sent.to_vec();
    for hook in hooks {
        let (verdict, after) = trial.run(*hook, ifindex, &frame)?;
        let (hook, verdict, decided) = name(*hook, verdict);
        seen.push(TracedHook { hook: hook.into(), verdict });
        frame = after;
        if decided {
            break;
        }
    }
    Ok((seen, frame))
}

/// Hook and verdict as the kernel names them, and whether nothing of ours comes after it (linux/bpf.h, linux/pkt_cls.h).
fn name(hook: Hook, verdict: u32) -> (&'static str, String, bool) {
    let (hook, known) = match hook {
        Hook::Xdp => ("xdp", [(1, "XDP_DROP"), (2, "XDP_PASS"), (3, "XDP_TX"), (4, "XDP_REDIRECT")]),
        Hook::Ingress => ("tc ingress", TC),
        Hook::Egress => ("tc egress", TC),
    };
    let name = known.iter().find(|(value, _)| *value == verdict);
    let decided = !name.is_some_and(|(_, name)| ["XDP_PASS", "TC_ACT_UNSPEC"].contains(name));
    (hook, name.map_or_else(|| verdict.to_string(), |(_, name)| (*name).to_owned()), decided)
}

const TC: [(u32, &str); 4] =
    [(u32::MAX, "TC_ACT_UNSPEC"), (0, "TC_ACT_OK"), (2, "TC_ACT_SHOT"), (7, "TC_ACT_REDIRECT")];

/// Source and destination of a frame.
fn addresses(frame: &[u8]) -> Option<Translation> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (src, dst): (IpAddr, IpAddr) = match packet.net? {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Arp(_) => return None,
    };
    let (sport, dport) = match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        _ => (0, 0),
    };
    Some(Translation { source: SocketAddr::new(src, sport), destination: SocketAddr::new(dst, dport) })
}

/// All of it in a sentence.
fn verdict(
    hooks: &[TracedHook],
    translation: Option<&Translation>,
    request: &TraceRequest,
    next_hop: Option<&NextHop>,
    peer: bool,
    counted: &[String],
) -> String {
    let last = hooks.last().map_or("", |hook| hook.verdict.as_str());
    if last.ends_with("DROP") || last.ends_with("SHOT") {
        return format!("dropped: {}", counted.last().map_or("for no reason that is counted", String::as_str));
    }
    let Some(translation) = translation else { return "passed untouched: nothing of ours".into() };
    if translation.destination.ip() == request.source.ip() && translation.source.ip() == request.destination.ip() {
        return format!("answered by the datapath: {}", counted.last().map_or("", String::as_str));
    }
    let out_of = || {
        next_hop.map_or_else(
            || "a device".to_owned(),
            |hop| hop.device.as_ref().map_or_else(|| format!("device {}", hop.ifindex), |name| format!("`{name}`")),
        )
    };
    match last {
        "TC_ACT_UNSPEC" | "XDP_PASS" => "translated; the stack goes on with it".into(),
        _ if peer => format!("translated, and put into the pod behind {}", out_of()),
        _ => format!("translated, and sent out of {}", out_of()),
    }
}

impl AgentView {
    fn traced_frontend(&self, frontend: &Frontend, class: DeviceClass) -> anyhow::Result<TracedFrontend> {
        let external = class != DeviceClass::Workload;
        let selection = if external { frontend.external } else { frontend.internal };
        let key = self.programmed.service_port(frontend.service);
        let local = key.as_ref().and_then(|key| self.programmed.read().ports.get(key).and_then(|ids| ids.local));
        Ok(TracedFrontend {
            kind: match frontend.flags & frontend_flags::KIND {
                frontend_flags::CLUSTER_IP => FrontendKind::ClusterIp,
                frontend_flags::NODE_PORT => FrontendKind::NodePort,
                frontend_flags::LOAD_BALANCER => FrontendKind::LoadBalancer,
                _ => FrontendKind::ExternalIp,
            },
            service: key.as_ref().map(ServiceRef::from),
            external,
            local_set: local == Some(selection),
            selection,
            backends: self.shares(selection)?.len(),
            affinity_seconds: (frontend.flags & frontend_flags::AFFINITY != 0).then_some(frontend.affinity_s),
        })
    }
}
