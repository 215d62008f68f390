//! The kernel's own NAT as a judge: a router that translates by nftables, and the same packets through the pipeline. Whatever
//! leaves the router must be what the pipeline makes, but for the hop that the router counts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use etherparse::Ipv4Header;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use svc_agent::simulate;
use svc_common::net::proto;
use svc_common::outcome::Outcome;
use svc_common::packet::Hook;
use svc_tests::need;
use svc_tests::netns::Netns;
use svc_tests::oracle::{Oracle, UPLINK};
use svc_tests::packet::hex;
use svc_tests::scratch;

const CLIENT: [IpAddr; 2] = [v4(198, 51, 100, 7), v6([0x2001, 0xdb8, 7, 0, 0, 0, 0, 7])];
const VIP: [IpAddr; 2] = [v4(10, 96, 0, 10), v6([0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10])];
const BACKEND: [IpAddr; 2] = [v4(10, 244, 1, 5), v6([0xfd00, 0x244, 1, 0, 0, 0, 0, 5])];
/// What clients dial, and what the backend listens on.
const PORTS: (u16, u16) = (80, 8080);
/// Datagrams of each family; as many answers, and the segments of the connections, come on top.
const DATAGRAMS: u32 = 2_600;

const ROUTER: &str = "
    table inet nat {
        chain in {
            type nat hook prerouting priority dstnat
            ip daddr 10.96.0.10 meta l4proto { tcp, udp } th dport 80 dnat ip to 10.244.1.5:8080
            ip6 daddr fd00:96::10 meta l4proto { tcp, udp } th dport 80 dnat ip6 to [fd00:244:1::5]:8080
        }
    }
";

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(words: [u16; 8]) -> IpAddr {
    let [a, b, c, d, e, f, g, h] = words;
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
}

/// Client, router and backend, without offloads, so that captures show whole checksums.
struct World {
    client: Netns,
    router: Netns,
    backend: Netns,
}

impl World {
    fn build() -> Self {
        let name = scratch::name();
        let [client, router, backend] =
            ["client", "router", "backend"].map(|host| Netns::create(&format!("{name}-{host}")).unwrap());
        for (host, device, own, gateway) in [
            (&client, "in0", ["198.51.100.7/24", "2001:db8:7::7/64"], ["198.51.100.1", "2001:db8:7::1"]),
            (&backend, "out0", ["10.244.1.5/24", "fd00:244:1::5/64"], ["10.244.1.1", "fd00:244:1::1"]),
        ] {
            let (peer, bits) = (host.name(), [24, 64]);
            router
                .ip(&format!("link add {device} type veth peer name eth0 netns {peer}\nlink set {device} up"))
                .unwrap();
            host.ip("link set eth0 up").unwrap();
            for ((own, gateway), bits) in own.into_iter().zip(gateway).zip(bits) {
                router.ip(&format!("addr add {gateway}/{bits} dev {device}")).unwrap();
                host.ip(&format!("addr add {own} dev eth0\nroute add default via {gateway}")).unwrap();
            }
            for (ns, device) in [(host, "eth0"), (&router, device)] {
                ns.offload(device, &["tx", "off", "gso", "off", "tso", "off", "gro", "off"]).unwrap();
            }
        }
        router.sysctl("net/ipv4/ip_forward", "1").unwrap();
        router.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        let mut nft = router.spawn(Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped())).unwrap();
        nft.stdin.take().unwrap().write_all(ROUTER.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft");
        Self { client, router, backend }
    }

    /// Answers datagrams and connections with what they say.
    fn serve(&self) {
        let at = (Ipv6Addr::UNSPECIFIED, PORTS.1);
        let (udp, tcp) = self.backend.run(|| (UdpSocket::bind(at).unwrap(), TcpListener::bind(at).unwrap())).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 2_048];
            while let Ok((len, client)) = udp.recv_from(&mut buffer) {
                let _unreachable = udp.send_to(&buffer[..len], client);
            }
        });
        thread::spawn(move || {
            for stream in tcp.incoming().map_while(Result::ok) {
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
    }

    fn datagrams(&self, family: usize) {
        const SOCKETS: usize = 16;
        let open = || UdpSocket::bind((if family == 0 { "0.0.0.0" } else { "::" }, 0)).unwrap();
        let sockets: Vec<_> = (0..SOCKETS).map(|_| self.client.run(open).unwrap()).collect();
        for socket in &sockets {
            socket.connect(SocketAddr::new(VIP[family], PORTS.0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        let mut buffer = [0; 2_048];
        for number in 0..DATAGRAMS {
            let socket = &sockets[number as usize % SOCKETS];
            let (ttl, class) = (2 + (number % 250) as i32, (number % 64 * 4) as i32);
            if family == 0 {
                setsockopt(socket, sockopt::Ipv4Ttl, &ttl).unwrap();
                setsockopt(socket, sockopt::Ipv4Tos, &class).unwrap();
            } else {
                setsockopt(socket, sockopt::Ipv6Ttl, &ttl).unwrap();
                setsockopt(socket, sockopt::Ipv6TClass, &class).unwrap();
            }
            let bytes: Vec<u8> = (0..number * 7 % 1_400).map(|at| ((at * number) >> 3) as u8).collect();
            socket.send(&bytes).unwrap();
            assert_eq!(socket.recv(&mut buffer).unwrap(), bytes.len());
        }
    }

    fn connections(&self, family: usize) {
        for number in 1..40_usize {
            let to = SocketAddr::new(VIP[family], PORTS.0);
            let mut stream = self.client.run(|| TcpStream::connect(to)).unwrap().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut back = vec![0; number * 311];
            stream.write_all(&vec![number as u8; number * 311]).unwrap();
            stream.read_exact(&mut back).unwrap();
        }
    }
}

/// tcpdump on a device of the router.
struct Capture {
    child: Child,
    file: PathBuf,
}

impl Capture {
    fn start(ns: &Netns, device: &str, dir: &Path) -> Self {
        let file = dir.join(format!("{device}.pcap"));
        let mut tcpdump = Command::new("tcpdump");
        tcpdump.args(["-i", device, "-U", "-B", "65536", "-Z", "root", "-w"]).arg(&file).arg("tcp or udp");
        let mut child = ns.spawn(tcpdump.stderr(Stdio::piped())).unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "tcpdump does not start");
        }
        thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self { child, file }
    }

    /// The frames with this source and destination, in the order in which they passed.
    fn between(&self, src: IpAddr, dst: IpAddr) -> Vec<Vec<u8>> {
        let mut reader = simulate::open(&self.file).unwrap();
        let mut frames = Vec::new();
        while let Some(frame) = reader.next_frame().unwrap() {
            if ends(&frame.bytes) == (src, dst) {
                frames.push(frame.bytes.to_vec());
            }
        }
        frames
    }

    fn stop(&mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
        self.child.wait().unwrap();
    }
}

fn ends(frame: &[u8]) -> (IpAddr, IpAddr) {
    let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
    let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
    if frame[12] == 0x08 { (v4(26), v4(30)) } else { (v6(22), v6(38)) }
}

/// The packet one hop further.
fn forwarded(frame: &[u8]) -> Vec<u8> {
    let mut packet = frame[14..].to_vec();
    if frame[12] == 0x08 {
        let (mut header, _) = Ipv4Header::from_slice(&packet).unwrap();
        header.time_to_live -= 1;
        header.header_checksum = header.calc_header_checksum();
        let mut bytes = Vec::new();
        header.write(&mut bytes).unwrap();
        packet[..bytes.len()].copy_from_slice(&bytes);
    } else {
        packet[7] -= 1;
    }
    packet
}

#[test]
fn b03_ten_thousand_packets_are_translated_as_the_kernels_own_nat_does() {
    if !need::root("b03_ten_thousand_packets_are_translated_as_the_kernels_own_nat_does") {
        return;
    }
    let world = World::build();
    let dir = tempfile::Builder::new().prefix(&format!("{}-", scratch::name())).tempdir().unwrap();
    let [mut inside, mut outside] = ["in0", "out0"].map(|device| Capture::start(&world.router, device, dir.path()));
    world.serve();
    for family in 0..2 {
        world.datagrams(family);
        world.connections(family);
    }
    // The last of them are on their way to the files.
    thread::sleep(Duration::from_millis(500));
    inside.stop();
    outside.stop();

    let mut oracle = Oracle::host_only();
    let mut compared = 0;
    for family in 0..2 {
        let (vip, backend) = (SocketAddr::new(VIP[family], PORTS.0), SocketAddr::new(BACKEND[family], PORTS.1));
        for protocol in [proto::TCP, proto::UDP] {
            let id = 100 * (family as u32 + 1) + u32::from(protocol);
            oracle.serve(id, protocol, &[&vip.to_string()], &[&backend.to_string()]);
        }
        let requests = (inside.between(CLIENT[family], vip.ip()), outside.between(CLIENT[family], backend.ip()));
        let answers = (outside.between(backend.ip(), CLIENT[family]), inside.between(vip.ip(), CLIENT[family]));
        for (hook, (before, after)) in [(Hook::Ingress, requests), (Hook::Egress, answers)] {
            assert_eq!(before.len(), after.len(), "the router passed on what it got");
            // Two captures on several CPUs may have seen them in different orders.
            let mut ours: Vec<_> = before
                .iter()
                .map(|before| {
                    let run = oracle.run(hook, UPLINK, before);
                    assert_eq!(run.outcome, Outcome::Deliver, "{}", hex(before));
                    forwarded(&run.bytes)
                })
                .collect();
            let mut kernels: Vec<_> = after.iter().map(|after| after[14..].to_vec()).collect();
            ours.sort();
            kernels.sort();
            for (ours, kernels) in ours.iter().zip(&kernels) {
                assert!(ours == kernels, "kernel: {}\n  ours: {}", hex(kernels), hex(ours));
            }
            compared += ours.len();
        }
    }
    println!("{compared} packets");
    assert!(compared > 10_000, "{compared}");
}
