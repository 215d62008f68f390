//! Events on Services (events.k8s.io/v1). Pure.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::model::{ObjectKey, ObjectKind, ServiceName};
use crate::resolve::{Problem, Severity};
use crate::sources::Snapshot;

/// Characters of a note; the API server takes 1,024 bytes.
const MAX_NOTE: usize = 250;

/// Something to tell about a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The Service.
    pub service: ServiceName,
    uid: String,
    /// What is wrong with it.
    pub note: String,
}

/// Where Events of a namespace are made.
pub fn path(namespace: &str) -> String {
    format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events")
}

/// What is refused, of Services that are there.
pub fn notices(snapshot: &Snapshot, problems: &[Problem]) -> Vec<Notice> {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    let of_services = errors.filter_map(|problem| {
        let service = problem.about.clone()?;
        let (namespace, name) = (service.namespace.clone(), service.name.clone());
        let raw = snapshot.objects.raw.get(&ObjectKey { kind: ObjectKind::Service, namespace, name })?;
        let object: Value = serde_json::from_str(raw.json()).ok()?;
        let uid = object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Notice { service, uid, note: problem.text.chars().take(MAX_NOTE).collect() })
    });
    of_services.collect()
}

impl Notice {
    /// The Event. Its name is the same on every node within an hour, so that there is one of them.
    pub fn event(&self, node: &str, time: Timestamp) -> Value {
        let mut hasher = DefaultHasher::new();
        (&self.uid, &self.note, time.as_second() / 3600).hash(&mut hasher);
        let service: String = self.service.name.chars().take(200).collect();
        json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": format!("{service}.{:016x}", hasher.finish()), "namespace": self.service.namespace},
            "eventTime": format!("{time:.6}"),
            "reportingController": "svc-agent",
            "reportingInstance": node,
            "action": "Program",
            "reason": "Refused",
            "type": "Warning",
            "note": self.note,
            "regarding": {
                "apiVersion": "v1",
                "kind": "Service",
                "namespace": self.service.namespace,
                "name": self.service.name,
                "uid": self.uid,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_makes_the_same_event_and_another_hour_another_one() {
        let notice = Notice { service: ServiceName::new("default", "web"), uid: "u1".into(), note: "no room".into() };
        let at = |second| Timestamp::from_second(second).unwrap();
        let [a, b] = ["node-a", "node-b"].map(|node| notice.event(node, at(3600)));
        assert_eq!(a["metadata"], b["metadata"]);
        assert_eq!(b["reportingInstance"], "node-b");
        assert_ne!(a["metadata"], notice.event("node-a", at(7200))["metadata"]);
        assert_eq!(a["eventTime"], "1970-01-01T01:00:00.000000Z");
        assert_eq!(a["regarding"]["uid"], "u1");
    }
}
