//! What somebody asked of the API servers, as their audit logs have it.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::Value;

use super::Cluster;

/// Who asked for what; not the objects.
pub(super) const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
                                 - {level: Metadata, users: [\"system:serviceaccount:kube-system:svc-agent\"]}\n\
                                 - {level: None}\n";

/// A request, as RBAC looks at it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// The API group; empty for the core.
    pub group: String,
    /// The resource, with its subresource if it is one.
    pub resource: String,
    /// What is done.
    pub verb: String,
    /// The status of the answer.
    pub status: u64,
}

impl Cluster {
    /// What the agent's service account asked of any API server.
    ///
    /// # Errors
    /// If an audit log cannot be read.
    pub fn asked(&self) -> Result<BTreeSet<Asked>> {
        let mut asked = BTreeSet::new();
        for index in 0..self.hosts.len() {
            let text = std::fs::read_to_string(self.audit_log(index)).unwrap_or_default();
            for line in text.lines() {
                // The last line may be half written.
                if let Ok(event) = serde_json::from_str::<Value>(line) {
                    asked.insert(read(&event));
                }
            }
        }
        Ok(asked)
    }
}

fn read(event: &Value) -> Asked {
    let word = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (resource, sub) = (word("/objectRef/resource"), word("/objectRef/subresource"));
    Asked {
        group: word("/objectRef/apiGroup").to_owned(),
        resource: if sub.is_empty() { resource.to_owned() } else { format!("{resource}/{sub}") },
        verb: word("/verb").to_owned(),
        status: event.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or_default(),
    }
}
