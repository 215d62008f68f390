//! Routes for a routing daemon: BIRD or FRR on each node announces the addresses that its agent puts into a table, the same
//! daemon on a router spreads traffic over the nodes that announce the same.

mod frr;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use svc_tests::agent::Agent;
use svc_tests::client::{TcpClient, Transport};
use svc_tests::manifest::Service;
use svc_tests::need;
use svc_tests::server::Server;
use svc_tests::topology::{Host, LB_V4, LB_V6, Shape, World};

const TABLE: u32 = 99;
/// How long an announcement may take: BIRD looks at the kernel's table every few seconds.
const PATIENCE: Duration = Duration::from_secs(40);
const LEAVING: &str = "apiVersion: v1\nkind: Node\nmetadata:\n  name: node-0\n  labels: \
                       {node.kubernetes.io/exclude-from-external-load-balancers: \"\"}\n";

/// A routing daemon, ended with its owner.
trait Daemon {
    /// All that it said.
    fn log(&self) -> String;
}

/// BIRD.
struct Bird {
    process: Child,
    dir: PathBuf,
}

impl Bird {
    fn start(host: &Host, name: &str, config: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("{name}-bird-{}", host.name));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("bird.conf");
        fs::write(&file, config).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut bird = Command::new("bird");
        bird.arg("-f").arg("-c").arg(&file).arg("-s").arg(dir.join("ctl")).stdin(Stdio::null()).stderr(log);
        Self { process: host.ns.spawn(&mut bird).unwrap(), dir }
    }
}

impl Daemon for Bird {
    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A session of each family between two hosts. What is announced is in the tables `services4` and `services6`.
fn sessions(own: &Host, peer: &Host, (own_as, peer_as): (u32, u32), channel: &str) -> String {
    let mut text = String::new();
    let pairs = [("4", own.v4.to_string(), peer.v4.to_string()), ("6", own.v6.to_string(), peer.v6.to_string())];
    for (family, own_addr, peer_addr) in pairs {
        let name = peer.name.replace('-', "_");
        writeln!(
            text,
            "protocol bgp {name}_{family} {{\n  local {own_addr} as {own_as}; neighbor {peer_addr} as {peer_as};\n  \
             connect delay time 1; connect retry time 2; error wait time 1, 2;\n  \
             ipv{family} {{ table services{family}; {channel} }};\n}}"
        )
        .unwrap();
    }
    text
}

/// What `docs/addresses.md` tells operators to put on nodes, with the table's number.
fn node_config(node: &Host, router: &Host, number: u32) -> String {
    let id = node.v4;
    let mut text = format!(
        "log stderr all;\nrouter id {id};\nipv4 table services4;\nipv6 table services6;\nprotocol device {{ scan time 1; }}\n"
    );
    for family in [4, 6] {
        writeln!(
            text,
            "protocol kernel services_{family} {{\n  kernel table {TABLE}; learn; scan time 1;\n  \
             ipv{family} {{ table services{family}; import all; export none; }};\n}}"
        )
        .unwrap();
    }
    text + &sessions(node, router, (65_001 + number, 65_000), "import none; export all; next hop self;")
}

fn router_config(router: &Host, nodes: &[Host]) -> String {
    let id = router.v4;
    let mut text = format!(
        "log stderr all;\nrouter id {id};\nipv4 table services4;\nipv6 table services6;\nprotocol device {{ scan time 1; }}\n"
    );
    for family in [4, 6] {
        writeln!(
            text,
            "protocol kernel main_{family} {{\n  merge paths yes; scan time 1;\n  \
             ipv{family} {{ table services{family}; import none; export all; }};\n}}"
        )
        .unwrap();
    }
    for (number, node) in (0..).zip(nodes) {
        text += &sessions(router, node, (65_000, 65_001 + number), "import all; export none;");
    }
    text
}

/// BIRD on the router, which is the second client, and on the nodes.
fn birds(world: &World) -> Vec<Box<dyn Daemon>> {
    let router = &world.clients[1];
    let mut birds: Vec<Box<dyn Daemon>> =
        vec![Box::new(Bird::start(router, &world.name, &router_config(router, &world.nodes)))];
    for (number, node) in (0..).zip(&world.nodes) {
        birds.push(Box::new(Bird::start(node, &world.name, &node_config(node, router, number))));
    }
    birds
}

/// A client behind a router, nodes with agents, and a routing daemon on router and nodes.
struct Site {
    daemons: Vec<Box<dyn Daemon>>,
    /// The families that the daemon announces.
    families: fn(&IpAddr) -> bool,
    agents: Vec<Agent>,
    _servers: Vec<Server>,
    world: World,
}

impl Site {
    fn start(args: &[&str], daemons: fn(&World) -> Vec<Box<dyn Daemon>>, families: fn(&IpAddr) -> bool) -> Self {
        let world = World::build(Shape { clients: 2, ..Shape::default() }).unwrap();
        let [client, router] = [&world.clients[0], &world.clients[1]];
        for (key, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            // Connections of one client to one address go several ways.
            ("net/ipv4/fib_multipath_hash_policy", "1"),
            ("net/ipv6/fib_multipath_hash_policy", "1"),
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/eth0/send_redirects", "0"),
        ] {
            router.ns.sysctl(key, value).unwrap();
        }
        client.ns.sysctl("net/ipv6/conf/eth0/accept_redirects", "0").unwrap();
        // What is not announced goes nowhere.
        router.ns.ip(&format!("route del {LB_V4}\nroute del {LB_V6}")).unwrap();
        client
            .ns
            .ip(&format!("route replace {LB_V4} via {}\nroute replace {LB_V6} via {}", router.v4, router.v6))
            .unwrap();
        let servers = world.start_servers().unwrap();
        let table = TABLE.to_string();
        let args: Vec<_> = args.iter().copied().chain(["--route-table", &table]).collect();
        let agents: Vec<_> = world.nodes.iter().map(|node| Agent::start_with(node, &args).unwrap()).collect();
        Self { daemons: daemons(&world), families, agents, _servers: servers, world }
    }

    fn apply(&self, service: &Service) {
        for agent in &self.agents {
            agent.apply(&[service]).unwrap();
        }
    }

    /// Waits until the router sends what is for the Service to these nodes.
    #[track_caller]
    fn wait_for_routes(&self, service: &Service, nodes: &[usize]) {
        let wanted: BTreeSet<String> =
            nodes.iter().flat_map(|node| self.of_families(self.world.nodes[*node].addresses())).collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found: BTreeSet<String> = service.lb_ips().iter().flat_map(|addr| self.next_hops(*addr)).collect();
            if found == wanted {
                return;
            }
            if Instant::now() > deadline {
                let logs: Vec<_> = self.daemons.iter().map(|daemon| daemon.log()).collect();
                panic!("routes by {found:?}, expected {wanted:?}\n{}", logs.join("\n--\n"));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn of_families(&self, addresses: [IpAddr; 2]) -> impl Iterator<Item = String> {
        addresses.into_iter().filter(self.families).map(|addr| addr.to_string())
    }

    /// The Service's sockets at a port that the router knows a way to.
    fn lb(&self, service: &Service) -> Vec<SocketAddr> {
        service.lb(7).into_iter().filter(|to| (self.families)(&to.ip())).collect()
    }

    fn next_hops(&self, addr: IpAddr) -> Vec<String> {
        let mut ip = Command::new("ip");
        ip.args([if addr.is_ipv4() { "-4" } else { "-6" }, "route", "show", &addr.to_string()]);
        let output = self.world.clients[1].ns.output(&mut ip).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        words.windows(2).filter(|pair| pair[0] == "via").map(|pair| pair[1].to_owned()).collect()
    }

    /// The pods that answer a number of connections.
    fn pods(&self, service: &Service) -> BTreeSet<String> {
        let client = &self.world.clients[0].ns;
        let ask = |to| (0..30).map(move |n| Transport::Tcp.ask(client, to, &n.to_string()).unwrap().pod);
        self.lb(service).into_iter().flat_map(ask).collect()
    }
}

fn ready(test: &str) -> bool {
    if !need::root(test) {
        return false;
    }
    let here = ["/usr/sbin/bird", "/usr/bin/bird"].iter().any(|path| Path::new(path).exists());
    if !here {
        need::skip(test, "needs BIRD (Debian's package bird2)");
    }
    here
}

#[test]
fn nodes_with_ready_backends_are_announced_and_share_the_traffic() {
    if !ready("nodes_with_ready_backends_are_announced_and_share_the_traffic") {
        return;
    }
    announced_while_ready(Site::start(&[], birds, |_| true));
}

fn announced_while_ready(site: Site) {
    let service = Service::new("web", 1).echo().load_balancer().spec("externalTrafficPolicy: Local");
    let everywhere = service.clone().endpoints(&site.world.pods);
    site.apply(&everywhere);
    site.wait_for_routes(&service, &[0, 1]);
    let pods = site.pods(&service);
    assert!(["pod-0", "pod-1"].iter().all(|node| pods.iter().any(|pod| pod.starts_with(node))), "{pods:?}");

    // Without a backend of its own a node attracts nothing any more, nor with one that is on its way out.
    site.apply(&service.clone().endpoints(site.world.pods_of(0)));
    site.wait_for_routes(&service, &[0]);
    assert!(site.pods(&service).iter().all(|pod| pod.starts_with("pod-0")));
    let mut draining = everywhere.clone();
    for endpoint in draining.endpoints.iter_mut().filter(|endpoint| endpoint.node == "node-0") {
        (endpoint.ready, endpoint.terminating) = (false, true);
    }
    site.apply(&draining);
    site.wait_for_routes(&service, &[1]);
    assert!(site.pods(&service).iter().all(|pod| pod.starts_with("pod-1")));

    // An agent that dies leaves its routes, as it leaves the datapath; one that is cleaned up does not.
    let mut site = site;
    site.agents[1].kill().unwrap();
    thread::sleep(Duration::from_secs(3));
    site.wait_for_routes(&service, &[1]);
    assert!(site.pods(&service).iter().all(|pod| pod.starts_with("pod-1")));
    site.agents[1].cleanup().unwrap();
    site.wait_for_routes(&service, &[]);
}

#[test]
fn a_node_that_leaves_hands_over_without_a_lost_connection() {
    if !ready("a_node_that_leaves_hands_over_without_a_lost_connection") {
        return;
    }
    handed_over(&Site::start(&["--forwarding-mode", "dsr"], birds, |_| true));
}

fn handed_over(site: &Site) {
    let service = Service::new("web", 1).echo().load_balancer().endpoints(&site.world.pods);
    site.apply(&service);
    site.wait_for_routes(&service, &[0, 1]);
    let client = &site.world.clients[0].ns;
    let mut open: Vec<_> = (0..20)
        .map(|n| {
            let addresses = site.lb(&service);
            let mut connection = TcpClient::connect(client, addresses[n % addresses.len()]).unwrap();
            let pod = connection.ask("before").unwrap().pod;
            (connection, pod)
        })
        .collect();
    site.agents[0].write("node.yaml", LEAVING).unwrap();
    site.wait_for_routes(&service, &[1]);
    for (connection, pod) in &mut open {
        assert_eq!(connection.ask("after").unwrap().pod, *pod);
    }
    // It comes back.
    site.agents[0].remove("node.yaml").unwrap();
    site.wait_for_routes(&service, &[0, 1]);
    for (connection, pod) in &mut open {
        assert_eq!(connection.ask("again").unwrap().pod, *pod);
    }
}
