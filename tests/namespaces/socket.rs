//! Local processes and the socket hooks: a world whose node serves the sockets of one control group.

mod dial;
mod endpoints;
mod names;
mod scope;
mod upkeep;

use std::net::{IpAddr, SocketAddr, UdpSocket};

use svc_agent::control::api::Status;
use svc_tests::agent::Agent;
use svc_tests::answer::Answer;
use svc_tests::cgroup::{Cgroup, Process};
use svc_tests::manifest::Service;
use svc_tests::need;
use svc_tests::server::Server;
use svc_tests::topology::{Shape, World};

/// Enough questions that each of two backends answers one, but for one run in a billion.
const ENOUGH: usize = 30;

/// Everything that runs; it ends in the order of the fields.
struct Sockets {
    /// A process of the node.
    node: Process,
    agent: Agent,
    _servers: Vec<Server>,
    cgroup: Cgroup,
    world: World,
}

/// A node with two pods, unless this user may not.
fn sockets(test: &str, scope: &str) -> Option<Sockets> {
    sockets_with(test, scope, &|_| Vec::new())
}

/// The same, with further arguments for the agent.
fn sockets_with(test: &str, scope: &str, args: &dyn Fn(&World) -> Vec<String>) -> Option<Sockets> {
    if !need::root(test) {
        return None;
    }
    let world = World::build(Shape { nodes: 1, ..Shape::default() }).unwrap();
    let servers = world.start_servers().unwrap();
    let cgroup = Cgroup::create().unwrap();
    let own = ["--socket-lb", scope, "--cgroup", cgroup.path().to_str().unwrap()].map(str::to_owned);
    let args: Vec<String> = own.into_iter().chain(args(&world)).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let agent = Agent::start_with(world.node(0).unwrap(), &args).unwrap();
    let node = Process::start(&world.node(0).unwrap().ns, Some(&cgroup)).unwrap();
    Some(Sockets { node, agent, _servers: servers, cgroup, world })
}

impl Sockets {
    /// Makes a Service with every pod behind it, and waits until it works.
    fn serve(&self, service: Service) -> Service {
        let service = service.endpoints(&self.world.pods);
        self.agent.apply(&[&service]).unwrap();
        service
    }

    /// A process in a pod.
    fn pod(&self, index: usize) -> Process {
        Process::start(&self.world.pods[index].host.ns, Some(&self.cgroup)).unwrap()
    }

    fn counter(&self, reason: &str) -> u64 {
        let counters = self.agent.status().unwrap().counters;
        counters.iter().find(|counter| counter.reason == reason).map_or(0, |counter| counter.count)
    }

    /// Elements in `SOCKETS` and `SOCKET_NAT`.
    fn remembered(&self) -> [u64; 2] {
        remembered(&self.agent.status().unwrap())
    }

    /// Waits until nothing is known of any socket: a process that another test is just starting holds copies of all open
    /// sockets of this one, until it runs its program.
    fn wait_until_forgotten(&self) {
        self.agent.wait("all sockets to be forgotten", |agent| Ok(remembered(&agent.status()?) == [0, 0])).unwrap();
    }
}

fn remembered(status: &Status) -> [u64; 2] {
    ["SOCKETS", "SOCKET_NAT"].map(|name| status.maps.iter().find(|map| map.name == name).unwrap().used.unwrap())
}

/// What a process may dial for each address: the address itself, and an IPv4 one mapped into IPv6 as well (B49).
fn spellings(dialled: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mapped = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(v4) => Some(SocketAddr::new(v4.to_ipv6_mapped().into(), addr.port())),
        IpAddr::V6(_) => None,
    };
    dialled.into_iter().flat_map(|addr| [Some(addr), mapped(addr)]).flatten().collect()
}

/// Sends a question and reads the answer with its sender.
fn ask(socket: &UdpSocket, to: SocketAddr, text: &str) -> std::io::Result<(Answer, SocketAddr)> {
    socket.send_to(text.as_bytes(), to)?;
    hear(socket)
}

fn hear(socket: &UdpSocket) -> std::io::Result<(Answer, SocketAddr)> {
    let mut buffer = [0; 2048];
    let (len, from) = socket.recv_from(&mut buffer)?;
    Ok((String::from_utf8_lossy(&buffer[..len]).parse().unwrap(), from))
}

/// An address as it is on the wire.
fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
