//! The arguments.

use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::builder::{EnumValueParser, PossibleValue, TypedValueParser};
use clap::{Arg, Args as Group, Parser, Subcommand, ValueEnum};

use super::expose::{EndpointArg, PortArg, TargetArg};
use crate::config::Forwarding;
use crate::control::DEFAULT_SOCKET;
use crate::control::api::{AddressMatch, Protocol, Selector};
use crate::simulate::{FirstHook, Side};

/// Shows what the node agent does.
#[derive(Clone, Debug, Parser)]
#[command(name = "svcctl", version, propagate_version = true)]
pub struct Args {
    /// Control socket of the agent
    #[arg(long, global = true, env = "SVC_AGENT_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show the agent: sync, devices, maps, counters
    Status(Output),
    /// Show Services and other objects, and what the node makes of them
    Get(Get),
    /// Create or change objects of the agent's own; for root
    Apply(Apply),
    /// Delete objects of the agent's own; for root
    Delete(Delete),
    /// Show all that is known of a Service: definition, endpoints, traffic, problems
    Describe(Describe),
    /// Print the environment variables that containers of a namespace get for its Services
    Env(Env),
    /// Make a Service over endpoints, over Pods, or over a name elsewhere; for root
    Expose(Expose),
    /// Ask the loaded programs what they would do with a packet, step by step; for root
    Trace(Trace),
    /// Send the packets of a capture through a directory of manifests, without an agent and without privileges
    Simulate(Simulate),
    /// Show dropped packets and connections that begin or end, as it happens
    Events(Events),
    /// Show the versions of svcctl and of the agent
    Version,
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages of svcctl and svc-agent to a directory
    Man {
        /// The directory
        directory: PathBuf,
    },
}

/// How to show it.
#[derive(Clone, Copy, Debug, Group)]
pub struct Output {
    /// Output format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// Leave the headers of tables out
    #[arg(long)]
    pub no_headers: bool,
}

/// How to show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns with rounded numbers
    #[default]
    Table,
    /// More columns
    Wide,
    /// JSON with exact numbers
    Json,
    /// YAML with exact numbers
    Yaml,
    /// Names alone; for objects
    Name,
}

/// What to apply.
#[derive(Clone, Debug, Group)]
pub struct Apply {
    /// Manifests: a file, a directory, or - for standard input; may be repeated
    #[arg(short, long, value_name = "FILE|DIR|-", required = true)]
    pub file: Vec<PathBuf>,
    /// Namespace of objects that name none, and the only one allowed
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Change nothing, and show what would be changed
    #[arg(long)]
    pub dry_run: bool,
}

/// What to delete.
#[derive(Clone, Debug, Group)]
pub struct Delete {
    /// Kind and names, or KIND/NAME
    #[arg(value_name = "KIND NAME")]
    pub what: Vec<String>,
    /// Manifests that name the objects: a file, a directory, or - for standard input; may be repeated
    #[arg(short, long, value_name = "FILE|DIR|-")]
    pub file: Vec<PathBuf>,
    /// Namespace of the objects
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// What is not there is no error
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Change nothing, and show what would be deleted
    #[arg(long)]
    pub dry_run: bool,
}

/// What to describe.
#[derive(Clone, Debug, Group)]
pub struct Describe {
    /// service NAME, or service/NAME
    #[arg(value_name = "KIND NAME", required = true, num_args = 1..=2)]
    pub what: Vec<String>,
    /// Namespace of the Service
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

/// Whose variables to print.
#[derive(Clone, Debug, Group)]
pub struct Env {
    /// Only those of this Service
    pub service: Option<String>,
    /// Namespace of the containers
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

/// What to expose.
#[derive(Clone, Debug, Group)]
pub struct Expose {
    /// Name of the Service
    pub name: String,
    /// A port that clients dial, where it leads to, and its protocol: 80, 80:8080, dns=53/UDP; may be repeated
    #[arg(long = "port", value_name = "[NAME=]PORT[:TARGET][/PROTOCOL]")]
    pub ports: Vec<PortArg>,
    /// Where a single port leads to: a number, or with --selector the name of a port of the Pods
    #[arg(long, value_name = "PORT")]
    pub target_port: Option<TargetArg>,
    /// Somebody who serves: 10.0.0.1:8080, [fd00::1]:8080, 10.0.0.1:8080@node-a; may be repeated
    #[arg(long = "endpoint", value_name = "ADDRESS[:PORT][@NODE]")]
    pub endpoints: Vec<EndpointArg>,
    /// The Pods that serve, by their labels
    #[arg(long, value_name = "LABELS")]
    pub selector: Option<Selector>,
    /// The name that the Service stands for; makes it an ExternalName
    #[arg(long, value_name = "NAME")]
    pub external_name: Option<String>,
    /// Type of the Service
    #[arg(long = "type", value_enum, default_value_t, value_name = "TYPE")]
    pub service_type: ExposedType,
    /// ClusterIP; None makes the Service headless
    #[arg(long, value_name = "ADDRESS")]
    pub cluster_ip: Option<String>,
    /// nodePort of a single port
    #[arg(long, value_name = "PORT")]
    pub node_port: Option<u16>,
    /// Address that the load balancer should have
    #[arg(long, value_name = "ADDRESS")]
    pub load_balancer_ip: Option<String>,
    /// Further address, if the agent allows it; may be repeated
    #[arg(long = "external-ip", value_name = "ADDRESS")]
    pub external_ips: Vec<IpAddr>,
    /// None or ClientIP
    #[arg(long, value_name = "AFFINITY")]
    pub session_affinity: Option<String>,
    /// Cluster or Local
    #[arg(long, value_name = "POLICY")]
    pub external_traffic_policy: Option<String>,
    /// Labels of the Service
    #[arg(short, long, value_name = "LABELS")]
    pub labels: Option<Selector>,
    /// Namespace of the Service
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Change nothing, and show what would be made
    #[arg(long)]
    pub dry_run: bool,
    /// Print what is made: yaml or json
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Format>,
}

/// Types of Services that can be exposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExposedType {
    /// Inside only
    #[default]
    #[value(name = "ClusterIP")]
    ClusterIp,
    /// Also at a port of every node
    #[value(name = "NodePort")]
    NodePort,
    /// Also at an address of its own
    #[value(name = "LoadBalancer")]
    LoadBalancer,
}

impl ExposedType {
    /// As in a manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// What to listen to.
#[derive(Clone, Copy, Debug, Group)]
pub struct Events {
    /// Only packets that are dropped
    #[arg(long)]
    pub drops: bool,
    /// Only connections that begin or end
    #[arg(long)]
    pub flows: bool,
    /// One event of so many
    #[arg(long, value_name = "N")]
    pub sample: Option<u32>,
    /// End after so many
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// How to show it.
    #[command(flatten)]
    pub output: Output,
}

/// What to get.
#[derive(Clone, Debug, Group)]
pub struct Get {
    /// What to show; RESOURCE/NAME names an object of it, too
    #[arg(value_name = "RESOURCE", value_parser = WhatParser)]
    pub what: What,
    /// Only this object, or what belongs to this Service (NAME or NAMESPACE/NAME); for devices the device's name
    pub name: Option<String>,
    /// Namespace of the objects (default: `default`) or of the Services that the rest belongs to (default: all)
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    pub namespace: Option<String>,
    /// Show every namespace
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only objects with these labels, such as app=web,tier!=db
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<Selector>,
    /// Show the labels of objects in a column
    #[arg(long)]
    pub show_labels: bool,
    /// Show objects, and then every change of them
    #[arg(short, long)]
    pub watch: bool,
    /// Show at most so many
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Show counters that are zero, too
    #[arg(long)]
    pub all: bool,
    /// How to show it.
    #[command(flatten)]
    pub output: Output,
    /// Which connections.
    #[command(flatten)]
    pub flows: Flows,
}

/// Which connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Group)]
#[command(next_help_heading = "Options of `get flows`")]
pub struct Flows {
    /// Only connections of this client: an address, a network, or an address and port
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<AddressMatch>,
    /// Only connections to this VIP
    #[arg(long, value_name = "ADDRESS")]
    pub vip: Option<AddressMatch>,
    /// Only connections served by this backend
    #[arg(long, value_name = "ADDRESS")]
    pub backend: Option<AddressMatch>,
    /// Only connections of this protocol: tcp, udp or sctp
    #[arg(long)]
    pub protocol: Option<Protocol>,
}

/// Which packet.
#[derive(Clone, Debug, Group)]
pub struct Trace {
    /// tcp or udp
    pub protocol: Protocol,
    /// Where it comes from
    #[arg(value_name = "SRC:PORT")]
    pub source: SocketAddr,
    /// Where it goes to
    #[arg(value_name = "DST:PORT")]
    pub destination: SocketAddr,
    /// Device that it comes in through; the first uplink unless given
    #[arg(long, value_name = "DEV")]
    pub device: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

/// What to simulate.
#[derive(Clone, Debug, Group)]
pub struct Simulate {
    /// Directory (or file) of manifests
    #[arg(long, value_name = "DIR")]
    pub config: PathBuf,
    /// Capture to read: pcap or pcapng of Ethernet frames
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// Capture to write: what comes out, as pcap
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// Where packets meet the programs first
    #[arg(long, value_enum, default_value = "tc")]
    pub hook: FirstHook,
    /// Where packets come from, if their capture names no device that is known
    #[arg(long = "as", value_enum, default_value = "external", value_name = "SIDE")]
    pub side: Side,
    /// A device, by the name that a pcapng capture gives it; CLASS is uplink, workload, overlay or other
    #[arg(long = "device", value_name = "NAME=CLASS")]
    pub devices: Vec<String>,
    /// Name of the simulated node: endpoints with it are here
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// TOML file with the node's name, addresses, devices and routes
    #[arg(long, value_name = "FILE")]
    pub world: Option<PathBuf>,
    /// How packets are forwarded whose source address stays: fast or kernel
    #[arg(long, value_name = "WAY", default_value = "fast", value_parser = forwarding)]
    pub forwarding: Forwarding,
    /// Print what becomes of each packet
    #[arg(short, long)]
    pub verbose: bool,
}

fn forwarding(text: &str) -> Result<Forwarding, String> {
    text.parse().map_err(|expected| format!("expected {expected}"))
}

/// A resource, and perhaps the name of an object: `svc/web`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct What {
    /// What to show.
    pub resource: Resource,
    /// Of which object.
    pub name: Option<String>,
}

/// Reads a [`What`]; offers what [`Resource`] does.
#[derive(Clone)]
struct WhatParser;

impl TypedValueParser for WhatParser {
    type Value = What;

    fn parse_ref(&self, command: &clap::Command, arg: Option<&Arg>, value: &OsStr) -> Result<What, clap::Error> {
        let text = value.to_string_lossy();
        let (resource, name) = match text.split_once('/') {
            Some((resource, name)) => (resource, Some(name.to_owned())),
            None => (&*text, None),
        };
        let resource = EnumValueParser::<Resource>::new().parse_ref(command, arg, OsStr::new(resource))?;
        Ok(What { resource, name })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let values: Vec<_> = EnumValueParser::<Resource>::new().possible_values()?.collect();
        Some(Box::new(values.into_iter()))
    }
}

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Resource {
    /// Services as they are defined, with what was allocated for them; or: service, svc
    #[value(aliases = ["service", "svc"])]
    Services,
    /// EndpointSlices as they are defined; or: endpointslice, eps
    #[value(name = "endpointslices", aliases = ["endpointslice", "eps"])]
    EndpointSlices,
    /// Pods as they are defined; or: pod, po
    #[value(aliases = ["pod", "po"])]
    Pods,
    /// Nodes as they are defined; or: node, no
    #[value(aliases = ["node", "no"])]
    Nodes,
    /// What this node made of Services: addresses, endpoints, traffic; or: frontend, fe
    #[value(aliases = ["frontend", "fe"])]
    Frontends,
    /// Who serves each Service; or: endpoint, ep. With -o yaml, json or name: Endpoints objects as they are defined
    #[value(aliases = ["endpoint", "ep"])]
    Endpoints,
    /// Endpoints of Services as resolved on this node, one by one; or: target, tg
    #[value(aliases = ["target", "tg"])]
    Targets,
    /// Backends as they lie in the maps; or: backend, be
    #[value(aliases = ["backend", "be"])]
    Backends,
    /// Live connections with their translation; or: flow, fl
    #[value(aliases = ["flow", "fl"])]
    Flows,
    /// Network devices and what is attached to them; or: device, dev
    #[value(aliases = ["device", "dev"])]
    Devices,
    /// What happened to packets, by reason; or: counter
    #[value(aliases = ["counter"])]
    Counters,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Args::command().debug_assert();
    }

    #[test]
    fn resources_go_by_plural_singular_and_short_name() {
        for (names, wanted) in [
            (["services", "service", "svc"], Resource::Services),
            (["endpointslices", "endpointslice", "eps"], Resource::EndpointSlices),
            (["frontends", "frontend", "fe"], Resource::Frontends),
            (["endpoints", "endpoint", "ep"], Resource::Endpoints),
            (["backends", "backend", "be"], Resource::Backends),
            (["flows", "flow", "fl"], Resource::Flows),
            (["devices", "device", "dev"], Resource::Devices),
        ] {
            for name in names {
                assert_eq!(Resource::from_str(name, false), Ok(wanted));
            }
        }
    }
}
