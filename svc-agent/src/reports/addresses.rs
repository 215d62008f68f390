//! Addresses from the pools for Services of type LoadBalancer. Pure: every node with the same objects gives the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::controllers::pool::{Pool, choose};
use crate::model::{AddressFamily, ObjectKey, ObjectKind, Service, ServiceName, ServiceType, Skipped};
use crate::sources::Snapshot;

/// What a Service gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The Service.
    pub service: ServiceName,
    /// The version that the choice was made for: the API server takes it for no other.
    version: String,
    /// Its addresses from now on.
    pub addresses: Vec<IpAddr>,
}

impl Assignment {
    /// The change of its status.
    pub fn request(&self) -> crate::sources::kubernetes::transport::Request {
        use crate::sources::kubernetes::transport::{Method, Request};
        let ingress: Vec<Value> = self.addresses.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
        let patch = json!({
            "metadata": {"resourceVersion": self.version},
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        let ServiceName { namespace, name } = &self.service;
        Request {
            method: Method::Patch,
            path: format!("/api/v1/namespaces/{namespace}/services/{name}/status"),
            body: Some(("application/merge-patch+json", patch.to_string().into_bytes())),
        }
    }
}

/// What is to be given now. Those that have an address keep it; of two with one address from the pools the older one does.
pub fn assign(snapshot: &Snapshot, pools: &[Pool]) -> Vec<Assignment> {
    if pools.is_empty() {
        return Vec::new();
    }
    let from_pools = |ip: &IpAddr| pools.iter().any(|pool| pool.contains(*ip));
    let mut services: Vec<&Service> = snapshot.objects.services.values().map(AsRef::as_ref).collect();
    services.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    let mut owners: BTreeMap<IpAddr, &ServiceName> = BTreeMap::new();
    for service in &services {
        for ingress in &service.ingress {
            owners.entry(ingress.ip).or_insert(&service.name);
        }
    }
    let mut taken: BTreeSet<IpAddr> = owners.keys().copied().filter(|ip| from_pools(ip)).collect();
    let mut assignments = Vec::new();
    for service in services.into_iter().filter(|service| is_ours(service)) {
        let wished = service.load_balancer_ip;
        let lost = |ip: IpAddr| from_pools(&ip) && wished != Some(ip) && owners.get(&ip) != Some(&&service.name);
        let kept: Vec<IpAddr> = service.ingress.iter().map(|ingress| ingress.ip).filter(|ip| !lost(*ip)).collect();
        if !kept.is_empty() {
            continue;
        }
        let mut addresses = Vec::new();
        for family in families(service) {
            let wish = wished.filter(|ip| AddressFamily::of(*ip) == family);
            let chosen = match wish {
                Some(ip) => Some(ip).filter(|ip| from_pools(ip) && !taken.contains(ip)),
                None => choose(pools, family, "load-balancer", &service.name, taken.len(), |ip| taken.contains(&ip)),
            };
            taken.extend(chosen);
            addresses.extend(chosen);
        }
        if let Some(version) = version(snapshot, service).filter(|_| !addresses.is_empty()) {
            assignments.push(Assignment { service: service.name.clone(), version, addresses });
        }
    }
    assignments
}

/// Whether nobody else gives it an address.
fn is_ours(service: &Service) -> bool {
    service.service_type == ServiceType::LoadBalancer
        && service.load_balancer_class.is_none()
        && service.skipped != Some(Skipped::OtherProxy)
}

fn families(service: &Service) -> Vec<AddressFamily> {
    if !service.families.is_empty() {
        return service.families.clone();
    }
    service.cluster_ips.iter().map(|ip| AddressFamily::of(*ip)).collect()
}

/// The version of a Service; `None` if its status has what is no address: somebody else writes it.
fn version(snapshot: &Snapshot, service: &Service) -> Option<String> {
    let (namespace, name) = (service.name.namespace.clone(), service.name.name.clone());
    let raw = snapshot.objects.raw.get(&ObjectKey { kind: ObjectKind::Service, namespace, name })?;
    let object: Value = serde_json::from_str(raw.json()).ok()?;
    let ingress = object.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
    if ingress.is_some_and(|list| list.len() != service.ingress.len()) {
        return None;
    }
    Some(object.pointer("/metadata/resourceVersion")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Rules;
    use crate::sources::manifests::ManifestSource;

    fn service(name: &str, day: u8, extra: &str, ingress: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, resourceVersion: \"7\", creationTimestamp: \
             \"2026-01-0{day}T00:00:00Z\"}}\nspec: {{type: LoadBalancer, clusterIP: 10.96.0.{day}, ipFamilies: [IPv4], \
             ports: [{{port: 80}}]{extra}}}\nstatus: {{loadBalancer: {{ingress: [{ingress}]}}}}\n---\n"
        )
    }

    fn given(text: &str, pools: &[&str]) -> Vec<(String, Vec<String>)> {
        let snapshot = ManifestSource::read_text(text.as_bytes(), "test", &Rules::default());
        let pools: Vec<Pool> = pools.iter().map(|pool| pool.parse().unwrap()).collect();
        let shown = |assignment: Assignment| {
            (assignment.service.name.clone(), assignment.addresses.iter().map(ToString::to_string).collect())
        };
        assign(&snapshot, &pools).into_iter().map(shown).collect()
    }

    #[test]
    fn those_without_an_address_get_one_that_nobody_has() {
        let text = service("a", 1, "", "") + &service("b", 2, "", "{ip: 192.0.2.10}") + &service("c", 3, "", "");
        let found = given(&text, &["192.0.2.10-192.0.2.12"]);
        let mut addresses: Vec<_> = found.iter().flat_map(|(_, addresses)| addresses.clone()).collect();
        addresses.sort();
        assert_eq!(addresses, ["192.0.2.11", "192.0.2.12"]);
        assert_eq!(found, given(&text, &["192.0.2.10-192.0.2.12"]), "every node does the same");
        assert!(given(&text, &[]).is_empty() && given(&text, &["192.0.2.10"]).is_empty());
    }

    #[test]
    fn a_wish_is_fulfilled_if_it_is_free_and_of_the_pool() {
        let wish = |ip: &str| service("a", 1, &format!(", loadBalancerIP: {ip}"), "");
        assert_eq!(given(&wish("192.0.2.5"), &["192.0.2.0/24"]), [("a".into(), vec!["192.0.2.5".into()])]);
        assert!(given(&wish("198.51.100.5"), &["192.0.2.0/24"]).is_empty());
        let other = service("b", 2, "", "{ip: 192.0.2.5}");
        assert!(given(&(wish("192.0.2.5") + &other), &["192.0.2.0/24"]).is_empty());
    }

    #[test]
    fn of_two_with_one_address_the_younger_one_gets_another() {
        let text = service("a", 2, "", "{ip: 192.0.2.5}") + &service("b", 1, "", "{ip: 192.0.2.5}");
        let found = given(&text, &["192.0.2.0/24"]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "a");
        assert_ne!(found[0].1, ["192.0.2.5"]);
    }

    #[test]
    fn what_belongs_to_others_is_left_alone() {
        let classed = service("a", 1, ", loadBalancerClass: other.example/lb", "");
        assert!(given(&classed, &["192.0.2.0/24"]).is_empty());
        let elsewhere = service("a", 1, "", "{hostname: lb.example}") + &service("b", 2, "", "{ip: 203.0.113.1}");
        assert!(given(&elsewhere, &["192.0.2.0/24"]).is_empty());
    }
}
