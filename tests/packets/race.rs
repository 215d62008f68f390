//! What several CPUs do at once, on purpose. The loaded programs alone: the host's compilation has one thread.

use std::{
    ops::ControlFlow,
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use aya::{
    Ebpf, TestRun, TestRunOptions,
    maps::{Array, HashMap, Map, MapData},
    programs::SchedClassifier,
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::{Pid, SysconfVar, sysconf},
};
use svc_agent::{datapath::program, expire, sys::batch};
use svc_common::{
    family::{Family as _, V4, V6},
    flow::partner_key,
    maps::{Flow, MapType, Timeouts, Tuple, spec},
    net::{Be16, proto},
};
use svc_tests::{
    oracle::{Oracle, UPLINK, with_oracle},
    packet::Frame,
};

/// One family's addresses, and how it finds its flows.
struct World {
    vip: &'static str,
    backend: &'static str,
    client: &'static str,
}

const V4_WORLD: World = World { vip: "10.96.0.10:80", backend: "10.244.1.5:8080", client: "198.51.100.7" };
const V6_WORLD: World = World { vip: "[fd00:96::10]:80", backend: "[fd00:244:1::5]:8080", client: "[2001:db8:7::7]" };

fn pin_to(cpu: usize) {
    // Not `available_parallelism`, which goes by what this very thread was pinned to before.
    let cpus = sysconf(SysconfVar::_NPROCESSORS_ONLN).unwrap().map_or(1, |cpus| cpus as usize);
    let mut set = CpuSet::new();
    set.set(cpu % cpus).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

/// Runs a tc program over a frame that came in through `ifindex`; returns its verdict and the frame.
fn run(kernel: &Ebpf, name: &str, ifindex: u32, frame: &[u8]) -> (u32, Vec<u8>) {
    run_again(kernel, name, ifindex, frame, 1)
}

/// The same so many times, on what the time before has left of the frame.
fn run_again(kernel: &Ebpf, name: &str, ifindex: u32, frame: &[u8], repeat: u32) -> (u32, Vec<u8>) {
    let program: &SchedClassifier = kernel.program(name).unwrap().try_into().unwrap();
    // struct __sk_buff: ifindex is its eleventh word; 192 bytes in all.
    let mut context = [0u8; 192];
    context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
    let mut out = vec![0; frame.len() + 256];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(&context),
        repeat,
        ..TestRunOptions::default()
    };
    let result = program.test_run(options).unwrap();
    out.truncate(result.data_size_out as usize);
    (result.return_value, out)
}

/// Everything in a table.
fn dump<A: Copy + 'static>(kernel: &Ebpf, name: &str) -> Vec<(Tuple<A>, Flow<A>)>
where
    Tuple<A>: MapType,
    Flow<A>: MapType,
{
    let (Map::HashMap(map) | Map::LruHashMap(map)) = kernel.map(name).unwrap() else { panic!("{name}") };
    let mut entries = Vec::new();
    batch::for_each(map.fd(), |key, flow| {
        entries.push((key, flow));
        ControlFlow::Continue(())
    })
    .unwrap();
    entries
}

/// Both tables of a family hold whole connections only: each flow has its partner, whose partner it is. Returns how many
/// flows there are.
#[track_caller]
fn assert_whole<A: Copy + PartialEq + std::fmt::Debug + 'static>(kernel: &Ebpf, tables: [&str; 2]) -> usize
where
    Tuple<A>: MapType,
    Flow<A>: MapType,
{
    let all: Vec<_> = tables.iter().flat_map(|name| dump::<A>(kernel, name)).collect();
    for (key, flow) in &all {
        let back = partner_key(flow, key.proto);
        let partners: Vec<_> = all.iter().filter(|(other, _)| *other == back).collect();
        assert_eq!(partners.len(), 1, "{key:?} {flow:?}");
        assert_eq!(partner_key(&partners[0].1, key.proto), *key);
        assert_eq!(all.iter().filter(|(other, _)| other == key).count(), 1, "{key:?} is in both tables");
    }
    all.len()
}

/// Establishes a connection by its first packets.
fn establish(kernel: &Ebpf, world: &World, ifindex: u32, client: &str) {
    run(kernel, program::TC_INGRESS, ifindex, &Frame::syn(client, world.vip).build());
    run(kernel, program::TC_EGRESS, ifindex, &Frame::tcp(world.backend, client).flags("S.").build());
    run(kernel, program::TC_INGRESS, ifindex, &Frame::tcp(client, world.vip).build());
}

/// One table of the kernel, written by hand.
struct Hand<A: Copy + 'static>(HashMap<MapData, Tuple<A>, Flow<A>>)
where
    Tuple<A>: aya::Pod,
    Flow<A>: aya::Pod;

/// The map behind a name, apart from the programs that share it.
fn handle(kernel: &Ebpf, name: &str) -> Map {
    let (Map::HashMap(data) | Map::LruHashMap(data) | Map::Array(data)) = kernel.map(name).unwrap() else {
        panic!("{name}")
    };
    let fd = data.fd().as_fd().try_clone_to_owned().unwrap();
    Map::from_map_data(MapData::from_fd(fd).unwrap()).unwrap()
}

impl<A: Copy + 'static> Hand<A>
where
    Tuple<A>: aya::Pod,
    Flow<A>: aya::Pod,
{
    fn of(kernel: &Ebpf, name: &str) -> Self {
        Self(HashMap::try_from(handle(kernel, name)).unwrap())
    }

    fn put(&mut self, flows: &[(Tuple<A>, Flow<A>)], seen_s: u32) {
        for (key, flow) in flows {
            self.0.insert(key, Flow { seen_s, ..*flow }, 0).unwrap();
        }
    }

    fn has(&self, key: &Tuple<A>) -> bool {
        self.0.get(key, 0).is_ok()
    }
}

/// Packets come to a connection in the moment in which its time is over, while the sweep goes round and round: either the
/// packet was first, and the connection lives, or the sweep, and it is gone, but never something between.
fn race_the_sweep<A>(oracle: &mut Oracle, world: &World, ether_type: Be16, tables: [&'static str; 2])
where
    A: Copy + PartialEq + Default + std::fmt::Debug + Send + Sync + 'static,
    Tuple<A>: MapType + aya::Pod,
    Flow<A>: MapType + aya::Pod,
{
    const ROUNDS: u32 = 3_000;
    const PATIENCE: Duration = Duration::from_secs(5);
    oracle.serve(100, proto::TCP, &[world.vip], &[world.backend]);
    let ifindex = oracle.ifindex(UPLINK);
    let client = |port: u16| format!("{}:{port}", world.client);
    establish(oracle.kernel(), world, ifindex, &client(1));
    let flows = dump::<A>(oracle.kernel(), tables[0]);
    assert_eq!(flows.len(), 2);
    // Without the frontend a packet that comes too late passes untouched.
    oracle.remove_frontend(world.vip, proto::TCP);
    let kernel = oracle.kernel();
    // The sweep takes longer over a frame than a packet, which so meets it anywhere, and comes by now and then or often;
    // the last key shows that it has passed.
    let absent = |n: u16| Tuple { sport: Be16::from_host(n), ..flows[0].0 };
    let canary = (absent(99), Flow { state: 0, dport: Be16::from_host(99), ..flows[0].1 });
    let orders = [1, 5, 30].map(|often| {
        let mut keys: Vec<_> = (10..41).map(absent).chain([canary.0]).collect();
        (0..often).for_each(|n| keys[n * 30 / often] = flows[n % 2].0);
        expire::frame(&keys, ether_type, &Timeouts::default())
    });
    let frames = [
        (program::TC_INGRESS, Frame::tcp(&client(1), world.vip).build()),
        (program::TC_EGRESS, Frame::tcp(world.backend, &client(1)).build()),
    ];
    let (mut kept, mut swept) = (0, 0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            pin_to(0);
            for order in orders.iter().cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                run_again(kernel, program::SWEEP, ifindex, order, 20);
            }
        });
        let _end = StopAtEnd(&stop);
        pin_to(1);
        let mut table = Hand::of(kernel, tables[0]);
        let mut clock = Array::<_, u64>::try_from(handle(kernel, program::CLOCK_BASE)).unwrap();
        let mut now = 100_000;
        let start = Instant::now();
        for round in (0..ROUNDS).take_while(|_| start.elapsed() < PATIENCE) {
            table.put(&flows, now);
            now += 8_000;
            clock.set(0, u64::from(now), 0).unwrap();
            let (name, frame) = &frames[round as usize % 2];
            let (_, after) = run_again(kernel, name, ifindex, frame, 1);
            let was_first = after != *frame;
            for _ in 0..2 {
                table.put(&[canary], now - 10_000);
                while table.has(&canary.0) {
                    assert!(!sweeper.is_finished());
                    std::hint::spin_loop();
                }
            }
            let left = assert_whole::<A>(kernel, tables);
            assert_eq!(left, if was_first { 2 } else { 0 }, "round {round}, the packet was first: {was_first}");
            *if was_first { &mut kept } else { &mut swept } += 1;
        }
    });
    println!("{kept} rounds kept the connection, {swept} removed it");
    assert!(kept > 0 && swept > 0, "the two never met");
}

/// Lets the other thread end, also if this one panics.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn b25_a_packet_and_the_sweep_at_once_leave_a_whole_connection_or_none() {
    with_oracle(|oracle| {
        race_the_sweep::<[u8; 4]>(oracle, &V4_WORLD, V4::ETHER_TYPE, [spec::FLOWS_V4.name, spec::EMBRYOS_V4.name]);
        race_the_sweep::<[u8; 16]>(oracle, &V6_WORLD, V6::ETHER_TYPE, [spec::FLOWS_V6.name, spec::EMBRYOS_V6.name]);
    });
}

/// Every packet of a burst reaches one backend, with one source port, whichever CPU takes it.
fn race_first_packets<A>(oracle: &mut Oracle, world: &World, remote: [&str; 3], tables: [&'static str; 2])
where
    A: Copy + PartialEq + Default + std::fmt::Debug + 'static,
    Tuple<A>: MapType + aya::Pod,
    Flow<A>: MapType + aya::Pod,
{
    const CLIENTS: usize = 60;
    const PATIENCE: Duration = Duration::from_secs(4);
    let ifindex = oracle.ifindex(UPLINK);
    oracle.serve(200, proto::UDP, &[world.vip], &remote);
    let frames: Vec<_> =
        (0..CLIENTS).map(|n| Frame::udp(&format!("{}:{}", world.client, 2_000 + n), world.vip).build()).collect();
    let start = Instant::now();
    let mut rounds = 0;
    while rounds < 200 && start.elapsed() < PATIENCE {
        rounds += 1;
        let kernel = oracle.kernel();
        let at = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let sender = |cpu: usize| {
            pin_to(cpu);
            let send = |(n, frame): (usize, &Vec<u8>)| {
                // Both at the same time, but not at the price of waiting for one that does not run.
                at[cpu].store(n, Ordering::SeqCst);
                let patience = Instant::now() + Duration::from_micros(200);
                while at[1 - cpu].load(Ordering::SeqCst) < n && Instant::now() < patience {
                    std::hint::spin_loop();
                }
                run(kernel, program::TC_INGRESS, ifindex, frame)
            };
            frames.iter().enumerate().map(send).collect::<Vec<_>>()
        };
        let (first, second) = std::thread::scope(|scope| {
            let other = scope.spawn(|| sender(0));
            (sender(1), other.join().unwrap())
        });
        for (n, (first, second)) in first.iter().zip(&second).enumerate() {
            assert_eq!(first, second, "round {round}, client {n}", round = rounds);
        }
        assert_eq!(assert_whole::<A>(kernel, tables), 2 * CLIENTS, "round {rounds}");
        oracle.forget_embryos();
    }
    println!("{rounds} rounds of {CLIENTS} connections");
}

#[test]
fn b24_first_packets_on_two_cpus_reach_one_backend_from_one_port() {
    with_oracle(|oracle| {
        let remote = ["10.244.2.5:8080", "10.244.2.6:8080", "10.244.2.7:8080"];
        race_first_packets::<[u8; 4]>(oracle, &V4_WORLD, remote, [spec::FLOWS_V4.name, spec::EMBRYOS_V4.name]);
        let remote = ["[fd00:244:2::5]:8080", "[fd00:244:2::6]:8080", "[fd00:244:2::7]:8080"];
        race_first_packets::<[u8; 16]>(oracle, &V6_WORLD, remote, [spec::FLOWS_V6.name, spec::EMBRYOS_V6.name]);
    });
}

/// Many clients with one source port towards one backend at once: each gets a port that no other has.
fn race_for_ports<A>(oracle: &mut Oracle, [vip, backend]: [&str; 2], clients: &[String], tables: [&'static str; 2])
where
    A: Copy + PartialEq + Default + std::fmt::Debug + 'static,
    Tuple<A>: MapType + aya::Pod,
    Flow<A>: MapType + aya::Pod,
{
    const PATIENCE: Duration = Duration::from_secs(4);
    let ifindex = oracle.ifindex(UPLINK);
    oracle.serve(300, proto::UDP, &[vip], &[backend]);
    let frames: Vec<_> = clients.iter().map(|client| Frame::udp(client, vip).build()).collect();
    let start = Instant::now();
    let (mut rounds, mut moved) = (0, 0);
    while rounds < 200 && start.elapsed() < PATIENCE {
        rounds += 1;
        let kernel = oracle.kernel();
        let at = [AtomicUsize::new(0), AtomicUsize::new(0)];
        // The first of each pair on one CPU, the second on the other.
        let sender = |cpu: usize| {
            pin_to(cpu);
            for (n, frame) in frames.iter().skip(cpu).step_by(2).enumerate() {
                at[cpu].store(n, Ordering::SeqCst);
                let patience = Instant::now() + Duration::from_micros(200);
                while at[1 - cpu].load(Ordering::SeqCst) < n && Instant::now() < patience {
                    std::hint::spin_loop();
                }
                run(kernel, program::TC_INGRESS, ifindex, frame);
            }
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| sender(0));
            sender(1);
            other.join().unwrap();
        });
        // Whole connections with different keys on both sides: no two answers can be taken for each other.
        assert_eq!(assert_whole::<A>(kernel, tables), 2 * clients.len(), "round {rounds}");
        let forward = dump::<A>(kernel, tables[1]).into_iter().filter(|(key, _)| key.sport.to_host() == 2_000);
        let mut ports: Vec<_> = forward.map(|(_, flow)| flow.sport.to_host()).collect();
        assert_eq!(ports.len(), clients.len());
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), clients.len(), "round {rounds}: two clients share a port");
        moved += ports.iter().filter(|port| **port != 2_000).count();
        oracle.forget_embryos();
    }
    println!("{rounds} rounds of {} clients, {moved} ports moved", clients.len());
    assert_eq!(moved, rounds * (clients.len() - 1), "one client keeps its port");
}

#[test]
fn b29_clients_with_one_port_on_two_cpus_get_ports_of_their_own() {
    with_oracle(|oracle| {
        let clients: Vec<_> = (1..=24).map(|n| format!("198.51.100.{n}:2000")).collect();
        let world = ["192.0.2.10:30080", "10.244.2.5:8080"];
        race_for_ports::<[u8; 4]>(oracle, world, &clients, [spec::FLOWS_V4.name, spec::EMBRYOS_V4.name]);
        let clients: Vec<_> = (1..=24).map(|n| format!("[2001:db8:7::{n}]:2000")).collect();
        let world = ["[2001:db8::10]:30080", "[fd00:244:2::5]:8080"];
        race_for_ports::<[u8; 16]>(oracle, world, &clients, [spec::FLOWS_V6.name, spec::EMBRYOS_V6.name]);
    });
}
