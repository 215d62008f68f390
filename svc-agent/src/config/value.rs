//! Texts of the configuration -> values. Each error shows the text, its origin, and what was expected.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};
use ipnet::IpNet;
use svc_common::maps::MAX_CIDRS;

use super::ConfigError;
use super::keys::{self, Key, Origin, Values};
use crate::controllers::pool::Pool;

/// How XDP is attached to uplinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// Native where the driver has it, generic on other physical devices, none on virtual ones.
    Auto,
    /// In the driver.
    Native,
    /// In the stack.
    Generic,
    /// Not at all: tc alone.
    Off,
}

impl FromStr for XdpMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "native" => Ok(Self::Native),
            "generic" => Ok(Self::Generic),
            "off" => Ok(Self::Off),
            _ => Err("one of auto, native, generic, off"),
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        })
    }
}

/// How translated packets are forwarded whose source address stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// By the programs, where both directions are known to work.
    Fast,
    /// By the stack, with its filters.
    Kernel,
}

impl FromStr for Forwarding {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "fast" => Ok(Self::Fast),
            "kernel" => Ok(Self::Kernel),
            _ => Err("fast or kernel"),
        }
    }
}

/// Which addresses are answered for on shared segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnounceAddresses {
    /// Those of `load-balancer-pools`.
    Pools,
    /// Any of a load balancer, and any ExternalIP.
    All,
}

impl FromStr for AnnounceAddresses {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "pools" => Ok(Self::Pools),
            "all" => Ok(Self::All),
            _ => Err("pools or all"),
        }
    }
}

/// Whose sockets are connected straight to backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketLb {
    /// Nobody's.
    Off,
    /// Those of the agent's own network namespace.
    Host,
    /// Those of every network namespace that is not left out.
    All,
}

impl FromStr for SocketLb {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "host" => Ok(Self::Host),
            "all" => Ok(Self::All),
            _ => Err("one of off, host, all"),
        }
    }
}

impl fmt::Display for SocketLb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Host => "host",
            Self::All => "all",
        })
    }
}

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first port, at least 1.
    pub min: u16,
    /// The last port.
    pub max: u16,
}

impl FromStr for PortRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "MIN-MAX with 1 <= MIN <= MAX <= 65535, for example 1024-29999";
        let (min, max) = text.split_once('-').ok_or(SHAPE)?;
        let (min, max) = (min.trim().parse().map_err(|_| SHAPE)?, max.trim().parse().map_err(|_| SHAPE)?);
        if min == 0 || min > max {
            return Err(SHAPE);
        }
        Ok(Self { min, max })
    }
}

fn wrong(found: &str, origin: &Origin, expected: impl Into<String>) -> ConfigError {
    ConfigError::Value { origin: origin.to_string(), found: found.to_owned(), expected: expected.into() }
}

fn required<'a>(values: &'a Values, key: &Key) -> Result<(&'a str, &'a Origin), ConfigError> {
    values.get(key).ok_or_else(|| super::missing(key))
}

/// A value whose type says what it expects.
pub(super) fn parse<T: FromStr<Err = &'static str>>(values: &Values, key: &Key) -> Result<T, ConfigError> {
    let (found, origin) = required(values, key)?;
    found.parse().map_err(|expected| wrong(found, origin, expected))
}

/// The capacity of the flow tables.
pub(super) fn max_flows(values: &Values) -> Result<u32, ConfigError> {
    let (found, origin) = required(values, &keys::MAX_FLOWS)?;
    found
        .parse()
        .ok()
        .filter(|flows| (1_024..=67_108_864).contains(flows))
        .ok_or_else(|| wrong(found, origin, "a number from 1024 to 67108864"))
}

/// A routing table that no rule of the kernel's own leads to.
pub(super) fn route_table(values: &Values) -> Result<Option<u32>, ConfigError> {
    const DEFAULT: u32 = 253;
    const LOCAL: u32 = 255;
    let Some((found, origin)) = values.get(&keys::ROUTE_TABLE) else { return Ok(None) };
    let number = found.parse().ok().filter(|table| *table != 0 && !(DEFAULT..=LOCAL).contains(table));
    let expected = "a number, for example 99; not 0, nor 253 to 255, which are the kernel's own tables";
    number.map(Some).ok_or_else(|| wrong(found, origin, expected))
}

/// Devices on whose segment addresses are answered for: only with addresses, and where other nodes can ask.
pub(super) fn announce_devices(values: &Values) -> Result<Vec<GlobMatcher>, ConfigError> {
    let devices = patterns(values, &keys::ANNOUNCE_DEVICES)?;
    if let Some((found, origin)) = values.get(&keys::ANNOUNCE_DEVICES) {
        let which: AnnounceAddresses = parse(values, &keys::ANNOUNCE_ADDRESSES)?;
        if which == AnnounceAddresses::Pools && values.get(&keys::LOAD_BALANCER_POOLS).is_none() {
            let expected = "`load-balancer-pools` with the addresses to answer for, or `announce-addresses` to be all";
            return Err(wrong(found, origin, expected));
        }
        if socket_address(values, &keys::HEALTHZ_BIND)?.is_none_or(|address| address.ip().is_loopback()) {
            let expected = "`healthz-bind` to be an address that other nodes reach: there they ask who answers";
            return Err(wrong(found, origin, expected));
        }
    }
    Ok(devices)
}

/// Connections that may begin in a second.
pub(super) fn max_new_flows(values: &Values) -> Result<u32, ConfigError> {
    let (found, origin) = required(values, &keys::MAX_NEW_FLOWS)?;
    found.parse().map_err(|_| wrong(found, origin, "a number, for example 125000, or 0 for no limit"))
}

/// How many, 0 for none.
pub(super) fn number(values: &Values, key: &Key) -> Result<usize, ConfigError> {
    let (found, origin) = required(values, key)?;
    found.parse().map_err(|_| wrong(found, origin, "a number, for example 2000"))
}

/// A time-out. The datapath's clock tells no more than 68 years apart.
pub(super) fn seconds(values: &Values, key: &Key) -> Result<u32, ConfigError> {
    let (found, origin) = required(values, key)?;
    let seconds = found.parse().ok().filter(|seconds| (1..=31_536_000).contains(seconds));
    seconds.ok_or_else(|| wrong(found, origin, "a number of seconds from 1 to 31536000"))
}

/// The source ports: none that nodePorts may be (B30).
pub(super) fn snat_ports(values: &Values) -> Result<PortRange, ConfigError> {
    let ports: PortRange = parse(values, &keys::SNAT_PORTS)?;
    let node_ports: PortRange = parse(values, &keys::NODE_PORT_RANGE)?;
    if ports.min > node_ports.max || ports.max < node_ports.min {
        return Ok(ports);
    }
    // The one of both that somebody chose is the one to change.
    let (found, origin) = required(values, &keys::SNAT_PORTS)?;
    let (range, range_origin) = required(values, &keys::NODE_PORT_RANGE)?;
    if matches!(origin, Origin::Default(_)) {
        let expected = format!("a range without any of {found}, the default of `snat-ports`; choose both");
        return Err(wrong(range, range_origin, expected));
    }
    let example = "for example 1024-29999 with the default of `node-port-range`";
    Err(wrong(found, origin, format!("a range without any of {range}, which belong to nodePorts, {example}")))
}

/// Where ClusterIPs are allocated.
pub(super) fn cluster_ip_range(values: &Values) -> Result<Vec<IpNet>, ConfigError> {
    let Some((found, origin)) = values.get(&keys::CLUSTER_IP_RANGE) else { return service_cidrs(values) };
    let networks = networks(values, &keys::CLUSTER_IP_RANGE)?.unwrap_or_default();
    if networks.iter().any(|network| network.prefix_len() == 0) {
        return Err(wrong(found, origin, "networks that are not everything, such as 10.96.0.0/12"));
    }
    Ok(networks)
}

/// Where addresses of load balancers are allocated.
pub(super) fn pools(values: &Values) -> Result<Vec<Pool>, ConfigError> {
    let Some((found, origin)) = values.get(&keys::LOAD_BALANCER_POOLS) else { return Ok(Vec::new()) };
    let mut pools: Vec<Pool> = Vec::new();
    for item in items(found) {
        let pool: Pool = item.parse().map_err(|expected| wrong(item, origin, expected))?;
        if pools.iter().any(|other| other.overlaps(&pool)) {
            return Err(wrong(found, origin, format!("no address twice: `{item}` overlaps another pool")));
        }
        if cluster_ip_range(values)?.iter().filter_map(|range| Pool::network(*range)).any(|range| range.overlaps(&pool))
        {
            return Err(wrong(item, origin, "no address of `cluster-ip-range`"));
        }
        pools.push(pool);
    }
    Ok(pools)
}

/// An absolute path without `..`.
pub(super) fn absolute(values: &Values, key: &Key) -> Result<PathBuf, ConfigError> {
    let (found, origin) = required(values, key)?;
    let path = PathBuf::from(found);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain && path.file_name().is_some() {
        Ok(path)
    } else {
        Err(wrong(found, origin, format!("an absolute path without `..`, for example {}", key.default.unwrap_or("/"))))
    }
}

/// The same for a path that nobody need give.
pub(super) fn absolute_if_given(values: &Values, key: &Key) -> Result<Option<PathBuf>, ConfigError> {
    values.get(key).is_some().then(|| absolute(values, key)).transpose()
}

/// Files, as absolute shell globs whose patterns are in the last component, comma separated.
pub(super) fn files(values: &Values, key: &Key) -> Result<Vec<String>, ConfigError> {
    let Some((found, origin)) = values.get(key) else { return Ok(Vec::new()) };
    let checked = items(found).map(|item| {
        let path = Path::new(item);
        let folder = path.parent().map(|folder| folder.to_string_lossy().into_owned()).unwrap_or_default();
        if !path.is_absolute() || folder.contains(['*', '?', '[', '{']) || path.file_name().is_none() {
            return Err(wrong(
                item,
                origin,
                "an absolute path, patterns in its last part only, such as /run/netns/kata-*",
            ));
        }
        glob(item, origin).map(|_| item.to_owned())
    });
    checked.collect()
}

/// True or false.
pub(super) fn switch(values: &Values, key: &Key) -> Result<bool, ConfigError> {
    let (found, origin) = required(values, key)?;
    found.parse().map_err(|_| wrong(found, origin, "true or false"))
}

/// An address with a port, if there is one.
pub(super) fn socket_address(values: &Values, key: &Key) -> Result<Option<SocketAddr>, ConfigError> {
    let Some((found, origin)) = values.get(key) else { return Ok(None) };
    let address = found.parse().map_err(|_| wrong(found, origin, "an address and a port, such as 0.0.0.0:10256"))?;
    Ok(Some(address))
}

/// URLs of servers, comma separated.
pub(super) fn urls(values: &Values, key: &Key) -> Result<Vec<String>, ConfigError> {
    let Some((found, origin)) = values.get(key) else { return Ok(Vec::new()) };
    let checked = items(found).map(|item| {
        let rest = item.strip_prefix("https://").or(item.strip_prefix("http://"));
        let server = item.parse::<hyper::Uri>().ok().filter(|uri| uri.host().is_some() && uri.query().is_none());
        if rest.is_none() || server.is_none() {
            return Err(wrong(item, origin, "the URL of an API server, such as https://192.0.2.1:6443"));
        }
        Ok(item.trim_end_matches('/').to_owned())
    });
    checked.collect()
}

/// Networks, comma separated; a bare address means itself.
pub(super) fn networks(values: &Values, key: &Key) -> Result<Option<Vec<IpNet>>, ConfigError> {
    let Some((found, origin)) = values.get(key) else { return Ok(None) };
    let networks: Result<Vec<_>, _> = items(found)
        .map(|item| {
            let network = network(item).ok_or_else(|| {
                wrong(item, origin, "a network in CIDR notation such as 192.0.2.0/24 or 2001:db8::/64, or an address")
            })?;
            if network.trunc() == network {
                Ok(network)
            } else {
                Err(wrong(item, origin, format!("a network without host bits: {}", network.trunc())))
            }
        })
        .collect();
    networks.map(Some)
}

/// Where ClusterIPs are taken from.
pub(super) fn service_cidrs(values: &Values) -> Result<Vec<IpNet>, ConfigError> {
    let networks = networks(values, &keys::SERVICE_CIDRS)?.unwrap_or_default();
    let Some((found, origin)) = values.get(&keys::SERVICE_CIDRS) else { return Ok(networks) };
    if networks.iter().any(|network| network.prefix_len() == 0) {
        return Err(wrong(found, origin, "networks that are not everything, such as 10.96.0.0/12"));
    }
    let v4 = networks.iter().filter(|network| network.addr().is_ipv4()).count();
    if v4.max(networks.len() - v4) > MAX_CIDRS {
        return Err(wrong(found, origin, format!("at most {MAX_CIDRS} networks of each family")));
    }
    Ok(networks)
}

/// Parses the address with std, which knows no leading zeros (CVE-2021-29923); ipnet takes them.
fn network(text: &str) -> Option<IpNet> {
    match text.split_once('/') {
        None => text.parse::<IpAddr>().ok().map(IpNet::from),
        Some((address, prefix)) => IpNet::new(address.parse().ok()?, prefix.parse().ok()?).ok(),
    }
}

/// Shell globs, comma separated.
pub(super) fn patterns(values: &Values, key: &Key) -> Result<Vec<GlobMatcher>, ConfigError> {
    let Some((found, origin)) = values.get(key) else { return Ok(Vec::new()) };
    items(found).map(|item| glob(item, origin)).collect()
}

fn glob(item: &str, origin: &Origin) -> Result<GlobMatcher, ConfigError> {
    GlobBuilder::new(item)
        .literal_separator(false)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| wrong(item, origin, format!("a shell glob such as eth*: {}", error.kind())))
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// The name that this machine calls itself.
pub(super) fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
