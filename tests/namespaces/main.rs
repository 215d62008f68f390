//! Real sockets in network namespaces: each file is a feature, each test a sentence that begins with its behaviour.
//!
//! Most tests run in several [`cluster::Setting`]s: what holds must hold whichever hook sees the packet first.

mod affinity;
mod announce;
mod applied;
mod churn;
mod clients;
mod cluster;
mod cluster_ip;
mod control_plane;
mod devices;
mod dns;
mod dsr;
mod events;
mod external;
mod forwarding;
mod fragments;
mod hairpin;
mod harness;
mod health;
mod host_network;
mod icmp;
mod kernel_nat;
mod kubernetes;
mod local;
mod metrics;
mod node_port;
mod privileges;
mod reject;
mod restart;
mod sctp;
mod segment;
mod socket;
mod source_ranges;
mod trace;
mod upheaval;
mod vlan;
