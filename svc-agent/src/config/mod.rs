//! The configuration: file, environment and flags -> validated [`Config`].

pub mod keys;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::ArgMatches;
use globset::GlobMatcher;
use ipnet::IpNet;
use svc_common::maps::Timeouts;

pub use value::{AnnounceAddresses, Forwarding, PortRange, SocketLb, XdpMode};

use crate::attach::classes::Patterns;
use crate::controllers::pool::Pool;
use crate::model::{DsrEncapsulation, ForwardingMode};
use keys::{Key, Values};

/// What the agent was told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of manifests; `None` if objects come from an API server, or are applied with svcctl and nothing else.
    pub manifests: Option<PathBuf>,
    /// The API server to follow instead.
    pub kubernetes: Option<Kubernetes>,
    /// Directory of what must outlive a reboot.
    pub state_dir: PathBuf,
    /// Name of this node.
    pub node_name: String,
    /// Where the agent's health is told.
    pub healthz_bind: Option<SocketAddr>,
    /// Where metrics are told.
    pub metrics_bind: Option<SocketAddr>,
    /// Ports of Services that have metrics of their own.
    pub metrics_service_ports: usize,
    /// Topology zone of this node.
    pub zone: Option<String>,
    /// Which device is what.
    pub devices: Patterns,
    /// How XDP is attached.
    pub xdp_mode: XdpMode,
    /// How translated packets are forwarded.
    pub forwarding: Forwarding,
    /// How packets of clients outside reach backends on other nodes, unless a Service says otherwise.
    pub forwarding_mode: ForwardingMode,
    /// What carries packets to other nodes with direct server return.
    pub dsr_encapsulation: DsrEncapsulation,
    /// Directory of the pins.
    pub pin_dir: PathBuf,
    /// Path of the control socket.
    pub socket: PathBuf,
    /// Group that may read from the control socket.
    pub socket_group: Option<String>,
    /// Node addresses that answer nodePorts; `None` means every suitable one.
    pub node_port_addresses: Option<Vec<IpNet>>,
    /// What `spec.externalIPs` may name.
    pub external_ips: Vec<IpNet>,
    /// What addresses of load balancers may be; `None` means any that is not special.
    pub load_balancer_ips: Option<Vec<IpNet>>,
    /// Where ClusterIPs are taken from; at most [`svc_common::maps::MAX_CIDRS`] of each family.
    pub service_cidrs: Vec<IpNet>,
    /// Where ClusterIPs are allocated.
    pub cluster_ip_range: Vec<IpNet>,
    /// What nodePorts may be, and where they are allocated.
    pub node_port_range: PortRange,
    /// Where addresses of load balancers are allocated.
    pub load_balancer_pools: Vec<Pool>,
    /// Routing table for the addresses that this node attracts.
    pub route_table: Option<u32>,
    /// Devices on whose segment addresses are answered for.
    pub announce_devices: Vec<GlobMatcher>,
    /// Which addresses those are.
    pub announce_addresses: AnnounceAddresses,
    /// Source ports for source NAT.
    pub snat_ports: PortRange,
    /// Capacity of each table of established flows.
    pub max_flows: u32,
    /// Connections that each CPU may begin in a second; zero means any number.
    pub max_new_flows: u32,
    /// When silent connections are forgotten.
    pub timeouts: Timeouts,
    /// Whose sockets are served.
    pub socket_lb: SocketLb,
    /// The control group whose sockets are served; `None` means the root.
    pub cgroup: Option<PathBuf>,
    /// Files of network namespaces whose sockets are left alone: absolute globs.
    pub socket_lb_skip_netns: Vec<String>,
    /// Filter for the log.
    pub log: String,
}

/// An API server to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// How to reach it and who the agent is there; `None` in a Pod, which has a service account.
    pub kubeconfig: Option<PathBuf>,
    /// Which servers to ask instead of the one that is known.
    pub servers: Vec<String>,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file as a whole.
    #[error("cannot use the configuration file `{}`: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// One value.
    #[error("{origin}: found `{found}`, expected {expected}")]
    Value {
        /// Flag, variable, or key and file.
        origin: String,
        /// The value.
        found: String,
        /// What it should be, with an example.
        expected: String,
    },
    /// A value that has no default.
    #[error("`{key}` is not set: give --{key}, {variable} or `{key}` in the file of --config")]
    Missing {
        /// The key.
        key: &'static str,
        /// Its environment variable.
        variable: &'static str,
    },
    /// Two that exclude each other.
    #[error("{one} and {other}: found both, expected one of them")]
    Both {
        /// The one.
        one: String,
        /// The other.
        other: String,
    },
}

impl Config {
    /// Reads and checks everything that `run` needs.
    ///
    /// # Errors
    /// At the first value that is missing or wrong.
    pub fn from_matches(matches: &ArgMatches) -> Result<Self, ConfigError> {
        Self::from_values(&Values::collect(matches)?)
    }

    fn from_values(values: &Values) -> Result<Self, ConfigError> {
        let node_name = match values.get(&keys::NODE_NAME) {
            Some((name, _)) => name.to_owned(),
            None => value::host_name().ok_or_else(|| missing(&keys::NODE_NAME))?,
        };
        let kubernetes = kubernetes(values)?;
        let manifests = text(values, &keys::MANIFESTS).map(PathBuf::from);
        Ok(Self {
            manifests,
            kubernetes,
            state_dir: value::absolute(values, &keys::STATE_DIR)?,
            node_name,
            healthz_bind: value::socket_address(values, &keys::HEALTHZ_BIND)?,
            metrics_bind: value::socket_address(values, &keys::METRICS_BIND)?,
            metrics_service_ports: value::number(values, &keys::METRICS_SERVICE_PORTS)?,
            zone: text(values, &keys::ZONE),
            devices: Patterns::new(
                value::patterns(values, &keys::UPLINKS)?,
                value::patterns(values, &keys::WORKLOADS)?,
                value::patterns(values, &keys::OVERLAYS)?,
            ),
            xdp_mode: value::parse(values, &keys::XDP_MODE)?,
            forwarding: value::parse(values, &keys::FORWARDING)?,
            forwarding_mode: value::parse(values, &keys::FORWARDING_MODE)?,
            dsr_encapsulation: value::parse(values, &keys::DSR_ENCAPSULATION)?,
            pin_dir: pin_dir(values)?,
            socket: value::absolute(values, &keys::SOCKET)?,
            socket_group: text(values, &keys::SOCKET_GROUP),
            node_port_addresses: value::networks(values, &keys::NODE_PORT_ADDRESSES)?,
            external_ips: value::networks(values, &keys::EXTERNAL_IPS)?.unwrap_or_default(),
            load_balancer_ips: value::networks(values, &keys::LOAD_BALANCER_IPS)?,
            service_cidrs: value::service_cidrs(values)?,
            cluster_ip_range: value::cluster_ip_range(values)?,
            node_port_range: value::parse(values, &keys::NODE_PORT_RANGE)?,
            load_balancer_pools: value::pools(values)?,
            route_table: value::route_table(values)?,
            announce_devices: value::announce_devices(values)?,
            announce_addresses: value::parse(values, &keys::ANNOUNCE_ADDRESSES)?,
            snat_ports: value::snat_ports(values)?,
            max_flows: value::max_flows(values)?,
            max_new_flows: value::max_new_flows(values)?,
            timeouts: Timeouts {
                half_open: value::seconds(values, &keys::TIMEOUT_TCP_HALF_OPEN)?,
                established: value::seconds(values, &keys::TIMEOUT_TCP_ESTABLISHED)?,
                half_closed: value::seconds(values, &keys::TIMEOUT_TCP_HALF_CLOSED)?,
                closed: value::seconds(values, &keys::TIMEOUT_TCP_CLOSED)?,
                reset: value::seconds(values, &keys::TIMEOUT_TCP_RESET)?,
                udp: value::seconds(values, &keys::TIMEOUT_UDP)?,
                udp_answered: value::seconds(values, &keys::TIMEOUT_UDP_ANSWERED)?,
                sctp: value::seconds(values, &keys::TIMEOUT_SCTP)?,
            },
            socket_lb: value::parse(values, &keys::SOCKET_LB)?,
            cgroup: value::absolute_if_given(values, &keys::CGROUP)?,
            socket_lb_skip_netns: value::files(values, &keys::SOCKET_LB_SKIP_NETNS)?,
            log: required(values, &keys::LOG)?,
        })
    }
}

/// The pin directory alone, for `cleanup`.
///
/// # Errors
/// If it is not an absolute path, or the file is wrong.
pub fn pin_dir_from_matches(matches: &ArgMatches) -> Result<PathBuf, ConfigError> {
    pin_dir(&Values::collect(matches)?)
}

fn pin_dir(values: &Values) -> Result<PathBuf, ConfigError> {
    value::absolute(values, &keys::PIN_DIR)
}

fn text(values: &Values, key: &Key) -> Option<String> {
    values.get(key).map(|(value, _)| value.to_owned())
}

fn kubernetes(values: &Values) -> Result<Option<Kubernetes>, ConfigError> {
    let kubeconfig = value::absolute_if_given(values, &keys::KUBECONFIG)?;
    let in_cluster: bool = value::switch(values, &keys::KUBERNETES)?;
    let servers = value::urls(values, &keys::API_SERVERS)?;
    if kubeconfig.is_none() && !in_cluster {
        return Ok(None);
    }
    let sources = [&keys::MANIFESTS, &keys::KUBECONFIG, &keys::KUBERNETES].map(|key| values.get(key));
    let mut given = sources.into_iter().flatten().filter(|(value, _)| *value != "false").map(|(_, origin)| origin);
    if let (Some(one), Some(other)) = (given.next(), given.next()) {
        return Err(ConfigError::Both { one: one.to_string(), other: other.to_string() });
    }
    Ok(Some(Kubernetes { kubeconfig, servers }))
}

fn required(values: &Values, key: &Key) -> Result<String, ConfigError> {
    text(values, key).ok_or_else(|| missing(key))
}

fn missing(key: &Key) -> ConfigError {
    ConfigError::Missing { key: key.name, variable: key.variable }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn config(args: &[&str]) -> Result<Config, ConfigError> {
        let command = clap::Command::new("t")
            .no_binary_name(true)
            .args(keys::arguments(&[keys::CONFIG]))
            .args(keys::arguments(keys::ALL));
        Config::from_matches(&command.try_get_matches_from(args).unwrap())
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let config = config(&["--manifests", "/m"]).unwrap();
        assert_eq!(config.pin_dir, PathBuf::from("/sys/fs/bpf/svc-agent"));
        assert_eq!(config.snat_ports, PortRange { min: 1024, max: 29_999 });
        assert_eq!((config.xdp_mode, config.max_flows), (XdpMode::Auto, 262_144));
        assert_eq!(config.forwarding, Forwarding::Fast);
        assert_eq!(config.timeouts, Timeouts::default());
        assert!(config.external_ips.is_empty() && config.load_balancer_ips.is_none());
        assert!(!config.node_name.is_empty());
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "max-flows = 5000\nsnat-ports = '2000-3000'\nmanifests = '/f'").unwrap();
        let path = file.path().to_str().unwrap();
        let config = config(&["--config", path, "--snat-ports", "4000-5000"]).unwrap();
        assert_eq!(config.max_flows, 5000);
        assert_eq!(config.snat_ports, PortRange { min: 4000, max: 5000 });
        assert_eq!(config.manifests, Some(PathBuf::from("/f")));
    }

    #[test]
    fn a_wrong_value_names_key_found_and_expected() {
        for (key, found, hint) in [
            ("announce-devices", "eth[", "glob"),
            ("announce-devices", "eth0", "`load-balancer-pools`"),
            ("announce-addresses", "some", "pools or all"),
            ("route-table", "254", "the kernel's own tables"),
            ("route-table", "0", "a number, for example 99"),
            ("snat-ports", "5000-4000", "MIN-MAX"),
            ("snat-ports", "20000-31000", "30000"),
            ("snat-ports", "0-10", "MIN-MAX"),
            ("node-port-range", "5", "MIN-MAX"),
            ("node-port-range", "20000-20999", "`snat-ports`"),
            ("cluster-ip-range", "0.0.0.0/0", "everything"),
            ("cluster-ip-range", "10.96.0.1/12", "10.96.0.0/12"),
            ("load-balancer-pools", "192.0.2.9-192.0.2.1", "192.0.2.10-192.0.2.99"),
            ("load-balancer-pools", "127.0.0.0/8", "loopback"),
            ("load-balancer-pools", "192.0.2.0/24,192.0.2.200-192.0.2.210", "no address twice"),
            ("xdp-mode", "fast", "native"),
            ("forwarding", "slow", "kernel"),
            ("forwarding-mode", "nat", "dsr"),
            ("dsr-encapsulation", "gre", "geneve"),
            ("max-flows", "3", "number"),
            ("max-flows", "many", "number"),
            ("timeout-udp", "0", "seconds"),
            ("timeout-tcp-established", "2h", "seconds"),
            ("external-ips", "10.0.0.0/33", "CIDR"),
            ("external-ips", "10.0.0.1/8", "10.0.0.0/8"),
            ("node-port-addresses", "010.0.0.0/8", "CIDR"),
            ("service-cidrs", "0.0.0.0/0", "everything"),
            ("service-cidrs", "10.1.0.0/16,10.2.0.0/16,10.3.0.0/16,10.4.0.0/16,10.5.0.0/16", "at most 4"),
            ("pin-dir", "bpf", "absolute"),
            ("pin-dir", "/sys/fs/bpf/../x", "absolute"),
            ("uplinks", "eth[", "glob"),
            ("socket-lb", "yes", "host"),
            ("cgroup", "unified", "absolute"),
            ("kubeconfig", "config", "absolute"),
            ("healthz-bind", "10256", "0.0.0.0:10256"),
            ("metrics-bind", "10249", "0.0.0.0:10256"),
            ("metrics-service-ports", "all", "a number"),
            ("api-servers", "192.0.2.1:6443", "https://"),
            ("api-servers", "ftp://192.0.2.1", "https://"),
            ("socket-lb-skip-netns", "kata", "/run/netns"),
            ("socket-lb-skip-netns", "/run/netns/a[", "glob"),
        ] {
            let error = config(&["--manifests", "/m", &format!("--{key}"), found]).unwrap_err().to_string();
            for part in [&format!("--{key}"), found, hint] {
                assert!(error.contains(part), "{key}: {error}");
            }
        }
    }

    #[test]
    fn ranges_for_controllers_have_their_defaults_and_stay_apart() {
        let range = |config: Config| config.cluster_ip_range.iter().map(ToString::to_string).collect::<Vec<_>>();
        let none = config(&["--manifests", "/m"]).unwrap();
        assert_eq!((none.node_port_range, none.load_balancer_pools.len()), (PortRange { min: 30_000, max: 32_767 }, 0));
        assert!(range(none).is_empty());
        let cidrs = ["--manifests", "/m", "--service-cidrs", "10.96.0.0/12"];
        assert_eq!(range(config(&cidrs).unwrap()), ["10.96.0.0/12"]);
        assert_eq!(
            range(config(&[&cidrs[..], &["--cluster-ip-range", "10.97.0.0/16"]].concat()).unwrap()),
            ["10.97.0.0/16"]
        );
        let moved = ["--manifests", "/m", "--node-port-range", "20000-20999", "--snat-ports", "30000-40000"];
        assert_eq!(config(&moved).unwrap().snat_ports, PortRange { min: 30_000, max: 40_000 });
        let error = config(&[&cidrs[..], &["--load-balancer-pools", "10.96.5.0/24"]].concat()).unwrap_err().to_string();
        assert!(error.contains("--load-balancer-pools") && error.contains("`cluster-ip-range`"), "{error}");
    }

    #[test]
    fn nodes_that_answer_for_addresses_have_to_hear_of_each_other() {
        let args = ["--manifests", "/m", "--announce-devices", "eth*", "--announce-addresses", "all"];
        assert_eq!(config(&args).unwrap().announce_devices.len(), 1);
        for bind in ["", "127.0.0.1:10256", "[::1]:10256"] {
            let error = config(&[&args[..], &["--healthz-bind", bind]].concat()).unwrap_err().to_string();
            assert!(error.contains("--announce-devices") && error.contains("`healthz-bind`"), "{error}");
        }
    }

    #[test]
    fn objects_come_from_manifests_or_from_an_api_server() {
        let api = config(&["--kubernetes", "--api-servers", "https://192.0.2.1:6443,https://[2001:db8::1]:6443"]);
        let api = api.unwrap().kubernetes.unwrap();
        assert_eq!((api.kubeconfig, api.servers.len()), (None, 2));
        let api = config(&["--kubeconfig", "/etc/kubeconfig"]).unwrap();
        assert_eq!(api.kubernetes.unwrap().kubeconfig, Some(PathBuf::from("/etc/kubeconfig")));
        assert_eq!(config(&["--kubernetes=false", "--manifests", "/m"]).unwrap().kubernetes, None);
        let error = config(&["--manifests", "/m", "--kubernetes"]).unwrap_err().to_string();
        assert!(error.contains("--manifests") && error.contains("--kubernetes"), "{error}");
    }

    #[test]
    fn nothing_needs_to_be_told_where_objects_are_applied() {
        let config = config(&[]).unwrap();
        assert_eq!((config.manifests, config.kubernetes), (None, None));
    }
}
