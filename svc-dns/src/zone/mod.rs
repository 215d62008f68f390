//! The names below the cluster domain, and those of addresses. Knows nothing of questions' classes, of messages, of
//! where its Services come from.

mod entry;
mod lookup;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use hickory_proto::rr::Name;

pub use entry::{Endpoint, Entry, Kind, Port};
pub use lookup::Node;

use crate::source::lines::{Key, Service};

/// What the operator says about a zone.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster domain.
    pub domain: Name,
    /// For all records, and for answers that there is none.
    pub ttl_s: u32,
    /// Addresses where this server can be asked; may be empty.
    pub servers: Vec<IpAddr>,
    /// `10-0-0-1.namespace.pod.domain` is the address that it spells, whoever has it.
    pub pod_names: bool,
}

/// Everything there is to answer for.
#[derive(Clone, Debug)]
pub struct Zone {
    settings: Settings,
    /// Namespace, then name.
    services: HashMap<String, HashMap<String, Entry>>,
    /// Who has an address.
    owners: HashMap<IpAddr, BTreeSet<Owner>>,
    /// Rises with each change, as secondary servers would expect it.
    serial: u32,
    /// The source has told everything once.
    loaded: bool,
}

/// Who has an address: a Service, or an endpoint of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The Service.
    pub key: Key,
    /// The endpoint's label.
    pub label: Option<String>,
}

impl Zone {
    /// Without Services, and not loaded. `serial` is where it begins to count, usually the time.
    pub fn new(settings: Settings, serial: u32) -> Self {
        Self { settings, services: HashMap::new(), owners: HashMap::new(), serial, loaded: false }
    }

    /// One like it, without Services.
    pub fn emptied(&self) -> Self {
        Self { loaded: self.loaded, ..Self::new(self.settings.clone(), self.serial) }
    }

    /// Adds a Service, or replaces it.
    pub fn insert(&mut self, service: Service) {
        let key = service.key.clone();
        self.remove(&key);
        let Some(entry) = Entry::new(service).filter(|_| entry::is_label(&key.namespace) && entry::is_label(&key.name))
        else {
            return;
        };
        for (address, label) in addresses(&entry) {
            self.owners.entry(address).or_default().insert(Owner { key: key.clone(), label });
        }
        let (namespace, name) = (key.namespace.to_ascii_lowercase(), key.name.to_ascii_lowercase());
        self.services.entry(namespace).or_default().insert(name, entry);
    }

    /// Removes a Service, if it is there.
    pub fn remove(&mut self, key: &Key) {
        self.serial = self.serial.wrapping_add(1);
        let namespace = key.namespace.to_ascii_lowercase();
        let Some(services) = self.services.get_mut(&namespace) else { return };
        let Some(entry) = services.remove(&key.name.to_ascii_lowercase()) else { return };
        if services.is_empty() {
            self.services.remove(&namespace);
        }
        for (address, label) in addresses(&entry) {
            if let Some(owners) = self.owners.get_mut(&address) {
                owners.remove(&Owner { key: key.clone(), label });
                if owners.is_empty() {
                    self.owners.remove(&address);
                }
            }
        }
    }

    /// From now on a name that is not here does not exist.
    pub fn set_loaded(&mut self) {
        self.loaded = true;
    }

    /// False until the source has told everything once.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// The Services.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.services.iter().flat_map(|(namespace, services)| {
            services.keys().map(move |name| Key { namespace: namespace.clone(), name: name.clone() })
        })
    }

    /// How many Services there are.
    pub fn len(&self) -> usize {
        self.services.values().map(HashMap::len).sum()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// What the operator said.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The zone's serial number.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Who has this address.
    pub fn owners(&self, address: IpAddr) -> Option<&BTreeSet<Owner>> {
        self.owners.get(&address)
    }
}

/// The addresses that lead back to names.
fn addresses(entry: &Entry) -> Vec<(IpAddr, Option<String>)> {
    match &entry.kind {
        Kind::Addresses(addresses) => addresses.iter().map(|address| (*address, None)).collect(),
        Kind::Endpoints(endpoints) => {
            endpoints.iter().map(|endpoint| (endpoint.address, Some(endpoint.label.clone()))).collect()
        }
        Kind::Alias(_) => Vec::new(),
    }
}
