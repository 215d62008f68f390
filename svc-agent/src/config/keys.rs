//! Every key of the configuration, once: its name is the TOML key, the flag and, in capitals, the environment variable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches};

use super::ConfigError;
use crate::model::text::{nearest, quote};

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// TOML key and flag.
    pub name: &'static str,
    /// Environment variable.
    pub variable: &'static str,
    /// What stands for the value in the help.
    pub value_name: &'static str,
    /// One sentence for the help.
    pub help: &'static str,
    /// Used when nobody says anything.
    pub default: Option<&'static str>,
}

/// What stands for the value of a key that is true or false; as an option it needs none.
const SWITCH: &str = "BOOL";

/// Where the configuration file is; not a key of the file itself.
pub const CONFIG: Key = Key {
    name: "config",
    variable: "SVC_AGENT_CONFIG",
    value_name: "FILE",
    help: "TOML file with the keys below; flags and environment variables win",
    default: None,
};

macro_rules! keys {
    ($($name:ident: $key:literal, $value_name:literal, $default:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $name: Key = Key {
                name: $key,
                variable: concat!("SVC_AGENT_", stringify!($name)),
                value_name: $value_name,
                help: $help,
                default: $default,
            };
        )*

        /// Every key of the file.
        pub const ALL: &[Key] = &[$($name),*];
    };
}

keys! {
    MANIFESTS: "manifests", "DIR", None,
        "Directory of Service, EndpointSlice and Endpoints manifests; watched for changes";
    KUBERNETES: "kubernetes", "BOOL", Some("false"),
        "Follow the API server of the cluster that this agent is a Pod of, instead of manifests";
    KUBECONFIG: "kubeconfig", "FILE", None,
        "Follow the API server that this kubeconfig leads to, instead of manifests";
    API_SERVERS: "api-servers", "URLS", None,
        "API servers to ask in turn, comma separated, instead of the one that the kubeconfig or the Pod knows";
    STATE_DIR: "state-dir", "DIR", Some("/var/lib/svc-agent"),
        "Directory for what must outlive a reboot: objects that were applied with svcctl";
    NODE_NAME: "node-name", "NAME", None,
        "Name of this node, as in nodeName of endpoints (default: the host name)";
    HEALTHZ_BIND: "healthz-bind", "ADDR:PORT", Some("[::]:10256"),
        "Where /healthz, /livez and /readyz are told over HTTP; empty for nowhere";
    METRICS_BIND: "metrics-bind", "ADDR:PORT", Some("127.0.0.1:10249"),
        "Where /metrics is told over HTTP, for Prometheus; empty for nowhere";
    METRICS_SERVICE_PORTS: "metrics-service-ports", "N", Some("2000"),
        "Ports of Services, of each family, that have metrics of their own: the first ones by name";
    ZONE: "zone", "ZONE", None,
        "Topology zone of this node";
    UPLINKS: "uplinks", "PATTERNS", Some("eth*,en*,bond*,wl*"),
        "Devices that face the network: shell globs, comma separated; looked at before workloads and overlays";
    WORKLOADS: "workloads", "PATTERNS", Some("veth*,cali*,lxc*,cni*,tap*,docker*,br-*"),
        "Host ends of the pods' devices: shell globs, comma separated";
    OVERLAYS: "overlays", "PATTERNS", Some("vxlan*,flannel*,geneve*,cilium_vxlan"),
        "Tunnels to other nodes: shell globs, comma separated";
    XDP_MODE: "xdp-mode", "MODE", Some("auto"),
        "XDP on uplinks: auto, native, generic or off";
    FORWARDING: "forwarding", "WAY", Some("fast"),
        "How translated packets reach pods and other nodes: fast (past the stack, where that is possible) or kernel";
    FORWARDING_MODE: "forwarding-mode", "MODE", Some("snat"),
        "How packets of clients outside reach backends on other nodes: snat or dsr (direct server return)";
    DSR_ENCAPSULATION: "dsr-encapsulation", "KIND", Some("ipip"),
        "What carries packets to other nodes with dsr: ipip or geneve; every node unpacks both";
    PIN_DIR: "pin-dir", "DIR", Some("/sys/fs/bpf/svc-agent"),
        "Directory in a BPF file system where maps and links outlive the agent";
    SOCKET: "socket", "PATH", Some("/run/svc-agent/control.sock"),
        "Unix socket for svcctl";
    SOCKET_GROUP: "socket-group", "GROUP", None,
        "Group that may read from the socket (default: root only)";
    NODE_PORT_ADDRESSES: "node-port-addresses", "CIDRS", None,
        "Node addresses that answer nodePorts, comma separated (default: all but loopback and link-local)";
    EXTERNAL_IPS: "external-ips", "CIDRS", None,
        "Addresses that spec.externalIPs may name, comma separated (default: none)";
    LOAD_BALANCER_IPS: "load-balancer-ips", "CIDRS", None,
        "Addresses that load balancers may have, comma separated (default: any that is not special)";
    SERVICE_CIDRS: "service-cidrs", "CIDRS", None,
        "Where ClusterIPs are taken from, comma separated, up to 4 of each family: packets to those that no Service has are dropped (default: none)";
    CLUSTER_IP_RANGE: "cluster-ip-range", "CIDRS", None,
        "Where ClusterIPs are allocated that manifests do not name, the primary family first, comma separated (default: service-cidrs)";
    NODE_PORT_RANGE: "node-port-range", "MIN-MAX", Some("30000-32767"),
        "Which ports nodePorts may be; those that manifests do not name are allocated there, as are health-check ports";
    LOAD_BALANCER_POOLS: "load-balancer-pools", "RANGES", None,
        "Addresses for Services of type LoadBalancer: networks or FIRST-LAST, comma separated (default: none, they stay pending)";
    ROUTE_TABLE: "route-table", "N", None,
        "Routing table that gets a route for each load balancer address served here, for FRR or BIRD to announce (default: none)";
    ANNOUNCE_DEVICES: "announce-devices", "PATTERNS", None,
        "Devices on whose segment one node answers ARP requests and neighbour solicitations for each load balancer address: shell globs, comma separated (default: none)";
    ANNOUNCE_ADDRESSES: "announce-addresses", "WHICH", Some("pools"),
        "What is answered for there: pools (addresses of load-balancer-pools) or all (any of a load balancer, and external IPs)";
    SNAT_PORTS: "snat-ports", "MIN-MAX", Some("1024-29999"),
        "Source ports for connections to backends on other nodes";
    MAX_FLOWS: "max-flows", "N", Some("262144"),
        "Established connections per family, counted by direction";
    MAX_NEW_FLOWS: "max-new-flows", "N", Some("125000"),
        "Connections that each CPU may begin in a second, 0 for any number: a flood of more is dropped";
    TIMEOUT_TCP_HALF_OPEN: "timeout-tcp-half-open", "SECONDS", Some("60"),
        "Silence after which a TCP or SCTP connection is forgotten that the client has not confirmed";
    TIMEOUT_TCP_ESTABLISHED: "timeout-tcp-established", "SECONDS", Some("8000"),
        "The same for an established TCP connection";
    TIMEOUT_TCP_HALF_CLOSED: "timeout-tcp-half-closed", "SECONDS", Some("3600"),
        "The same after a FIN of one side";
    TIMEOUT_TCP_CLOSED: "timeout-tcp-closed", "SECONDS", Some("120"),
        "The same after both sides have ended the connection, TCP or SCTP";
    TIMEOUT_TCP_RESET: "timeout-tcp-reset", "SECONDS", Some("40"),
        "The same after a reset, TCP or SCTP";
    TIMEOUT_UDP: "timeout-udp", "SECONDS", Some("30"),
        "Silence after which a UDP flow without an answer is forgotten";
    TIMEOUT_UDP_ANSWERED: "timeout-udp-answered", "SECONDS", Some("180"),
        "The same for a UDP flow that was answered";
    TIMEOUT_SCTP: "timeout-sctp", "SECONDS", Some("210"),
        "The same for an established SCTP association";
    SOCKET_LB: "socket-lb", "SCOPE", Some("host"),
        "Whose sockets are connected straight to backends: off (nobody's), host (this network namespace's) or all";
    CGROUP: "cgroup", "DIR", None,
        "Control group whose sockets are served (default: the root of the hierarchy, so every process)";
    SOCKET_LB_SKIP_NETNS: "socket-lb-skip-netns", "PATTERNS", None,
        "Network namespaces whose sockets are left alone: files such as /run/netns/kata-*, comma separated globs";
    LOG: "log", "LEVEL", Some("info"),
        "error, warn, info, debug, trace, or a filter such as svc_agent::attach=debug";
}

/// Where a value came from; displays as what the operator has to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `--pin-dir`
    Flag(&'static str),
    /// `SVC_AGENT_PIN_DIR`
    Variable(&'static str),
    /// `pin-dir` in a file.
    File(&'static str, PathBuf),
    /// Nobody said anything.
    Default(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Variable(name) => write!(f, "{name}"),
            Self::File(name, file) => write!(f, "`{name}` in {}", file.display()),
            Self::Default(name) => write!(f, "default of `{name}`"),
        }
    }
}

/// The command line arguments for `keys`.
pub fn arguments(keys: &[Key]) -> impl Iterator<Item = Arg> + '_ {
    keys.iter().map(|key| {
        let help = match key.default {
            Some(default) => format!("{} [default: {default}]", key.help),
            None => key.help.to_owned(),
        };
        let arg = Arg::new(key.name)
            .long(key.name)
            .value_name(key.value_name)
            .env(key.variable)
            .hide_env(true)
            .help(help)
            .allow_negative_numbers(true);
        if key.value_name == SWITCH {
            arg.num_args(0..=1).require_equals(true).default_missing_value("true")
        } else {
            arg
        }
    })
}

/// Every value that somebody gave, as text, with its origin.
#[derive(Debug, Default)]
pub struct Values(BTreeMap<&'static str, (String, Origin)>);

impl Values {
    /// Collects the values: flag before environment variable before file before default.
    ///
    /// # Errors
    /// If the file cannot be read, is not TOML, or has a key that does not exist or a value of a wrong type.
    pub fn collect(matches: &ArgMatches) -> Result<Self, ConfigError> {
        let mut values = Self::default();
        for key in ALL {
            if let Some(default) = key.default {
                values.0.insert(key.name, (default.to_owned(), Origin::Default(key.name)));
            }
        }
        if let Some((file, _)) = given(matches, &CONFIG) {
            values.read_file(Path::new(&file))?;
        }
        for key in ALL {
            if let Some(value) = given(matches, key) {
                values.0.insert(key.name, value);
            }
        }
        Ok(values)
    }

    /// The value of `key`; an empty text counts as none.
    pub fn get(&self, key: &Key) -> Option<(&str, &Origin)> {
        self.0.get(key.name).filter(|(value, _)| !value.is_empty()).map(|(value, origin)| (value.as_str(), origin))
    }

    fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::File { path: path.to_owned(), reason: source.to_string() })?;
        self.read_toml(path, &text)
    }

    fn read_toml(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let file = |reason: String| ConfigError::File { path: path.to_owned(), reason };
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| file(error.to_string()))?;
        for (name, value) in table {
            let key = ALL.iter().find(|key| key.name == name).ok_or_else(|| {
                let known: Vec<_> = ALL.iter().map(|key| key.name).collect();
                let near = nearest(&name, known.iter().copied()).map(|near| format!("did you mean `{near}`? "));
                let near = near.unwrap_or_default();
                file(format!("unknown key {}; {near}the keys are {}", quote(&name), known.join(", ")))
            })?;
            let found = value.type_str();
            let switch = value.as_bool().filter(|_| key.value_name == SWITCH);
            let value = switch.map(|on| on.to_string()).or_else(|| plain(value)).ok_or_else(|| {
                file(format!(
                    "`{name}`: found a value of type {found}, expected a string, a number or a list of strings"
                ))
            })?;
            self.0.insert(key.name, (value, Origin::File(key.name, path.to_owned())));
        }
        Ok(())
    }
}

/// What a flag or an environment variable says.
fn given(matches: &ArgMatches, key: &Key) -> Option<(String, Origin)> {
    // A command that does not have the key's flag may still read it from the file.
    if !matches.try_contains_id(key.name).unwrap_or(false) {
        return None;
    }
    let origin = match matches.value_source(key.name)? {
        ValueSource::CommandLine => Origin::Flag(key.name),
        ValueSource::EnvVariable => Origin::Variable(key.variable),
        _ => return None,
    };
    // An empty variable is how many service managers say "not set".
    let value = matches.get_one::<String>(key.name)?;
    (!value.is_empty() || matches!(origin, Origin::Flag(_))).then(|| (value.clone(), origin))
}

/// A TOML value as the text that a flag would carry.
fn plain(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<_>> = items
                .into_iter()
                .map(|item| match item {
                    toml::Value::String(text) => Some(text),
                    _ => None,
                })
                .collect();
            texts.map(|texts| texts.join(","))
        }
        toml::Value::Float(_) | toml::Value::Boolean(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Values, ConfigError> {
        let mut values = Values::default();
        values.read_toml(Path::new("agent.toml"), text).map(|()| values)
    }

    #[test]
    fn a_file_gives_strings_numbers_and_lists() {
        let values = read("pin-dir = '/sys/fs/bpf/x'\nmax-flows = 1000\nuplinks = ['eth0', 'eth1']\n").unwrap();
        assert_eq!(values.get(&PIN_DIR).unwrap().0, "/sys/fs/bpf/x");
        assert_eq!(values.get(&MAX_FLOWS).unwrap().0, "1000");
        assert_eq!(values.get(&UPLINKS).unwrap().0, "eth0,eth1");
        assert_eq!(values.get(&UPLINKS).unwrap().1.to_string(), "`uplinks` in agent.toml");
    }

    #[test]
    fn a_misspelt_key_is_refused_by_name() {
        let error = read("pindir = '/x'").unwrap_err().to_string();
        assert!(error.contains("agent.toml") && error.contains("`pindir`") && error.contains("pin-dir"), "{error}");
        let error = read("zone = true").unwrap_err().to_string();
        assert!(error.contains("`zone`") && error.contains("boolean"), "{error}");
        assert_eq!(read("kubernetes = true").unwrap().get(&KUBERNETES).unwrap().0, "true");
    }

    #[test]
    fn the_variable_is_the_key_in_capitals() {
        for key in ALL {
            assert_eq!(key.variable, format!("SVC_AGENT_{}", key.name.to_uppercase().replace('-', "_")));
        }
    }
}
