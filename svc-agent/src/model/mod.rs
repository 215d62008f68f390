//! Validated objects of our own: what every source delivers, whatever it read them from.
//!
//! What is here has passed the API server's rules and the one address check for all sources. This module knows nothing
//! of files, of the node, or of policy.

mod name;
mod problem;
mod service;
mod slice;

pub use name::{ObjectKey, ObjectKind, ServiceName};
pub use problem::{Problem, Severity};
pub use service::{Ingress, Protocol, Service, ServicePort, ServiceType, Skipped};
pub use slice::{Endpoint, EndpointSlice, SliceOrigin, SlicePort, Target};
