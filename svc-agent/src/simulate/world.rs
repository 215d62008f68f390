//! The simulated node: its devices, addresses and routes, by options and a file, and sensible where neither says anything.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use ipnet::IpNet;
use serde::Deserialize;
use svc_common::env::{NextHop, Route};
use svc_common::host::{Memory, Prefix};
use svc_common::maps::{Config, Device, device_flags};
use svc_common::net::Mac;

use crate::attach::classes::Class;
use crate::config::{Forwarding, PortRange};
use crate::model::ForwardingMode;
use crate::resolve::{Desired, Node};

/// Where packets come from whose capture names no device that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Side {
    /// Through the first uplink
    External,
    /// Through the first workload device
    Internal,
}

/// The addresses of a node that has none: from the ranges for documentation.
const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const MTU: u16 = 1500;

/// The node.
#[derive(Clone, Debug)]
pub struct World {
    /// What the agent would know of it.
    pub node: Node,
    devices: Vec<Named>,
    routes: Vec<RouteTo>,
    ports: PortRange,
    side: Side,
}

/// A device; its index is its place in the list, from 1 on.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    class: Class,
    value: Device,
}

#[derive(Clone, Copy, Debug)]
struct RouteTo {
    network: IpNet,
    route: Route,
}

/// The file of `--world`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    node_name: Option<String>,
    zone: Option<String>,
    node_addresses: Vec<IpAddr>,
    snat_ports: Option<String>,
    devices: Vec<FileDevice>,
    routes: Vec<FileRoute>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDevice {
    name: String,
    class: String,
    mac: Option<String>,
    mtu: Option<u16>,
    #[serde(default)]
    addresses: Vec<IpAddr>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRoute {
    to: IpNet,
    device: String,
    mac: Option<String>,
}

/// What the command line says of the node.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// TOML file.
    pub file: Option<&'a Path>,
    /// `nodeName` of endpoints that are here.
    pub node_name: Option<&'a str>,
    /// Devices as `NAME=CLASS`.
    pub devices: &'a [String],
    /// Where packets come from.
    pub side: Side,
    /// Who forwards what keeps its source address.
    pub forwarding: Forwarding,
}

impl World {
    /// The node that options and file describe.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(options: &Options<'_>) -> anyhow::Result<Self> {
        let file = match options.file {
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
                toml::from_str(&text).with_context(|| format!("`{}`", path.display()))?
            }
            None => File::default(),
        };
        let mut addresses = file.node_addresses;
        addresses.extend(file.devices.iter().flat_map(|device| &device.addresses));
        if addresses.is_empty() {
            addresses.extend(NODE.iter().filter_map(|addr| addr.parse::<IpAddr>().ok()));
        }
        let ports = match &file.snat_ports {
            Some(text) => {
                text.parse().map_err(|expected| anyhow::anyhow!("snat-ports: found `{text}`, expected {expected}"))?
            }
            None => PortRange { min: 1024, max: 29_999 },
        };
        let node = Node {
            name: options.node_name.map(str::to_owned).or(file.node_name).unwrap_or_default(),
            zone: file.zone,
            addresses,
            forwarding_mode: ForwardingMode::Snat,
        };
        let mut world = Self { node, devices: Vec::new(), routes: Vec::new(), ports, side: options.side };
        for device in file.devices {
            let mac = device.mac.as_deref().map(parse_mac).transpose()?;
            let class = parse_class(&device.class)?;
            world.add(device.name, class, mac, device.mtu, &device.addresses)?;
        }
        for text in options.devices {
            let Some((name, class)) = text.split_once('=') else {
                bail!("--device: found `{text}`, expected NAME=CLASS, for example eth0=uplink");
            };
            world.add(name.to_owned(), parse_class(class)?, None, None, &[])?;
        }
        for (name, class) in [("uplink", Class::Uplink), ("pods", Class::Workload)] {
            if world.first(class).is_none() {
                world.add(name.to_owned(), class, None, None, &[])?;
            }
        }
        if options.forwarding == Forwarding::Fast {
            world.devices.iter_mut().for_each(|device| device.value.flags |= device_flags::FAST);
        }
        for route in file.routes {
            let mac = route.mac.as_deref().map(parse_mac).transpose()?;
            let index = world.devices.iter().position(|device| device.name == route.device);
            let Some(index) = index else {
                bail!("route to `{}`: no device `{}`; add it to the devices", route.to, route.device);
            };
            let route = RouteTo { network: route.to, route: world.hop(index, mac.unwrap_or(gateway(index))) };
            world.routes.push(route);
        }
        Ok(world)
    }

    fn add(
        &mut self,
        name: String,
        class: Class,
        mac: Option<Mac>,
        mtu: Option<u16>,
        addresses: &[IpAddr],
    ) -> anyhow::Result<()> {
        ensure!(!self.devices.iter().any(|device| device.name == name), "device `{name}` is given twice");
        let own = addresses.iter().chain(&self.node.addresses);
        let v4 = own.clone().find_map(|addr| if let IpAddr::V4(addr) = addr { Some(addr.octets()) } else { None });
        let v6 = own.clone().find_map(|addr| if let IpAddr::V6(addr) = addr { Some(addr.octets()) } else { None });
        let flags = if class == Class::Uplink { device_flags::XDP_TARGET } else { 0 };
        let value = Device {
            class: class.number(),
            flags,
            mtu: mtu.unwrap_or(MTU),
            mac: mac.unwrap_or(Mac([2, 0, 0, 0, 1, self.devices.len() as u8])),
            v4: v4.unwrap_or_default(),
            v6: v6.unwrap_or_default(),
            ..Device::default()
        };
        self.devices.push(Named { name, class, value });
        Ok(())
    }

    fn first(&self, class: Class) -> Option<usize> {
        self.devices.iter().position(|device| device.class == class)
    }

    /// The index of the device that a frame comes in through.
    pub(super) fn arrival(&self, interface: Option<&str>) -> u32 {
        let named = interface.and_then(|name| self.devices.iter().position(|device| device.name == name));
        let class = if self.side == Side::External { Class::Uplink } else { Class::Workload };
        named.or_else(|| self.first(class)).map_or(0, index)
    }

    /// The maps before there is any Service.
    pub(super) fn memory(&self) -> Memory {
        let mut memory = Memory {
            config: Config {
                epoch: 1,
                snat_port_min: self.ports.min,
                snat_port_max: self.ports.max,
                ..Config::default()
            },
            ..Memory::default()
        };
        for (at, device) in self.devices.iter().enumerate() {
            memory.devices.insert(index(at), device.value);
        }
        memory
    }

    /// Routes: to the node itself, to its pods, what the file says, and everything else out of the first uplink.
    pub(super) fn add_routes(&self, memory: &mut Memory, desired: &Desired) {
        if let Some(uplink) = self.first(Class::Uplink) {
            let route = self.hop(uplink, gateway(uplink));
            (memory.v4.default_route, memory.v6.default_route) = (route, route);
            if let Some(device) = self.devices.get(uplink) {
                (memory.v4.source, memory.v6.source) = (device.value.v4, device.value.v6);
            }
        }
        for route in &self.routes {
            let bits = route.network.prefix_len();
            match route.network.network() {
                IpAddr::V4(addr) => memory.v4.prefixes.push(Prefix { addr: addr.octets(), bits, route: route.route }),
                IpAddr::V6(addr) => memory.v6.prefixes.push(Prefix { addr: addr.octets(), bits, route: route.route }),
            }
        }
        if let Some(pods) = self.first(Class::Workload) {
            let backends = desired.services.values().flat_map(|ports| ports.iter()).flat_map(|port| &port.backends);
            for backend in backends.filter(|backend| backend.local) {
                set_route(memory, backend.addr, self.hop(pods, pod(backend.addr)));
            }
        }
        for addr in &self.node.addresses {
            set_route(memory, *addr, Route::Stack);
        }
    }

    /// The way to a neighbour through the device at this place of the list.
    fn hop(&self, at: usize, dst_mac: Mac) -> Route {
        let Some(device) = self.devices.get(at) else { return Route::Stack };
        let (mtu, src_mac) = (device.value.mtu, device.value.mac);
        Route::Via(NextHop { ifindex: index(at), mtu, dst_mac, src_mac })
    }
}

fn index(at: usize) -> u32 {
    at as u32 + 1
}

fn set_route(memory: &mut Memory, addr: IpAddr, route: Route) {
    match addr {
        IpAddr::V4(addr) => drop(memory.v4.routes.insert(addr.octets(), route)),
        IpAddr::V6(addr) => drop(memory.v6.routes.insert(addr.octets(), route)),
    }
}

/// The router behind a device: made up.
fn gateway(at: usize) -> Mac {
    Mac([2, 0, 0, 0, 2, at as u8])
}

/// A pod's Ethernet address: made up of its other one.
fn pod(addr: IpAddr) -> Mac {
    let [a, b, c, d] = match addr {
        IpAddr::V4(addr) => addr.octets(),
        IpAddr::V6(addr) => addr.octets().last_chunk().copied().unwrap_or_default(),
    };
    Mac([2, 3, a, b, c, d])
}

fn parse_class(text: &str) -> anyhow::Result<Class> {
    match text {
        "uplink" => Ok(Class::Uplink),
        "workload" => Ok(Class::Workload),
        "overlay" => Ok(Class::Overlay),
        "other" => Ok(Class::Other),
        _ => bail!("class of a device: found `{text}`, expected one of uplink, workload, overlay, other"),
    }
}

fn parse_mac(text: &str) -> anyhow::Result<Mac> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    let mac = bytes.and_then(|bytes| bytes.try_into().ok());
    mac.map(Mac)
        .with_context(|| format!("Ethernet address: found `{text}`, expected six bytes such as 02:00:00:00:00:01"))
}
