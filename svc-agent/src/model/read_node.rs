//! From a Node as Kubernetes writes it to a valid [`Node`].

use k8s_openapi::api::core::v1 as core;

use super::findings::Findings;
use super::read_pod::labels;
use super::{Node, NodeAddress, Taint, address};

/// Says in which zone a node is.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Validates a Node; what is returned must not be used if the findings refuse it.
pub fn node(object: &core::Node, name: &str, origin: &str, findings: &mut Findings) -> Node {
    let spec = object.spec.as_ref();
    let labels = labels(object.metadata.labels.as_ref(), "metadata.labels", findings);
    let taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten().map(|taint| Taint {
        key: taint.key.clone(),
        value: taint.value.clone().unwrap_or_default(),
        effect: taint.effect.clone(),
    });
    let found = object.status.as_ref().and_then(|status| status.addresses.as_ref()).into_iter().flatten();
    let mut addresses = Vec::new();
    for (i, found) in found.enumerate().filter(|(_, found)| matches!(found.type_.as_str(), "InternalIP" | "ExternalIP"))
    {
        match address::parse(&found.address) {
            Ok(addr) => addresses.push(NodeAddress { kind: found.type_.clone(), addr }),
            Err(error) => findings.leave_out(format!("status.addresses[{i}].address"), error),
        }
    }
    Node {
        name: name.to_owned(),
        origin: origin.to_owned(),
        zone: labels.get(ZONE_LABEL).cloned().filter(|zone| !zone.is_empty()),
        labels,
        addresses,
        unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
        taints: taints.collect(),
        deleting: object.metadata.deletion_timestamp.is_some(),
    }
}
