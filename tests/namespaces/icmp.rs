//! What networks tell about packets that were translated: that they are too long, that nobody listens, that their time is
//! over; and the question whether an address of a service is there.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use svc_tests::client::{self, PATIENCE, TcpClient, Transport};
use svc_tests::manifest::{Port, Service};
use svc_tests::need;
use svc_tests::netns::Netns;
use svc_tests::topology::Host;

use crate::cluster::{Cluster, Setting, in_every_setting};

/// Enough that path MTU discovery happens in the middle of it.
const DOWNLOAD: u64 = 10_000_000;

/// MTU of the narrow hop in bytes.
const NARROW: &str = "1300";

/// Runs a test in every setting, and where the stack forwards.
fn in_every_way(test: &str, run: impl Fn(&Cluster)) {
    in_every_setting(test, |cluster| run(&cluster));
    if need::root(test) {
        println!("setting: --forwarding kernel");
        run(&Cluster::start_with(Setting::Tc, &["--forwarding", "kernel"]));
    }
}

/// A Service with the server of one pod behind it, and a port at which nobody listens.
fn serve(cluster: &Cluster, pod: usize) -> Service {
    let closed = Port { name: "closed", transport: Transport::Udp, port: 9, target: 9_999, node_port: 30_009 };
    let service = Service::new("web", 1).http().echo().port(closed).load_balancer();
    let service = service.endpoints([&cluster.world.pods[pod]]);
    cluster.agent.apply(&[&service]).unwrap();
    service
}

/// Sends and receives much more than fits into one packet.
fn transfer(from: &Netns, http: SocketAddr, echo: SocketAddr) {
    // The upload first: after a download the server knows the path's MTU and asks for small segments itself.
    let line = "x".repeat(3_000_000);
    TcpClient::connect(from, echo).unwrap().ask(&line).unwrap();
    let download = client::connect(from, http).and_then(|stream| client::download(stream, DOWNLOAD, None));
    assert_eq!(download.unwrap(), DOWNLOAD, "download from {http}");
}

#[test]
fn b38_transfers_complete_through_a_narrow_hop_before_the_client() {
    in_every_way("b38_transfers_complete_through_a_narrow_hop_before_the_client", |cluster| {
        let world = &cluster.world;
        let near = cluster.client();
        let router = Netns::create(&format!("{}-router", world.name)).unwrap();
        let far = Netns::create(&format!("{}-far", world.name)).unwrap();
        for ns in [&near.ns, &router] {
            ns.sysctl("net/ipv4/ip_forward", "1").unwrap();
            ns.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        }
        near.ns
            .ip(&format!(
                "link add far0 mtu {NARROW} type veth peer name near0 mtu {NARROW} netns {}\nlink set far0 up\n\
                 addr add 10.70.0.1/24 dev far0\naddr add fd00:70::1/64 dev far0 nodad",
                router.name()
            ))
            .unwrap();
        router
            .ip(&format!(
                "link add far0 type veth peer name eth0 netns {}\nlink set far0 up\nlink set near0 up\n\
                 addr add 10.70.0.2/24 dev near0\naddr add fd00:70::2/64 dev near0 nodad\n\
                 addr add 10.71.0.1/24 dev far0\naddr add fd00:71::1/64 dev far0 nodad\n\
                 route add default via 10.70.0.1\nroute add default via fd00:70::1",
                far.name()
            ))
            .unwrap();
        far.ip("link set eth0 up\naddr add 10.71.0.2/24 dev eth0\naddr add fd00:71::2/64 dev eth0 nodad\n\
             route add default via 10.71.0.1\nroute add default via fd00:71::1")
            .unwrap();
        near.ns.ip("route add 10.71.0.0/24 via 10.70.0.2\nroute add fd00:71::/64 via fd00:70::2").unwrap();
        for node in &world.nodes {
            let back = format!("route add 10.71.0.0/24 via {}\nroute add fd00:71::/64 via {}", near.v4, near.v6);
            node.ns.ip(&back).unwrap();
        }
        for pod in [0, 2] {
            let service = serve(cluster, pod);
            for (http, echo) in service.lb(80).into_iter().zip(service.lb(7)) {
                println!("pod {pod}, {http}");
                transfer(&far, http, echo);
            }
        }
    });
}

#[test]
fn b39_transfers_complete_through_a_narrow_hop_between_the_nodes() {
    in_every_way("b39_transfers_complete_through_a_narrow_hop_between_the_nodes", |cluster| {
        let world = &cluster.world;
        let [node, other] = [&world.nodes[0], &world.nodes[1]];
        let router = Netns::create(&format!("{}-router", world.name)).unwrap();
        router.sysctl("net/ipv4/ip_forward", "1").unwrap();
        router.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        world
            .fabric
            .ip(&format!(
                "link add router type veth peer name eth0 netns {}\nlink set router master br0 up",
                router.name()
            ))
            .unwrap();
        router
            .ip(&format!(
                "link set eth0 up\naddr add 192.168.50.90/24 dev eth0\naddr add fd00:50::90/64 dev eth0 nodad\n\
                 link add narrow mtu {NARROW} type veth peer name eth1 mtu {NARROW} netns {}\nlink set narrow up\n\
                 addr add 10.72.0.1/24 dev narrow\naddr add fd00:72::1/64 dev narrow nodad",
                other.ns.name(),
            ))
            .unwrap();
        other
            .ns
            .ip(&format!(
                "link set eth1 up\naddr add 10.72.0.2/24 dev eth1\naddr add fd00:72::2/64 dev eth1 nodad\n\
                 route add {}/32 via 10.72.0.1\nroute add {}/128 via fd00:72::1\n\
                 route replace 10.244.0.0/24 via 10.72.0.1\nroute replace fd00:244::/64 via fd00:72::1",
                node.v4, node.v6
            ))
            .unwrap();
        router
            .ip(&format!(
                "route add 10.244.1.0/24 via 10.72.0.2\nroute add fd00:244:1::/64 via fd00:72::2\n\
                 route add 10.244.0.0/24 via {}\nroute add fd00:244::/64 via {}",
                node.v4, node.v6
            ))
            .unwrap();
        node.ns
            .ip("route replace 10.244.1.0/24 via 192.168.50.90\nroute replace fd00:244:1::/64 via fd00:50::90")
            .unwrap();
        let service = serve(cluster, 2);
        for (from, http, echo) in [
            (cluster.client(), service.lb(80), service.lb(7)),
            (cluster.pod(0), service.cluster(80), service.cluster(7)),
        ] {
            for (http, echo) in http.into_iter().zip(echo) {
                println!("{} to {http}", from.name);
                transfer(&from.ns, http, echo);
            }
        }
    });
}

#[test]
fn b41_transfers_complete_where_the_next_hop_of_the_node_itself_is_narrow() {
    in_every_way("b41_transfers_complete_where_the_next_hop_of_the_node_itself_is_narrow", |cluster| {
        let [node, other] = [&cluster.world.nodes[0], &cluster.world.nodes[1]];
        let client = cluster.client();
        node.ns
            .ip(&format!(
                "route replace 10.244.1.0/24 via {} mtu {NARROW}\nroute replace fd00:244:1::/64 via {} mtu {NARROW}\n\
                 route add {}/32 dev eth0 mtu {NARROW}\nroute add {}/128 dev eth0 mtu {NARROW}",
                other.v4, other.v6, client.v4, client.v6
            ))
            .unwrap();
        for pod in [0, 2] {
            let service = serve(cluster, pod);
            for (from, http, echo) in
                [(client, service.lb(80), service.lb(7)), (cluster.pod(1), service.cluster(80), service.cluster(7))]
            {
                for (http, echo) in http.into_iter().zip(echo) {
                    println!("{} to {http}, pod {pod}", from.name);
                    transfer(&from.ns, http, echo);
                }
            }
        }
    });
}

#[test]
fn b39_a_datagram_to_a_closed_port_is_refused() {
    in_every_way("b39_a_datagram_to_a_closed_port_is_refused", |cluster| {
        for pod in [0, 2] {
            let service = serve(cluster, pod);
            for (from, to) in [(cluster.client(), service.lb(9)), (cluster.pod(1), service.cluster(9))] {
                for to in to {
                    let socket = connected(from, to);
                    socket.send(b"hello").unwrap();
                    let error = socket.recv(&mut [0; 16]).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{} to {to}, pod {pod}: {error}", from.name);
                }
            }
        }
    });
}

#[test]
fn b39_a_router_behind_the_node_is_seen_by_a_trace() {
    in_every_way("b39_a_router_behind_the_node_is_seen_by_a_trace", |cluster| {
        let service = serve(cluster, 2);
        for (from, to) in [(cluster.client(), service.lb(7)), (cluster.pod(1), service.cluster(7))] {
            for to in to {
                let socket = connected(from, to);
                // One hop is this node, the next one the backend's node.
                if to.is_ipv4() {
                    setsockopt(&socket, sockopt::Ipv4RecvErr, &true).unwrap();
                    setsockopt(&socket, sockopt::Ipv4Ttl, &2).unwrap();
                } else {
                    setsockopt(&socket, sockopt::Ipv6RecvErr, &true).unwrap();
                    setsockopt(&socket, sockopt::Ipv6Ttl, &2).unwrap();
                }
                socket.send(b"hello").unwrap();
                let error = socket.recv(&mut [0; 64]).unwrap_err();
                let code = error.raw_os_error().map(Errno::from_raw);
                assert_eq!(code, Some(Errno::EHOSTUNREACH), "{} to {to}", from.name);
            }
        }
    });
}

#[test]
fn b43_a_vip_answers_ping() {
    in_every_setting("b43_a_vip_answers_ping", |cluster| {
        let service = serve(&cluster, 0);
        for (from, vips) in [(cluster.client(), service.lb_ips()), (cluster.pod(0), service.cluster_ips())] {
            for vip in vips {
                for size in ["0", "56", "1400"] {
                    let mut ping = Command::new("ping");
                    ping.args(["-n", "-c", "2", "-i", "0.2", "-W", "2", "-s", size, &vip.to_string()]);
                    let output = from.ns.output(&mut ping).unwrap();
                    let text = String::from_utf8_lossy(&output.stdout);
                    assert!(output.status.success() && text.contains("ttl=64"), "{}: {text}", from.name);
                }
            }
        }
        // The node answers for itself, and nobody for an address that is no service's.
        let ping = |addr: IpAddr| {
            let mut ping = Command::new("ping");
            ping.args(["-n", "-c", "1", "-W", "1", &addr.to_string()]);
            cluster.client().ns.output(&mut ping).unwrap().status.success()
        };
        for addr in cluster.world.nodes[0].addresses() {
            assert!(ping(addr), "{addr}");
        }
        for addr in service.lb_ips() {
            let unassigned = match addr {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(192, 168, 60, 200)),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0xfd00, 0x60, 0, 0, 0, 0, 0, 0x200)),
            };
            assert!(!ping(unassigned), "{unassigned}");
        }
    });
}

/// A UDP socket that learns of errors.
fn connected(from: &Host, to: SocketAddr) -> UdpSocket {
    let open = || -> std::io::Result<UdpSocket> {
        let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    from.ns.run(open).flatten().unwrap()
}
