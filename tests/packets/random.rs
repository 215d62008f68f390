//! Random frames and random changes, on both compilations: `Oracle::run` finds any difference.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use svc_common::{net::proto, packet::Hook};
use svc_tests::{
    oracle::{Oracle, UPLINK, WORKLOAD, with_oracle},
    packet::Frame,
};

const CLIENTS: [&str; 4] = ["198.51.100.7", "198.51.100.8", "10.244.1.5", "10.244.2.5"];
const CLIENTS6: [&str; 3] = ["2001:db8:7::7", "fd00:244:1::5", "fd00:244:2::5"];
const VIPS: [&str; 3] = ["10.96.0.10", "192.0.2.10", "10.96.0.20"];
const VIPS6: [&str; 2] = ["fd00:96::10", "2001:db8::10"];
const BACKENDS: [&str; 4] = ["10.244.1.5:8080", "10.244.2.5:8080", "10.244.2.6:8081", "10.244.3.5:80"];
const BACKENDS6: [&str; 3] = ["[fd00:244:1::5]:8080", "[fd00:244:2::5]:8080", "[fd00:244:3::5]:80"];

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// A frame from a client to a frontend or from a backend to somebody; with one byte changed if asked.
    Packet {
        hook: u8,
        device: bool,
        v6: bool,
        tcp: bool,
        client: usize,
        vip: usize,
        port: u16,
        flags: u8,
        ttl: u8,
        change: Option<(u16, u8)>,
    },
    /// What the last translated frame is answered with, at every hook.
    Answer { hook: u8, flags: u8 },
    /// A service's table changes.
    Table { service: u32, first: usize, len: usize },
    /// A backend leaves.
    Remove { id: u32 },
    /// The epoch rises.
    Epoch,
}

fn step() -> impl Strategy<Value = Step> {
    let packet = (
        (0..3u8, any::<bool>(), any::<bool>(), any::<bool>()),
        (0..4usize, 0..3usize, 0..6u16, any::<u8>()),
        prop_oneof![8 => Just(64u8), 1 => 0..3u8],
        prop::option::weighted(0.1, (0..90u16, any::<u8>())),
    )
        .prop_map(|((hook, device, v6, tcp), (client, vip, port, flags), ttl, change)| Step::Packet {
            hook,
            device,
            v6,
            tcp,
            client,
            vip,
            port,
            flags,
            ttl,
            change,
        });
    prop_oneof![
        12 => packet,
        8 => (0..3u8, any::<u8>()).prop_map(|(hook, flags)| Step::Answer { hook, flags }),
        1 => (0..4u32, 0..4usize, 0..4usize).prop_map(|(service, first, len)| Step::Table { service, first, len }),
        1 => (100..120u32).prop_map(|id| Step::Remove { id }),
        1 => Just(Step::Epoch),
    ]
}

fn hook(number: u8) -> Hook {
    match number {
        0 => Hook::Xdp,
        1 => Hook::Ingress,
        _ => Hook::Egress,
    }
}

fn flags(bits: u8) -> String {
    [("S", 1), ("F", 2), ("R", 4), (".", 8)]
        .iter()
        .enumerate()
        // RST and FIN are rare in life, and here.
        .filter(|(_, (flag, bit))| bits & bit != 0 && (bits & 0xf0 == 0 || matches!(*flag, "S" | ".")))
        .map(|(_, (flag, _))| *flag)
        .collect()
}

fn frame(tcp: bool, src: &str, dst: &str, bits: u8, ttl: u8) -> Vec<u8> {
    let frame = if tcp { Frame::tcp(src, dst).flags(&flags(bits)) } else { Frame::udp(src, dst) };
    frame.ttl(ttl).build()
}

fn at(addr: &str, port: u16) -> String {
    if addr.contains(':') { format!("[{addr}]:{port}") } else { format!("{addr}:{port}") }
}

fn prepare(oracle: &mut Oracle) {
    for (service, vip) in (0..).zip(VIPS) {
        for protocol in [proto::TCP, proto::UDP] {
            oracle.set_frontend(&at(vip, 80), protocol, service, service, service);
        }
    }
    for (service, vip) in (0..).zip(VIPS6) {
        for protocol in [proto::TCP, proto::UDP] {
            oracle.set_frontend(&at(vip, 80), protocol, 10 + service, 10 + service, 10 + service);
        }
    }
    for service in 0..4 {
        table(oracle, service, 0, 3);
    }
}

/// Gives a service of either family a table of some backends.
fn table(oracle: &mut Oracle, service: u32, first: usize, len: usize) {
    for (offset, backends) in [(0, &BACKENDS[..]), (10, &BACKENDS6[..])] {
        let ids: Vec<_> = (first..first + len)
            .map(|index| {
                let id = 100 + service * 5 + (index % backends.len()) as u32;
                oracle.set_backend(id, service + offset, backends[index % backends.len()]);
                id
            })
            .collect();
        if ids.is_empty() {
            oracle.set_empty_selection(service + offset, svc_common::maps::Selection(u64::from(service % 2)));
        } else {
            oracle.set_selection(service + offset, &ids);
        }
    }
}

fn run(oracle: &mut Oracle, steps: &[Step]) {
    // The last frame that was translated, as it left.
    let mut last: Option<(bool, Vec<u8>)> = None;
    for step in steps {
        match step {
            Step::Packet { hook: at_hook, device, v6, tcp, client, vip, port, flags, ttl, change } => {
                let (client, vip) = if *v6 {
                    (CLIENTS6[client % CLIENTS6.len()], VIPS6[vip % VIPS6.len()])
                } else {
                    (CLIENTS[client % CLIENTS.len()], VIPS[vip % VIPS.len()])
                };
                let mut bytes = frame(*tcp, &at(client, 20_000 + port), &at(vip, 80), *flags, *ttl);
                if let Some((at, value)) = change {
                    let at = usize::from(*at).min(bytes.len() - 1);
                    // The ether type decides which compilation runs; the host knows routes for our addresses only.
                    let addresses = if *v6 { 22..54 } else { 26..34 };
                    if !(12..14).contains(&at) && !addresses.contains(&at) {
                        bytes[at] = *value;
                    }
                }
                let device = if *device { UPLINK } else { WORKLOAD };
                let found = oracle.run(hook(*at_hook), device, &bytes);
                if found.bytes != bytes {
                    last = Some((*tcp, found.bytes));
                }
            }
            Step::Answer { hook: at_hook, flags } => {
                let Some((tcp, sent)) = &last else { continue };
                let Some((src, dst)) = ends(sent) else { continue };
                let device = if *flags & 0x80 == 0 { UPLINK } else { WORKLOAD };
                oracle.run(hook(*at_hook), device, &frame(*tcp, &dst, &src, *flags, 64));
            }
            Step::Table { service, first, len } => table(oracle, *service, *first, *len),
            Step::Remove { id } => oracle.remove_backend(*id),
            Step::Epoch => oracle.raise_epoch(),
        }
    }
}

/// Source and destination of a frame without options.
fn ends(frame: &[u8]) -> Option<(String, String)> {
    let packet = etherparse::PacketHeaders::from_ethernet_slice(frame).ok()?;
    let (src, dst) = match packet.net? {
        etherparse::NetHeaders::Ipv4(ip, _) => {
            (std::net::Ipv4Addr::from(ip.source).to_string(), std::net::Ipv4Addr::from(ip.destination).to_string())
        }
        etherparse::NetHeaders::Ipv6(ip, _) => {
            (std::net::Ipv6Addr::from(ip.source).to_string(), std::net::Ipv6Addr::from(ip.destination).to_string())
        }
        etherparse::NetHeaders::Arp(_) => return None,
    };
    let (sport, dport) = match packet.transport? {
        etherparse::TransportHeader::Tcp(tcp) => (tcp.source_port, tcp.destination_port),
        etherparse::TransportHeader::Udp(udp) => (udp.source_port, udp.destination_port),
        _ => return None,
    };
    Some((at(&src, sport), at(&dst, dport)))
}

#[test]
fn random_histories_are_the_same_in_the_kernel_and_on_the_host() {
    with_oracle(|oracle| {
        let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
        let oracle = std::cell::RefCell::new(oracle);
        TestRunner::new(config)
            .run(&prop::collection::vec(step(), 1..120), |steps| {
                let mut oracle = oracle.borrow_mut();
                oracle.reset();
                prepare(&mut oracle);
                run(&mut oracle, &steps);
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error}"));
    });
}
