//! The loaded programs and the host compilation of the same pipeline, side by side.
//!
//! Every map write and every frame goes to both; every verdict, every byte and every table must be equal.

use std::{
    collections::HashMap as StdHashMap,
    hash::Hash,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use aya::{
    Ebpf, EbpfLoader, TestRun, TestRunOptions,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues},
    programs::{ProgramError, SchedClassifier, Xdp},
};
use nix::sched::{CloneFlags, unshare};
use svc_agent::datapath;
use svc_common::{
    env::{NextHop, Route},
    family::{V4, V6},
    host::Memory,
    maps::{
        Backend, Config, Device, Flow, Frontend, FrontendKey, SLOTS_PER_ROW, Selection, ServiceCounters, SlotRow,
        Tuple, backend_flags, device_class, device_flags, spec,
    },
    net::{Be16, Mac},
    outcome::Outcome,
    packet::{Frame, Hook},
    pipeline,
    reason::Reason,
};

/// The device that faces the network.
pub const UPLINK: &str = "up0";
/// The device of the pod `10.244.1.5`, `fd00:244:1::5`.
pub const WORKLOAD: &str = "wl0";
/// Ethernet address of [`UPLINK`].
pub const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
/// Ethernet address of the router on the uplink.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x20];
/// Ethernet address of [`WORKLOAD`].
pub const WORKLOAD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x30];
/// Ethernet address of the pod.
pub const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x40];
/// Source addresses of the uplink.
pub const NODE: (&str, &str) = ("192.0.2.10", "2001:db8::10");

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

/// Size of the flow tables in these tests.
pub const FLOWS: u32 = 1024;

/// Both compilations and their worlds.
pub struct Oracle {
    kernel: Ebpf,
    /// The host's world, for what a test wants to look at or to change on the host alone.
    pub memory: Memory,
    devices: StdHashMap<&'static str, u32>,
    next_row: u32,
}

/// What became of a frame.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the pipeline decided, as the host compilation says; the kernel's verdict was the one that belongs to it.
    pub outcome: Outcome,
    /// The frame afterwards, the same from both.
    pub bytes: Vec<u8>,
}

/// Runs `test` on a thread with a network namespace of its own and the programs loaded; skips, saying so, without the
/// privilege or the programs.
pub fn with_oracle(test: impl FnOnce(&mut Oracle) + Send + 'static) {
    if in_namespace(test).is_none() {
        eprintln!("SKIPPED: packet tests need root and the kernel programs: run `cargo xtask test` as root");
    }
}

/// The same for anything that returns a value; nothing without the privilege or the programs.
pub fn in_namespace<T: Send + 'static>(task: impl FnOnce(&mut Oracle) -> T + Send + 'static) -> Option<T> {
    if !nix::unistd::geteuid().is_root() || !datapath::embedded() {
        return None;
    }
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of our own");
        task(&mut Oracle::new())
    });
    match thread.join() {
        Ok(value) => Some(value),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn ip(arguments: &str) {
    let family = if arguments.contains("fd00") || arguments.contains("2001") { "-6" } else { "-4" };
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    let status = Command::new("ip").arg(family).args(&arguments).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {family} {}", arguments.join(" "));
}

/// Loads a program. The verifier gives up with EAGAIN when a signal waits for the thread; then it is asked again.
fn load(name: &str, mut attempt: impl FnMut() -> Result<(), ProgramError>) {
    for _ in 0..10 {
        match attempt() {
            Ok(()) => return,
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{name}: {error:?}"),
        }
    }
    panic!("{name}: the verifier was interrupted ten times");
}

impl Oracle {
    fn new() -> Self {
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
        // The clock stands still at zero, so that both compilations see the same time.
        let frozen = 0u64;
        let mut loader = EbpfLoader::new();
        loader.override_global(datapath::program::JIFFY_MULT, &frozen, true);
        for map in [spec::FLOWS_V4, spec::FLOWS_V6, spec::EMBRYOS_V4, spec::EMBRYOS_V6] {
            loader.map_max_entries(map.name, FLOWS);
        }
        for map in [spec::SLOTS, spec::SELECTIONS, spec::BACKENDS_V4, spec::BACKENDS_V6, spec::SVC_COUNTERS] {
            loader.map_max_entries(map.name, 4096);
        }
        let mut kernel = loader.load(datapath::object().expect("embedded")).expect("the object loads");
        for name in [datapath::program::XDP, datapath::program::XDP_VETH, "limit_empty", "limit_mac_swap"] {
            let program: &mut Xdp = kernel.program_mut(name).expect(name).try_into().expect("XDP");
            load(name, || program.load());
        }
        for name in [datapath::program::TC_INGRESS, datapath::program::TC_EGRESS, datapath::program::CLOCK] {
            let program: &mut SchedClassifier = kernel.program_mut(name).expect(name).try_into().expect("tc");
            load(name, || program.load());
        }
        let mut oracle = Self { kernel, memory: Memory::default(), devices: StdHashMap::new(), next_row: 0 };
        oracle.memory.v4.flows_capacity = FLOWS as usize;
        oracle.memory.v6.flows_capacity = FLOWS as usize;
        oracle.build_world();
        oracle
    }

    fn build_world(&mut self) {
        let v4: std::net::Ipv4Addr = NODE.0.parse().expect("IPv4");
        let v6: std::net::Ipv6Addr = NODE.1.parse().expect("IPv6");
        for (name, class, mac) in
            [(UPLINK, device_class::UPLINK, UPLINK_MAC), (WORKLOAD, device_class::WORKLOAD, WORKLOAD_MAC)]
        {
            let ifindex = nix::net::if_::if_nametoindex(name).expect("the device was made");
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
        self.set_config(Config { epoch: 1, snat_port_min: 1024, snat_port_max: 29_999 });
        let router = self.hop(UPLINK, UPLINK_MAC, ROUTER_MAC);
        let pod = self.hop(WORKLOAD, WORKLOAD_MAC, POD_MAC);
        self.memory.v4.default_route = router;
        self.memory.v6.default_route = router;
        for node in [NODE.0, NODE.1] {
            self.set_route(node, Route::Stack);
        }
        let unknown = NextHop { ifindex: self.ifindex(WORKLOAD), mtu: 1500, ..NextHop::default() };
        for pod in ["10.244.1.6", "10.244.1.7", "10.244.1.8", "10.244.1.9"] {
            self.set_route(pod, Route::Via(unknown));
        }
        for inside in ["10.244.1.5", "fd00:244:1::5"] {
            self.set_route(inside, pod);
        }
        self.unresolve();
    }

    /// The loaded programs and maps.
    pub fn kernel(&self) -> &Ebpf {
        &self.kernel
    }

    /// The same, to attach one.
    pub fn kernel_mut(&mut self) -> &mut Ebpf {
        &mut self.kernel
    }

    /// The context of an XDP test run: a frame that came in through `device`.
    pub fn xdp_context(&self, device: &str, len: usize) -> Vec<u8> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        words(&[(1, len as u32), (3, self.ifindex(device))], 6)
    }

    /// Writes an established flow.
    pub fn set_flow_v4(&mut self, key: &Tuple<[u8; 4]>, flow: &Flow<[u8; 4]>) {
        self.memory.v4.flows.insert(*key, *flow);
        self.hash(spec::FLOWS_V4.name).insert(*key, *flow, 0).expect("FLOWS_V4");
    }

    /// The same for IPv6.
    pub fn set_flow_v6(&mut self, key: &Tuple<[u8; 16]>, flow: &Flow<[u8; 16]>) {
        self.memory.v6.flows.insert(*key, *flow);
        self.hash(spec::FLOWS_V6.name).insert(*key, *flow, 0).expect("FLOWS_V6");
    }

    /// Empties the half-open tables of the kernel.
    pub fn forget_embryos(&mut self) -> anyhow::Result<()> {
        forget::<Tuple<[u8; 4]>, Flow<[u8; 4]>>(self.hash(spec::EMBRYOS_V4.name))?;
        forget::<Tuple<[u8; 16]>, Flow<[u8; 16]>>(self.hash(spec::EMBRYOS_V6.name))
    }

    /// The index of a device.
    pub fn ifindex(&self, device: &str) -> u32 {
        self.devices[device]
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

    fn array<T: aya::Pod>(&mut self, name: &str) -> Array<&mut MapData, T> {
        Array::try_from(self.kernel.map_mut(name).expect(name)).expect(name)
    }

    fn hash<K: aya::Pod, V: aya::Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        HashMap::try_from(self.kernel.map_mut(name).expect(name)).expect(name)
    }

    /// Writes `CONFIG`.
    pub fn set_config(&mut self, config: Config) {
        self.memory.config = config;
        self.array(spec::CONFIG.name).set(0, config, 0).expect("CONFIG");
    }

    /// Raises the epoch, as the agent does after a change.
    pub fn raise_epoch(&mut self) {
        let mut config = self.memory.config;
        config.epoch += 1;
        self.set_config(config);
    }

    /// Writes a device.
    pub fn set_device(&mut self, ifindex: u32, device: Device) {
        self.memory.devices.insert(ifindex, device);
        self.hash(spec::DEVICES.name).insert(ifindex, device, 0).expect("DEVICES");
    }

    /// Writes a frontend whose two scopes have these selections.
    pub fn set_frontend(&mut self, vip: &str, proto: u8, service: u32, external: u32, internal: u32) {
        let frontend = Frontend { service, external, internal, flags: 0, affinity_s: 0 };
        match vip.parse().expect("an address and port") {
            SocketAddr::V4(vip) => {
                let key = FrontendKey { addr: vip.ip().octets(), port: Be16::from_host(vip.port()), proto, pad: 0 };
                self.memory.v4.frontends.insert(key, frontend);
                self.hash(spec::FRONTENDS_V4.name).insert(key, frontend, 0).expect("FRONTENDS_V4");
            }
            SocketAddr::V6(vip) => {
                let key = FrontendKey { addr: vip.ip().octets(), port: Be16::from_host(vip.port()), proto, pad: 0 };
                self.memory.v6.frontends.insert(key, frontend);
                self.hash(spec::FRONTENDS_V6.name).insert(key, frontend, 0).expect("FRONTENDS_V6");
            }
        }
    }

    /// Removes a frontend.
    pub fn remove_frontend(&mut self, vip: &str, proto: u8) {
        match vip.parse().expect("an address and port") {
            SocketAddr::V4(vip) => {
                let key = FrontendKey { addr: vip.ip().octets(), port: Be16::from_host(vip.port()), proto, pad: 0 };
                self.memory.v4.frontends.remove(&key);
                self.hash::<_, Frontend>(spec::FRONTENDS_V4.name).remove(&key).expect("FRONTENDS_V4");
            }
            SocketAddr::V6(vip) => {
                let key = FrontendKey { addr: vip.ip().octets(), port: Be16::from_host(vip.port()), proto, pad: 0 };
                self.memory.v6.frontends.remove(&key);
                self.hash::<_, Frontend>(spec::FRONTENDS_V6.name).remove(&key).expect("FRONTENDS_V6");
            }
        }
    }

    /// Writes a backend.
    pub fn set_backend(&mut self, id: u32, service: u32, addr: &str) {
        let flags = backend_flags::PRESENT | backend_flags::READY | backend_flags::SERVING;
        match addr.parse().expect("an address and port") {
            SocketAddr::V4(addr) => {
                let port = Be16::from_host(addr.port());
                let backend = Backend { addr: addr.ip().octets(), port, flags, service };
                self.memory.v4.backends.insert(id, backend);
                self.array(spec::BACKENDS_V4.name).set(id, backend, 0).expect("BACKENDS_V4");
            }
            SocketAddr::V6(addr) => {
                let port = Be16::from_host(addr.port());
                let backend = Backend { addr: addr.ip().octets(), port, flags, service };
                self.memory.v6.backends.insert(id, backend);
                self.array(spec::BACKENDS_V6.name).set(id, backend, 0).expect("BACKENDS_V6");
            }
        }
    }

    /// Frees a backend's id in both families.
    pub fn remove_backend(&mut self, id: u32) {
        self.memory.v4.backends.remove(&id);
        self.memory.v6.backends.remove(&id);
        self.array(spec::BACKENDS_V4.name).set(id, Backend::<[u8; 4]>::default(), 0).expect("BACKENDS_V4");
        self.array(spec::BACKENDS_V6.name).set(id, Backend::<[u8; 16]>::default(), 0).expect("BACKENDS_V6");
    }

    /// Writes a table of these backend ids at a new place and points a selection to it.
    pub fn set_selection(&mut self, index: u32, slots: &[u32]) {
        let first = self.next_row;
        for chunk in slots.chunks(SLOTS_PER_ROW as usize) {
            let mut row = SlotRow::default();
            row.0[..chunk.len()].copy_from_slice(chunk);
            let at = self.next_row;
            self.memory.rows.insert(at, row);
            self.array(spec::SLOTS.name).set(at, row, 0).expect("SLOTS");
            self.next_row += 1;
        }
        self.set_empty_selection(index, Selection::new(first * SLOTS_PER_ROW, slots.len() as u32));
    }

    /// Writes a selection word.
    pub fn set_empty_selection(&mut self, index: u32, selection: Selection) {
        self.memory.selections.insert(index, selection);
        self.array(spec::SELECTIONS.name).set(index, selection, 0).expect("SELECTIONS");
    }

    /// One service with one frontend per VIP and one table per call; service id, selection index and the first
    /// backend id are the same number.
    pub fn serve(&mut self, id: u32, proto: u8, vips: &[&str], backends: &[&str]) {
        for (offset, backend) in backends.iter().enumerate() {
            self.set_backend(id + offset as u32, id, backend);
        }
        let slots: Vec<_> = (0..backends.len() as u32).map(|offset| id + offset).collect();
        self.set_selection(id, &slots);
        for vip in vips {
            self.set_frontend(vip, proto, id, id, id);
        }
    }

    /// Runs a frame that comes in through (at egress: leaves by) `device` on both and compares everything.
    #[track_caller]
    pub fn run(&mut self, hook: Hook, device: &str, frame: &[u8]) -> Run {
        let ifindex = self.ifindex(device);
        let (outcome, bytes) = match hook {
            Hook::Xdp => run_host::<0>(&mut self.memory, frame, ifindex),
            Hook::Ingress => run_host::<1>(&mut self.memory, frame, ifindex),
            Hook::Egress => run_host::<2>(&mut self.memory, frame, ifindex),
        };
        let (verdict, kernel_bytes) = self.run_kernel(hook, ifindex, frame);
        assert_eq!(verdict, verdict_of(hook, outcome, ifindex), "the kernel's verdict for {outcome:?} at {hook:?}");
        crate::packet::assert_frames_eq(&kernel_bytes, &bytes);
        self.assert_equal_worlds();
        Run { outcome, bytes }
    }

    fn run_kernel(&mut self, hook: Hook, ifindex: u32, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; frame.len() + 256];
        let context = match hook {
            Hook::Xdp => words(&[(1, frame.len() as u32), (3, ifindex)], 6),
            // struct __sk_buff: ifindex is its eleventh word; 192 bytes in all.
            Hook::Ingress | Hook::Egress => words(&[(10, ifindex)], 48),
        };
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result = match hook {
            Hook::Xdp => {
                let program = self.kernel.program(datapath::program::XDP).expect("loaded");
                TryInto::<&Xdp>::try_into(program).expect("XDP").test_run(options)
            }
            Hook::Ingress | Hook::Egress => {
                let name =
                    if hook == Hook::Ingress { datapath::program::TC_INGRESS } else { datapath::program::TC_EGRESS };
                let program = self.kernel.program(name).expect("loaded");
                TryInto::<&SchedClassifier>::try_into(program).expect("tc").test_run(options)
            }
        };
        let result = result.unwrap_or_else(|error| panic!("test run at {hook:?}: {error:?}"));
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    /// Runs a frame through the XDP program for veth alone: the verdict and the frame.
    pub fn run_veth(&mut self, frame: &[u8]) -> (u32, Vec<u8>) {
        let context = self.xdp_context(UPLINK, frame.len());
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let program: &Xdp = self.kernel.program(datapath::program::XDP_VETH).expect("loaded").try_into().expect("XDP");
        let result = program.test_run(options).expect("test run");
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    /// The kernel learns the neighbours of the routes that have none, and so does the host.
    pub fn learn_neighbours(&mut self) {
        for neighbour in ["192.0.2.30", "2001:db8::30"] {
            ip(&format!("neigh replace {neighbour} lladdr 02:00:00:00:00:20 dev {UPLINK} nud permanent"));
        }
        let router = self.hop(UPLINK, UPLINK_MAC, ROUTER_MAC);
        for dst in UNRESOLVED {
            self.set_route(dst, router);
        }
    }

    /// The reverse of [`Oracle::learn_neighbours`].
    pub fn forget_neighbours(&mut self) {
        for neighbour in ["192.0.2.30", "2001:db8::30"] {
            ip(&format!("neigh del {neighbour} dev {UPLINK}"));
        }
        self.unresolve();
    }

    fn unresolve(&mut self) {
        let hop = NextHop { ifindex: self.ifindex(UPLINK), mtu: 1500, ..NextHop::default() };
        for dst in UNRESOLVED {
            self.set_route(dst, Route::Via(hop));
        }
    }

    /// Empties every table that a history fills, counters included, in both.
    pub fn reset(&mut self) {
        self.forget_embryos().expect("EMBRYOS");
        forget::<Tuple<[u8; 4]>, Flow<[u8; 4]>>(self.hash(spec::FLOWS_V4.name)).expect("FLOWS_V4");
        forget::<Tuple<[u8; 16]>, Flow<[u8; 16]>>(self.hash(spec::FLOWS_V6.name)).expect("FLOWS_V6");
        forget::<FrontendKey<[u8; 4]>, Frontend>(self.hash(spec::FRONTENDS_V4.name)).expect("FRONTENDS_V4");
        forget::<FrontendKey<[u8; 16]>, Frontend>(self.hash(spec::FRONTENDS_V6.name)).expect("FRONTENDS_V6");
        for tables in [&mut self.memory.v4.flows, &mut self.memory.v4.embryos] {
            tables.clear();
        }
        for tables in [&mut self.memory.v6.flows, &mut self.memory.v6.embryos] {
            tables.clear();
        }
        self.memory.v4.frontends.clear();
        self.memory.v6.frontends.clear();
        let ids: Vec<_> = self.memory.v4.backends.keys().chain(self.memory.v6.backends.keys()).copied().collect();
        for id in ids {
            self.remove_backend(id);
        }
        self.next_row = 0;
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).expect("the number of CPUs");
        let mut counters: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.kernel.map_mut(spec::COUNTERS.name).expect("COUNTERS")).expect("COUNTERS");
        for reason in Reason::ALL {
            let zero = PerCpuValues::try_from(vec![0; cpus]).expect("one value per CPU");
            counters.set(*reason as u32, zero, 0).expect("COUNTERS");
        }
        let map = self.kernel.map_mut(spec::SVC_COUNTERS.name).expect("SVC_COUNTERS");
        let mut counters: PerCpuArray<_, ServiceCounters> = PerCpuArray::try_from(map).expect("SVC_COUNTERS");
        for service in self.memory.services.keys() {
            let zero = PerCpuValues::try_from(vec![ServiceCounters::default(); cpus]).expect("one value per CPU");
            counters.set(*service, zero, 0).expect("SVC_COUNTERS");
        }
        self.memory.counters.clear();
        self.memory.services.clear();
    }

    /// Compares flow tables and counters.
    #[track_caller]
    pub fn assert_equal_worlds(&mut self) {
        let flows = dump::<Tuple<[u8; 4]>, Flow<[u8; 4]>>(self.hash(spec::FLOWS_V4.name));
        assert_eq!(flows, self.memory.v4.flows, "FLOWS_V4: kernel, then host");
        let flows = dump::<Tuple<[u8; 16]>, Flow<[u8; 16]>>(self.hash(spec::FLOWS_V6.name));
        assert_eq!(flows, self.memory.v6.flows, "FLOWS_V6: kernel, then host");
        let flows = dump::<Tuple<[u8; 4]>, Flow<[u8; 4]>>(self.hash(spec::EMBRYOS_V4.name));
        assert_eq!(flows, self.memory.v4.embryos, "EMBRYOS_V4: kernel, then host");
        let flows = dump::<Tuple<[u8; 16]>, Flow<[u8; 16]>>(self.hash(spec::EMBRYOS_V6.name));
        assert_eq!(flows, self.memory.v6.embryos, "EMBRYOS_V6: kernel, then host");

        let counters: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.kernel.map(spec::COUNTERS.name).expect("COUNTERS")).expect("COUNTERS");
        for reason in Reason::ALL {
            let sum: u64 = counters.get(&(*reason as u32), 0).expect("COUNTERS").iter().sum();
            assert_eq!(sum, self.memory.counters.get(reason).copied().unwrap_or(0), "counter of {reason:?}");
        }
        let map = self.kernel.map(spec::SVC_COUNTERS.name).expect("SVC_COUNTERS");
        let counters: PerCpuArray<_, ServiceCounters> = PerCpuArray::try_from(map).expect("SVC_COUNTERS");
        for (service, expected) in &self.memory.services {
            let mut sum = ServiceCounters::default();
            for counters in counters.get(service, 0).expect("SVC_COUNTERS").iter() {
                sum.packets += counters.packets;
                sum.bytes += counters.bytes;
                sum.reply_packets += counters.reply_packets;
                sum.reply_bytes += counters.reply_bytes;
                sum.new_flows += counters.new_flows;
            }
            assert_eq!(sum, *expected, "counters of service {service}");
        }
    }

    /// Changes both copies of every flow and embryo of IPv4, to make time pass or to break a table on purpose.
    pub fn edit_flows_v4(&mut self, edit: impl Fn(&Tuple<[u8; 4]>, &mut Flow<[u8; 4]>) -> bool) {
        for (name, established) in [(spec::FLOWS_V4.name, true), (spec::EMBRYOS_V4.name, false)] {
            let tables = &mut self.memory.v4;
            let table = if established { &mut tables.flows } else { &mut tables.embryos };
            let mut changed = Vec::new();
            table.retain(|key, flow| {
                let keep = edit(key, flow);
                changed.push((*key, keep.then_some(*flow)));
                keep
            });
            let mut map = self.hash::<Tuple<[u8; 4]>, Flow<[u8; 4]>>(name);
            for (key, flow) in changed {
                match flow {
                    Some(flow) => map.insert(key, flow, 0).expect(name),
                    None => map.remove(&key).expect(name),
                }
            }
        }
    }
}

fn dump<K: aya::Pod + Eq + Hash, V: aya::Pod>(map: HashMap<&mut MapData, K, V>) -> StdHashMap<K, V> {
    map.iter().map(|entry| entry.expect("a map that nobody else changes")).collect()
}

fn forget<K: aya::Pod, V: aya::Pod>(mut map: HashMap<&mut MapData, K, V>) -> anyhow::Result<()> {
    let keys = map.keys().collect::<Result<Vec<_>, _>>()?;
    for key in keys {
        map.remove(&key)?;
    }
    Ok(())
}

/// A context of `len` words that are zero but for some.
fn words(set: &[(usize, u32)], len: usize) -> Vec<u8> {
    let mut words = vec![0u32; len];
    for (index, value) in set {
        words[*index] = *value;
    }
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn run_host<const H: u8>(memory: &mut Memory, frame: &[u8], ifindex: u32) -> (Outcome, Vec<u8>) {
    let mut pkt = Frame::<H>::new(frame, ifindex);
    let outcome = match frame.get(12..14) {
        Some([0x08, 0x00]) => pipeline::run::<V4, _, _, false>(&mut pkt, memory).outcome(),
        Some([0x86, 0xdd]) => pipeline::run::<V6, _, _, false>(&mut pkt, memory).outcome(),
        _ => Outcome::Pass,
    };
    (outcome, pkt.bytes().to_vec())
}

/// The kernel's verdict that belongs to an outcome (linux/bpf.h, linux/pkt_cls.h).
fn verdict_of(hook: Hook, outcome: Outcome, own: u32) -> u32 {
    const XDP: [u32; 4] = [1, 2, 3, 4];
    const TC_UNSPEC: u32 = u32::MAX;
    const TC_SHOT: u32 = 2;
    const TC_REDIRECT: u32 = 7;
    let [drop, pass, transmit, redirect] = XDP;
    match (hook, outcome) {
        (Hook::Xdp, Outcome::Pass | Outcome::Deliver | Outcome::Resolve(_)) => pass,
        (Hook::Xdp, Outcome::Send(ifindex)) if ifindex == own => transmit,
        (Hook::Xdp, Outcome::Send(_)) => redirect,
        (Hook::Xdp, Outcome::Drop(_)) => drop,
        (_, Outcome::Pass | Outcome::Deliver) => TC_UNSPEC,
        (_, Outcome::Send(_) | Outcome::Resolve(_)) => TC_REDIRECT,
        (_, Outcome::Drop(_)) => TC_SHOT,
    }
}
