//! Which ids the service ports have in the maps, for those who read the maps.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::compile::image::Image;
use crate::resolve::PortKey;

/// What one service port has in the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortIds {
    /// Its service id.
    pub service: u32,
    /// Index of the selection of the cluster set, if any frontend uses it.
    pub cluster: Option<u32>,
    /// Index of the selection of the local set, if any frontend uses it.
    pub local: Option<u32>,
    /// The ids of its backends by address and port.
    pub backends: BTreeMap<(IpAddr, u16), u32>,
}

/// All service ports that are in the maps.
#[derive(Debug, Default)]
pub struct Index {
    /// Their ids.
    pub ports: BTreeMap<PortKey, PortIds>,
    /// The service ports by service id.
    pub services: HashMap<u32, PortKey>,
}

/// The index, shared between the reconciler, which writes it, and others who read it. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Programmed(Arc<RwLock<Index>>);

impl Programmed {
    /// The index as it is now. The reconciler waits until the guard is dropped: take what you need and let go.
    pub fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service port with this service id.
    pub fn service_port(&self, service: u32) -> Option<PortKey> {
        self.read().services.get(&service).cloned()
    }

    /// Records what a service port has in the maps; `None` if nothing any more.
    pub(super) fn set(&self, key: &PortKey, image: Option<&Image>) {
        let ids = image.map(|image| PortIds {
            service: image.service,
            cluster: image.cluster,
            local: image.local,
            backends: image.backend_ids().into_iter().map(|(name, id)| (name, id.id)).collect(),
        });
        let mut index = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let service = ids.as_ref().map(|ids| ids.service);
        let before = match ids {
            Some(ids) => index.ports.insert(key.clone(), ids),
            None => index.ports.remove(key),
        };
        if let Some(before) = before.filter(|before| Some(before.service) != service) {
            index.services.remove(&before.service);
        }
        if let Some(service) = service {
            index.services.insert(service, key.clone());
        }
    }
}
