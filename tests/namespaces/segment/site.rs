//! Nodes and clients on one segment, which the load balancers' addresses belong to, too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use svc_agent::announce::segment::elect::{Peer, Ranking};
use svc_agent::control::api::Segment;
use svc_tests::agent::Agent;
use svc_tests::manifest::Service;
use svc_tests::need;
use svc_tests::server::Server;
use svc_tests::topology::{Host, LB_V4, LB_V6, Shape, World};

/// How long a take-over may take: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Site {
    pub agents: Vec<Agent>,
    _servers: Vec<Server>,
    pub world: World,
}

/// The Node object of a node, with further lines of its metadata.
pub fn node(host: &Host, metadata: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {}\n{metadata}status:\n  addresses:\n    \
         - {{type: InternalIP, address: {}}}\n    - {{type: InternalIP, address: \"{}\"}}\n",
        host.name, host.v4, host.v6
    )
}

impl Site {
    /// Two nodes whose agents answer on `eth0` for what is in the pools, and two clients.
    pub fn start(args: &[&str]) -> Self {
        let world = World::build(Shape { clients: 2, ..Shape::default() }).unwrap();
        for client in &world.clients {
            client.ns.ip(&format!("route del {LB_V4}\nroute del {LB_V6}")).unwrap();
        }
        for (number, host) in (201..).zip(world.nodes.iter().chain(&world.clients)) {
            host.ns
                .ip(&format!("addr add 192.168.60.{number}/24 dev eth0\naddr add fd00:60::{number}/64 dev eth0 nodad"))
                .unwrap();
        }
        let servers = world.start_servers().unwrap();
        // Neither the network nor anything else that nodes are called by.
        let pools = "192.168.60.1-192.168.60.99,fd00:60::1-fd00:60::50";
        let args = [&["--announce-devices", "eth0", "--load-balancer-pools", pools], args].concat();
        let agents: Vec<_> = world
            .nodes
            .iter()
            .map(|host| {
                let mut agent = Agent::prepare(host, &args).unwrap();
                world
                    .nodes
                    .iter()
                    .for_each(|host| agent.write(&format!("{}.yaml", host.name), &node(host, "")).unwrap());
                agent.spawn().unwrap();
                agent.wait_until_ready().unwrap();
                agent
            })
            .collect();
        Self { agents, _servers: servers, world }
    }

    pub fn apply(&self, services: &[Service]) {
        let services: Vec<_> = services.iter().collect();
        self.agents.iter().for_each(|agent| agent.apply(&services).unwrap());
    }

    /// Who answers for what, by the nodes' own word.
    pub fn holders(&self) -> BTreeMap<IpAddr, Vec<usize>> {
        let mut holders: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (number, agent) in self.agents.iter().enumerate().filter(|(_, agent)| agent.pid().is_some()) {
            for addr in segment(agent).held {
                holders.entry(addr).or_default().push(number);
            }
        }
        holders
    }

    /// Waits until these addresses have one holder each, of these nodes.
    #[track_caller]
    pub fn wait_for_holders(&self, addresses: &[IpAddr], nodes: &[usize]) {
        let wanted: BTreeSet<IpAddr> = addresses.iter().copied().collect();
        until(&format!("{wanted:?} at {nodes:?}"), || {
            let holders = self.holders();
            let single = holders.values().all(|holders| holders.len() == 1 && nodes.contains(&holders[0]));
            if single && holders.keys().copied().collect::<BTreeSet<_>>() == wanted {
                Ok(())
            } else {
                Err(format!("{holders:?}"))
            }
        });
    }

    /// Who is to answer for what if every node would.
    pub fn elected(&self, addresses: &[IpAddr]) -> BTreeMap<IpAddr, usize> {
        let names: BTreeSet<String> = self.world.nodes.iter().map(|host| host.name.clone()).collect();
        let willing = addresses.iter().copied().collect();
        let mut elected = BTreeMap::new();
        for (number, name) in names.iter().enumerate() {
            let mut ranking = Ranking::new(name);
            ranking.set(names.clone());
            let held = ranking.elect(&willing, |_, _| Peer::Willing).held;
            elected.extend(held.into_iter().map(|addr| (addr, number)));
        }
        elected
    }

    /// Waits until each address is answered for by this node alone.
    #[track_caller]
    pub fn wait_until_held(&self, wanted: &BTreeMap<IpAddr, usize>) {
        until(&format!("{wanted:?}"), || {
            let holders = self.holders();
            let is_so = holders.len() == wanted.len()
                && holders.iter().all(|(addr, holders)| holders.len() == 1 && holders.first() == wanted.get(addr));
            if is_so { Ok(()) } else { Err(format!("{holders:?}")) }
        });
    }

    /// Asks the segment who has an address: everybody who says so, by his hardware address. An announcement may be among
    /// the answers.
    pub fn ask(&self, client: usize, addr: IpAddr) -> BTreeSet<String> {
        let mut command = match addr {
            IpAddr::V4(addr) => {
                let mut arping = Command::new("arping");
                arping.args(["-r", "-c", "1", "-w", "2", "-i", "eth0", &addr.to_string()]);
                arping
            }
            IpAddr::V6(addr) => {
                let mut ndisc6 = Command::new("ndisc6");
                ndisc6.args(["-q", "-m", "-r", "1", "-w", "1000", &addr.to_string(), "eth0"]);
                ndisc6
            }
        };
        let output = self.world.clients[client].ns.output(&mut command).unwrap();
        let text = String::from_utf8(output.stdout).unwrap().to_lowercase();
        text.lines().map(str::trim).filter(|line| line.contains(':')).map(str::to_owned).collect()
    }

    pub fn mac(&self, node: usize) -> String {
        mac(&self.world.nodes[node])
    }

    /// Whom a client takes for the one that has the address.
    pub fn neighbour(&self, client: usize, addr: IpAddr) -> Option<String> {
        let text = said(&self.world.clients[client], "ip", &["neigh", "show", "to", &addr.to_string(), "dev", "eth0"]);
        after(&text, "lladdr")
    }
}

pub fn segment(agent: &Agent) -> Segment {
    agent.status().unwrap().segment.unwrap()
}

pub fn mac(host: &Host) -> String {
    after(&said(host, "ip", &["link", "show", "eth0"]), "link/ether").unwrap()
}

/// What a command says in a host's namespace.
pub fn said(host: &Host, program: &str, args: &[&str]) -> String {
    let output = host.ns.output(Command::new(program).args(args)).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn after(text: &str, word: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.windows(2).find(|pair| pair[0] == word).map(|pair| pair[1].to_lowercase())
}

/// Waits until it is so; what it is then.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(error) if Instant::now() > deadline => panic!("waited in vain for {what}: {error}"),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

pub fn ready(test: &str) -> bool {
    if !need::root(test) {
        return false;
    }
    let missing = ["arping", "ndisc6"].into_iter().find(|program| Command::new(program).arg("-h").output().is_err());
    if let Some(program) = missing {
        need::skip(test, &format!("needs {program} (Debian's package of that name)"));
    }
    missing.is_none()
}
