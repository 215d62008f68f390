//! The node that the packet tests run on: its devices and routes in the kernel, and the same on the host.

use std::{net::IpAddr, process::Command};

use svc_agent::kernel::Version;
use svc_common::{
    env::{NextHop, Route},
    host::Prefix,
    maps::{Config, Device, device_class, device_flags},
    net::Mac,
};

use super::{NODE, Oracle, POD_MAC, ROUTER_MAC, UPLINK, UPLINK_MAC, WORKLOAD, WORKLOAD_MAC};

/// The node of the packet tests: a network namespace without a name, which ends with the thread that made it.
const WORLD: &str = "
    link set lo up
    link add up0 address 02:00:00:00:00:10 type veth peer name up1 address 02:00:00:00:00:20
    link add wl0 address 02:00:00:00:00:30 type veth peer name wl1 address 02:00:00:00:00:40
    link set up0 up
    link set up1 up
    link set wl0 up
    link set wl1 up
    addr add 192.0.2.10/24 dev up0
    addr add 2001:db8::10/64 dev up0 nodad
    neigh add 192.0.2.20 lladdr 02:00:00:00:00:20 dev up0 nud permanent
    neigh add 2001:db8::20 lladdr 02:00:00:00:00:20 dev up0 nud permanent
    route add default via 192.0.2.20 dev up0
    route add default via 2001:db8::20 dev up0
    route add 10.244.1.0/24 dev wl0
    route add fd00:244:1::/64 dev wl0
    neigh add 10.244.1.5 lladdr 02:00:00:00:00:40 dev wl0 nud permanent
    neigh add fd00:244:1::5 lladdr 02:00:00:00:00:40 dev wl0 nud permanent
    route add 10.244.3.0/24 via 192.0.2.30 dev up0
    route add fd00:244:3::/64 via 2001:db8::30 dev up0
";

/// Destinations whose router the kernel does not know at first.
const UNRESOLVED: [&str; 2] = ["10.244.3.5", "fd00:244:3::5"];

/// Makes devices, addresses, routes and neighbours in the namespace of this thread.
pub(super) fn lay_out() {
    for line in WORLD.lines().map(str::trim).filter(|line| !line.is_empty()) {
        ip(line);
    }
    for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{key}"), "1").expect("sysctl");
    }
    // Registers the receive queues, without which no test run may name the device.
    for device in [UPLINK, WORKLOAD] {
        let status = Command::new("ethtool").args(["-K", device, "gro", "on"]).status().expect("ethtool");
        assert!(status.success(), "ethtool -K {device} gro on");
    }
}

fn ip(arguments: &str) {
    let family = if arguments.contains("fd00") || arguments.contains("2001") { "-6" } else { "-4" };
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    let status = Command::new("ip").arg(family).args(&arguments).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {family} {}", arguments.join(" "));
}

impl Oracle {
    pub(super) fn build_world(&mut self) {
        let v4: std::net::Ipv4Addr = NODE.0.parse().expect("IPv4");
        let v6: std::net::Ipv6Addr = NODE.1.parse().expect("IPv6");
        for (name, class, mac) in
            [(UPLINK, device_class::UPLINK, UPLINK_MAC), (WORKLOAD, device_class::WORKLOAD, WORKLOAD_MAC)]
        {
            let ifindex = match &self.kernel {
                Some(_) => nix::net::if_::if_nametoindex(name).expect("the device was made"),
                None => 10 + u32::from(class),
            };
            self.devices.insert(name, ifindex);
            self.set_device(
                ifindex,
                Device {
                    class,
                    flags: if class == device_class::UPLINK { device_flags::XDP_TARGET } else { 0 },
                    mtu: 1500,
                    mac: Mac(mac),
                    pad: [0; 2],
                    v4: v4.octets(),
                    v6: v6.octets(),
                },
            );
        }
        self.set_config(Config { epoch: 1, snat_port_min: 1024, snat_port_max: 29_999, ..Config::default() });
        let router = self.hop(UPLINK, UPLINK_MAC, ROUTER_MAC);
        let pod = self.hop(WORKLOAD, WORKLOAD_MAC, POD_MAC);
        self.memory.v4.default_route = router;
        self.memory.v6.default_route = router;
        if Version::running() >= Version::ROUTE_SOURCE {
            (self.memory.v4.source, self.memory.v6.source) = (v4.octets(), v6.octets());
        }
        for node in [NODE.0, NODE.1, "::1"] {
            self.set_route(node, Route::Stack);
        }
        let unknown = NextHop { ifindex: self.ifindex(WORKLOAD), mtu: 1500, ..NextHop::default() };
        // The networks of the routes above; the destinations in them that are known otherwise are on their own.
        let beyond = Route::Via(NextHop { ifindex: self.ifindex(UPLINK), mtu: 1500, ..NextHop::default() });
        let pods = Route::Via(unknown);
        self.memory.v4.prefixes =
            [([127, 0, 0, 0], 8, Route::Stack), ([10, 244, 1, 0], 24, pods), ([192, 0, 2, 0], 24, beyond)]
                .map(|(addr, bits, route)| Prefix { addr, bits, route })
                .to_vec();
        let v6 = |addr: &str| addr.parse::<std::net::Ipv6Addr>().expect("IPv6").octets();
        self.memory.v6.prefixes = [(v6("fd00:244:1::"), 64, pods), (v6("2001:db8::"), 64, beyond)]
            .map(|(addr, bits, route)| Prefix { addr, bits, route })
            .to_vec();
        let v6 = ["fd00:244:1::6", "fd00:244:1::7", "fd00:244:1::8"];
        for pod in ["10.244.1.6", "10.244.1.7", "10.244.1.8", "10.244.1.9"].into_iter().chain(v6) {
            self.set_route(pod, Route::Via(unknown));
        }
        for inside in ["10.244.1.5", "fd00:244:1::5"] {
            self.set_route(inside, pod);
        }
        self.unresolve();
    }

    fn hop(&self, device: &str, src_mac: [u8; 6], dst_mac: [u8; 6]) -> Route {
        Route::Via(NextHop { ifindex: self.ifindex(device), mtu: 1500, dst_mac: Mac(dst_mac), src_mac: Mac(src_mac) })
    }

    fn set_route(&mut self, dst: &str, route: Route) {
        match dst.parse().expect("an address") {
            IpAddr::V4(dst) => self.memory.v4.routes.insert(dst.octets(), route),
            IpAddr::V6(dst) => self.memory.v6.routes.insert(dst.octets(), route),
        };
    }

    /// The kernel learns the neighbours of the routes that have none, and so does the host.
    pub fn learn_neighbours(&mut self) {
        if std::mem::replace(&mut self.knows_neighbours, true) {
            return;
        }
        for neighbour in self.neighbours() {
            ip(&format!("neigh replace {neighbour} lladdr 02:00:00:00:00:20 dev {UPLINK} nud permanent"));
        }
        let router = self.hop(UPLINK, UPLINK_MAC, ROUTER_MAC);
        for dst in UNRESOLVED {
            self.set_route(dst, router);
        }
    }

    /// The reverse of [`Oracle::learn_neighbours`].
    pub fn forget_neighbours(&mut self) {
        if !std::mem::replace(&mut self.knows_neighbours, false) {
            return;
        }
        for neighbour in self.neighbours() {
            ip(&format!("neigh del {neighbour} dev {UPLINK}"));
        }
        self.unresolve();
    }

    /// The routers that [`UNRESOLVED`] is behind, as far as there is a kernel to be told.
    fn neighbours(&self) -> &'static [&'static str] {
        if self.kernel.is_some() { &["192.0.2.30", "2001:db8::30"] } else { &[] }
    }

    fn unresolve(&mut self) {
        let hop = NextHop { ifindex: self.ifindex(UPLINK), mtu: 1500, ..NextHop::default() };
        for dst in UNRESOLVED {
            self.set_route(dst, Route::Via(hop));
        }
    }
}
