//! Names for what events carry as numbers.

use std::net::SocketAddr;
use std::sync::Arc;

use super::published::Published;
use crate::control::api::ServiceRef;
use crate::events::Names;
use crate::reconcile::Programmed;
use crate::resolve::Frontend;

/// From what the tasks of the agent tell.
#[derive(Clone)]
pub struct AgentNames {
    /// Which ids the service ports have.
    pub programmed: Programmed,
    /// Devices and Services.
    pub published: Arc<Published>,
}

impl Names for AgentNames {
    fn device(&self, ifindex: u32) -> Option<String> {
        self.published
            .devices
            .look(|devices| devices.iter().find(|device| device.ifindex == ifindex).map(|device| device.name.clone()))
    }

    fn service(&self, service: u32) -> Option<ServiceRef> {
        self.programmed.service_port(service).as_ref().map(ServiceRef::from)
    }

    fn frontend(&self, addr: SocketAddr, protocol: u8) -> Option<ServiceRef> {
        let is_it = |frontend: &Frontend| frontend.addr == addr.ip() && frontend.port == addr.port();
        self.published.sync.look(|sync| {
            let mut ports = sync.desired.services.values().flat_map(|ports| ports.iter());
            let found = ports.find(|port| port.key.protocol == protocol && port.frontends.iter().any(is_it));
            found.map(|port| ServiceRef::from(&port.key))
        })
    }
}
