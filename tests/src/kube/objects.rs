//! The objects that a kubelet would write: Nodes, and the status of Pods.

use anyhow::Result;
use serde_json::{Value, json};

use super::Cluster;
use crate::topology::{Pod, World};

impl Cluster {
    /// Makes a Node for every node of a world, in zones `zone-0`, `zone-1`, and so on.
    ///
    /// # Errors
    /// If one is refused.
    pub fn make_nodes(&self, world: &World) -> Result<()> {
        let node = |(index, host): (usize, &crate::topology::Host)| {
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {
                "name": host.name,
                "labels": {"topology.kubernetes.io/zone": format!("zone-{index}")},
            }})
        };
        self.apply_all(world.nodes.iter().enumerate().map(node).collect())
    }

    /// Makes Pods with a label `app`, running and ready.
    ///
    /// # Errors
    /// If one is refused.
    pub fn make_pods<'a>(&self, app: &str, pods: impl IntoIterator<Item = &'a Pod>) -> Result<()> {
        let pods: Vec<&Pod> = pods.into_iter().collect();
        let object = |pod: &&Pod| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
                    "name": pod.host.name, "namespace": "default", "labels": {"app": app},
                },
                "spec": {
                    "nodeName": format!("node-{}", pod.node),
                    "automountServiceAccountToken": false,
                    "containers": [{"name": "server", "image": "server", "ports": [
                        {"name": "web", "containerPort": crate::server::HTTP},
                    ]}],
                },
            })
        };
        self.apply_all(pods.iter().map(object).collect())?;
        pods.iter().try_for_each(|pod| self.set_ready(pod, true))
    }

    /// Writes the status of a Pod, as its kubelet would.
    ///
    /// # Errors
    /// If it is refused.
    pub fn set_ready(&self, pod: &Pod, ready: bool) -> Result<()> {
        let ready = if ready { "True" } else { "False" };
        let [v4, v6] = pod.host.addresses();
        let patch = json!({"status": {
            "phase": "Running",
            "podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}],
            "conditions": [{"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": ready}],
        }});
        self.kubectl(&[
            "patch",
            "pod",
            &pod.host.name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch.to_string(),
        ])
        .map(drop)
    }

    /// Makes many objects at once.
    ///
    /// # Errors
    /// If one is refused.
    pub fn apply_all(&self, objects: Vec<Value>) -> Result<()> {
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())
    }
}
