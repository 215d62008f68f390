//! Validated objects of our own: what every source delivers, whatever it read them from.
//!
//! What is here has passed the API server's rules and the one address check for all sources. This module knows nothing
//! of files, of the node, or of policy.

pub mod address;
mod family;
pub mod findings;
mod health_check;
mod name;
mod node;
mod pod;
mod problem;
mod read_health_check;
pub mod read_node;
pub mod read_pod;
mod read_ports;
pub mod read_service;
pub mod read_slices;
mod rules;
mod service;
mod slice;
pub mod text;

#[cfg(test)]
mod pod_tests;
#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod slice_tests;

pub use family::AddressFamily;
pub use health_check::{CheckKind, HealthCheck};
pub use name::{ObjectKey, ObjectKind, ServiceName};
pub use node::{Node, NodeAddress, Taint};
pub use pod::{ContainerPort, Pod};
pub use problem::{Problem, Severity};
pub use rules::Rules;
pub use service::{
    DsrEncapsulation, FamilyPolicy, ForwardingMode, Ingress, Protocol, Service, ServicePort, ServiceType, Skipped,
    TargetPort, TrafficDistribution,
};
pub use slice::{Endpoint, EndpointSlice, SliceOrigin, SlicePort, Target};
