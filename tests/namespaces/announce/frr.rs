//! The same with FRR, whose table import knows IPv4 alone.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use svc_tests::need;
use svc_tests::topology::{Host, World};

use super::{Daemon, Site, TABLE, announced_while_ready, handed_over};

const PROGRAMS: &str = "/usr/lib/frr";

/// zebra and bgpd with one configuration, ended with their owner.
struct Frr {
    processes: Vec<Child>,
    dir: PathBuf,
}

impl Frr {
    fn start(host: &Host, name: &str, config: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("{name}-frr-{}", host.name));
        fs::create_dir_all(&dir).unwrap();
        // They run as a user of their own.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        let file = dir.join("frr.conf");
        fs::write(&file, config).unwrap();
        let start = |program: &str| {
            let log = fs::File::create(dir.join(format!("{program}.log"))).unwrap();
            let mut command = Command::new(Path::new(PROGRAMS).join(program));
            command.arg("-f").arg(&file).arg("-i").arg(dir.join(format!("{program}.pid")));
            command.arg("-z").arg(dir.join("zserv.api")).arg("--vty_socket").arg(&dir).args(["-P", "0"]);
            command.args(["--log", "stdout"]);
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            host.ns.spawn(&mut command).unwrap()
        };
        Self { processes: ["zebra", "bgpd"].map(start).into(), dir }
    }
}

impl Daemon for Frr {
    fn log(&self) -> String {
        ["zebra.log", "bgpd.log"].map(|log| fs::read_to_string(self.dir.join(log)).unwrap_or_default()).concat()
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What `docs/addresses.md` tells operators to put on nodes, with the table's number.
fn node_config(node: &Host, router: &Host, number: u32) -> String {
    format!(
        "ip import-table {TABLE}\nrouter bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n \
         neighbor {router} remote-as 65000\n neighbor {router} timers connect 2\n address-family ipv4 unicast\n  \
         redistribute table {TABLE}\n exit-address-family\n",
        65_001 + number,
        node.v4,
        router = router.v4,
    )
}

fn router_config(router: &Host, nodes: &[Host]) -> String {
    let mut text = format!(
        "router bgp 65000\n bgp router-id {}\n no bgp ebgp-requires-policy\n bgp bestpath as-path multipath-relax\n",
        router.v4
    );
    for (number, node) in (65_001..).zip(nodes) {
        writeln!(text, " neighbor {0} remote-as {number}\n neighbor {0} timers connect 2", node.v4).unwrap();
        writeln!(text, " neighbor {} advertisement-interval 0", node.v4).unwrap();
    }
    text + " address-family ipv4 unicast\n  maximum-paths 8\n exit-address-family\n"
}

fn frrs(world: &World) -> Vec<Box<dyn Daemon>> {
    let router = &world.clients[1];
    let mut frrs: Vec<Box<dyn Daemon>> =
        vec![Box::new(Frr::start(router, &world.name, &router_config(router, &world.nodes)))];
    for (number, node) in (0..).zip(&world.nodes) {
        frrs.push(Box::new(Frr::start(node, &world.name, &node_config(node, router, number))));
    }
    frrs
}

fn ready(test: &str) -> bool {
    if !need::root(test) {
        return false;
    }
    let here = Path::new(PROGRAMS).join("bgpd").exists();
    if !here {
        need::skip(test, "needs FRR (Debian's package frr)");
    }
    here
}

#[test]
fn frr_announces_nodes_with_ready_backends_and_shares_the_traffic() {
    if ready("frr_announces_nodes_with_ready_backends_and_shares_the_traffic") {
        announced_while_ready(Site::start(&[], frrs, |addr| addr.is_ipv4()));
    }
}

#[test]
fn frr_hands_the_connections_of_a_node_that_leaves_over() {
    if ready("frr_hands_the_connections_of_a_node_that_leaves_over") {
        handed_over(&Site::start(&["--forwarding-mode", "dsr"], frrs, |addr| addr.is_ipv4()));
    }
}
