//! Active health checks, for Services whose annotations ask for them: without a kubelet nobody else sets readiness.
//!
//! Every node checks for itself, from its own network namespace, straight at the endpoint's address. No name is resolved,
//! and little is read of what an endpoint says.

mod ask;
mod prober;
mod state;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

pub use self::prober::Prober;
use crate::model::HealthCheck;

/// What is checked, and how. Services that ask the same of the same endpoint share one check.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Where.
    pub addr: SocketAddr,
    /// How.
    pub check: HealthCheck,
}

/// The targets that fail their checks at present, and why. What is not here is healthy, or was not asked yet.
pub type Failing = Arc<BTreeMap<Target, String>>;
