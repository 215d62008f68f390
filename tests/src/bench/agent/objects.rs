//! Services with endpoints as a cluster has them, and changes of single ones.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use serde_json::{Value, json};
use svc_agent::sources::kubernetes::kinds::Watched;

/// Endpoints of one slice, as the controllers cut them.
const SLICE: usize = 100;
/// What pods listen on.
const TARGET: u16 = 8080;

/// All of them.
pub struct Objects {
    /// Endpoints by Service; the last one is the large Service.
    endpoints: Vec<Vec<Ipv4Addr>>,
    addresses: u32,
    chance: u64,
}

/// The Node that the agent runs on.
pub fn node() -> Value {
    json!({"metadata": {"name": "node-0", "labels": {"topology.kubernetes.io/zone": "zone-a"}}})
}

impl Objects {
    /// So many Services with so many endpoints each, and one with many.
    pub fn new(services: usize, endpoints: usize, many: usize) -> Self {
        let mut new = Self { endpoints: Vec::new(), addresses: 0, chance: 0x9e37_79b9_7f4a_7c15 };
        for count in std::iter::repeat_n(endpoints, services).chain([many]) {
            let addresses = (0..count).map(|_| new.address()).collect();
            new.endpoints.push(addresses);
        }
        new
    }

    /// Every object.
    pub fn all(&self) -> impl Iterator<Item = (Watched, Value)> {
        (0..self.endpoints.len()).flat_map(|index| self.of(index))
    }

    /// Every Service with its slices, as a file.
    pub fn files(&self) -> impl Iterator<Item = (String, String)> {
        (0..self.endpoints.len()).map(|index| self.file(index))
    }

    /// Gives one endpoint of one Service another address: where clients dial, the endpoint, its slice.
    pub fn change(&mut self) -> (SocketAddrV4, SocketAddrV4, Value) {
        let index = self.random(self.endpoints.len() - 1);
        self.change_of(index)
    }

    /// The same for the large Service.
    pub fn change_large(&mut self) -> (SocketAddrV4, SocketAddrV4, Value) {
        // Those that were made since come after it.
        let large = (0..self.endpoints.len()).max_by_key(|index| self.endpoints[*index].len()).unwrap_or_default();
        self.change_of(large)
    }

    /// The same as a file.
    pub fn change_file(&mut self) -> (SocketAddrV4, SocketAddrV4, (String, String)) {
        let index = self.random(self.endpoints.len() - 1);
        let (service, endpoint, _) = self.change_of(index);
        (service, endpoint, self.file(index))
    }

    /// One more Service with an endpoint.
    pub fn make(&mut self) -> (SocketAddrV4, SocketAddrV4, Vec<(Watched, Value)>) {
        let address = self.address();
        self.endpoints.push(vec![address]);
        let index = self.endpoints.len() - 1;
        (dialled(index), SocketAddrV4::new(address, TARGET), self.of(index))
    }

    /// A pause that keeps changes apart, and no time with any beat of the agent.
    pub fn pause(&mut self) -> Duration {
        Duration::from_micros(40_000 + self.random(20_000) as u64)
    }

    fn change_of(&mut self, index: usize) -> (SocketAddrV4, SocketAddrV4, Value) {
        let (place, address) = (self.random(self.endpoints[index].len()), self.address());
        self.endpoints[index][place] = address;
        (dialled(index), SocketAddrV4::new(address, TARGET), self.slice(index, place / SLICE))
    }

    fn of(&self, index: usize) -> Vec<(Watched, Value)> {
        let slices = self.endpoints[index].len().div_ceil(SLICE);
        let slices = (0..slices).map(|number| (Watched::EndpointSlices, self.slice(index, number)));
        std::iter::once((Watched::Services, service(index))).chain(slices).collect()
    }

    fn file(&self, index: usize) -> (String, String) {
        let documents = self.of(index).into_iter().map(|(watched, mut object)| {
            object["apiVersion"] = json!(watched.api_version());
            object["kind"] = json!(watched.object_kind().as_str());
            object
        });
        let list = json!({"apiVersion": "v1", "kind": "List", "items": documents.collect::<Vec<_>>()});
        (format!("s-{index:05}.json"), list.to_string())
    }

    fn slice(&self, index: usize, number: usize) -> Value {
        let endpoints = self.endpoints[index].iter().skip(number * SLICE).take(SLICE).enumerate();
        let endpoint = |(place, address): (usize, &Ipv4Addr)| {
            json!({
                "addresses": [address],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": format!("node-{}", (index + place) % 100),
                "zone": "zone-a",
                "targetRef": {"kind": "Pod", "namespace": "bench", "name": format!("s-{index:05}-7d4b9c6f5-{place:05}"),
                    "uid": format!("6f1c2b7e-0000-4000-8000-{:012}", u32::from(*address))},
            })
        };
        json!({
            "metadata": {
                "name": format!("s-{index:05}-{number}"), "namespace": "bench", "generateName": format!("s-{index:05}-"),
                "labels": {"kubernetes.io/service-name": format!("s-{index:05}"),
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": format!("s-{index:05}"),
                    "uid": format!("7a1c2b7e-0000-4000-8000-{index:012}"), "controller": true, "blockOwnerDeletion": true}],
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": TARGET, "protocol": "TCP"}],
            "endpoints": endpoints.map(endpoint).collect::<Vec<_>>(),
        })
    }

    fn address(&mut self) -> Ipv4Addr {
        self.addresses += 1;
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + self.addresses)
    }

    /// A number below the limit (xorshift: the same in every run).
    fn random(&mut self, below: usize) -> usize {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance >> 11) as usize % below.max(1)
    }
}

fn dialled(index: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 0)) + 2 + index as u32), 80)
}

fn service(index: usize) -> Value {
    let address = *dialled(index).ip();
    json!({
        "metadata": {"name": format!("s-{index:05}"), "namespace": "bench", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app.kubernetes.io/name": format!("s-{index:05}"), "app.kubernetes.io/managed-by": "Helm"},
            "annotations": {"meta.helm.sh/release-name": format!("s-{index:05}"), "meta.helm.sh/release-namespace": "bench"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "selector": {"app.kubernetes.io/name": format!("s-{index:05}")},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": TARGET}],
        },
        "status": {"loadBalancer": {}},
    })
}
