//! A validated Node object: where its Pods are, and whether it wants traffic.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// An address of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// `InternalIP` or `ExternalIP`.
    pub kind: String,
    /// The address.
    pub addr: IpAddr,
}

/// A taint: why Pods, or traffic, should stay away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value, empty if it has none.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// A valid Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where it was read, for messages: file and document.
    pub origin: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The label `topology.kubernetes.io/zone`, if it says anything.
    pub zone: Option<String>,
    /// Its addresses, names left out.
    pub addresses: Vec<NodeAddress>,
    /// `spec.unschedulable`: drained or about to be.
    pub unschedulable: bool,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// `metadata.deletionTimestamp`: it is being deleted.
    pub deleting: bool,
}

/// Set by the cluster autoscaler on a node that it is about to remove (KEP-3836).
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// Set by an operator who takes a node out of the balancers.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

impl Node {
    /// Whether load balancers should leave it out (the label `node.kubernetes.io/exclude-from-external-load-balancers`, whatever its
    /// value, KEP-1143).
    pub fn excluded(&self) -> bool {
        self.labels.contains_key(EXCLUDED)
    }

    /// Whether it is going away, so that load balancers should send it no new connections.
    pub fn leaving(&self) -> bool {
        self.deleting || self.taints.iter().any(|taint| taint.key == TO_BE_DELETED)
    }
}
