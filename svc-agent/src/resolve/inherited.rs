//! Who owned an address before the agent was started: the maps do not tell the names of Services, but their endpoints.
//!
//! Without this a restart would decide anew between two Services that claim one address, and could give the traffic of
//! its owner to the other (B78, GHSA-q6h5-q3q6-f87x).

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{EndpointSlice, ServiceName};
use crate::sorted::Sorted;

/// What an earlier agent left in the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Address, port and IANA protocol number of each frontend, with the service id that answers there.
    pub frontends: HashMap<(IpAddr, u16, u8), u32>,
    /// Address and port of the backends, by service id.
    pub backends: HashMap<u32, BTreeSet<(IpAddr, u16)>>,
}

impl Inherited {
    /// Which of several claimants, in the order that would decide otherwise, a frontend belonged to: the one that has
    /// most of its backends, and fewest others.
    pub(super) fn heir<'a>(
        &self,
        frontend: (IpAddr, u16, u8),
        claimants: &[&'a ServiceName],
        slices: &Sorted<ServiceName, Vec<Arc<EndpointSlice>>>,
    ) -> Option<&'a ServiceName> {
        let service = self.frontends.get(&frontend)?;
        if let [only] = claimants {
            return Some(only);
        }
        let backends = self.backends.get(service);
        let likeness = |name: &ServiceName| {
            let own: HashSet<(IpAddr, u16)> =
                slices.get(name).into_iter().flatten().flat_map(|slice| targets(slice)).collect();
            let shared = own.iter().filter(|target| backends.is_some_and(|backends| backends.contains(target))).count();
            (shared, Reverse(own.len() - shared))
        };
        // Of equals, the first.
        let likeness = claimants.iter().map(|name| (likeness(name), *name));
        likeness.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, name)| name)
    }
}

fn targets(slice: &EndpointSlice) -> impl Iterator<Item = (IpAddr, u16)> + '_ {
    slice.endpoints.iter().flat_map(|endpoint| slice.ports.iter().map(|port| (endpoint.addr, port.port)))
}
