//! A zone to ask, and a short way to ask it.

use std::str::FromStr as _;

use hickory_proto::op::Query;
use hickory_proto::rr::{Name, RecordType};
use serde_json::json;

use crate::source::lines::{Line, Service};
use crate::zone::{Settings, Zone};

pub fn service(document: &serde_json::Value) -> Service {
    match serde_json::from_value(json!({ "service": document })).unwrap() {
        Line::Service(service) => service,
        other => panic!("{other:?}"),
    }
}

/// `default/web` (both families, named and unnamed ports), `default/db` (headless), `default/none` (headless, nobody
/// ready), `default/out` (alias), `default/loop-a` and `-b` (aliases of each other), `kube-system/v4`.
pub fn zone() -> Zone {
    zone_with(false)
}

pub fn zone_with(pod_names: bool) -> Zone {
    let settings =
        Settings { domain: name("cluster.local"), ttl_s: 5, servers: vec!["192.0.2.53".parse().unwrap()], pod_names };
    let mut zone = Zone::new(settings, 1000);
    let named = json!([{"name": "https", "protocol": "TCP", "port": 6443}]);
    for document in [
        json!({"namespace": "default", "name": "web", "clusterIps": ["10.3.0.1", "fd00::1"], "ports": [
            {"name": "https", "protocol": "TCP", "port": 443}, {"name": "dns", "protocol": "UDP", "port": 53}]}),
        json!({"namespace": "default", "name": "db", "headless": true,
            "ports": [{"name": "https", "protocol": "TCP", "port": 443}],
            "endpoints": [
                {"address": "10.3.0.100", "hostname": "my-pet", "ports": named},
                {"address": "fd00::100", "hostname": "my-pet", "ports": named},
                {"address": "10.3.0.101", "ports": named},
                {"address": "fd00::101", "ports": named}]}),
        json!({"namespace": "default", "name": "none", "headless": true, "ports": [{"protocol": "TCP", "port": 80}]}),
        json!({"namespace": "default", "name": "out", "externalName": "www.example.com",
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}]}),
        json!({"namespace": "default", "name": "loop-a", "externalName": "loop-b.default.svc.cluster.local"}),
        json!({"namespace": "default", "name": "loop-b", "externalName": "loop-a.default.svc.cluster.local"}),
        json!({"namespace": "default", "name": "inner", "externalName": "web.default.svc.cluster.local"}),
        json!({"namespace": "kube-system", "name": "v4", "clusterIps": ["10.3.0.2"],
            "ports": [{"protocol": "TCP", "port": 80}]}),
    ] {
        zone.insert(service(&document));
    }
    zone.set_loaded();
    zone
}

pub fn name(text: &str) -> Name {
    Name::from_labels(text.split('.').map(str::as_bytes)).unwrap()
}

pub fn question(text: &str, query_type: &str) -> Query {
    Query::query(name(text), RecordType::from_str(query_type).unwrap())
}
