//! The filter before the tables ([`svc_common::known`]).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use svc_common::family::{V4, V6};
use svc_common::known::{any_port, bit, place};
use svc_common::maps::{frontend_flags, spec};
use svc_common::net::Be16;

use super::arrays::map_array;
use crate::apply::{MapContents, MapOp};
use crate::attach::maps::Maps;
use crate::sys::mmap::MappedArray;

/// `KNOWN`. Bits are set and stay: half-open connections outlive what they were made by. What is set without need costs
/// packets of others the look-ups that it would spare them.
pub(super) struct Known(Arc<MappedArray>);

impl Known {
    pub(super) fn new(maps: &Maps) -> anyhow::Result<Self> {
        map_array::<u64>(maps, &spec::KNOWN).map(Self)
    }

    /// Makes the datapath know what a write is about to bring.
    pub(super) fn announce(&self, op: &MapOp) {
        match op {
            MapOp::SetBackend { value, .. } if !value.is_free() => self.endpoint(value.name()),
            MapOp::SetFrontend { key, .. } => {
                let (addr, port, _) = key.name();
                self.endpoint((addr, port));
            }
            MapOp::SetAddress { addr, flags } => self.address(*addr, *flags),
            _ => {}
        }
    }

    /// The same for what an agent before this one has written, which may not have known of the filter.
    pub(super) fn adopt(&self, contents: &MapContents) {
        contents.frontends.keys().map(|key| key.name()).for_each(|(addr, port, _)| self.endpoint((addr, port)));
        contents.addresses.iter().for_each(|(addr, flags)| self.address(*addr, *flags));
        for backend in contents.backends_v4.values() {
            self.endpoint((backend.addr.into(), backend.port.to_host()));
        }
        for backend in contents.backends_v6.values() {
            self.endpoint((backend.addr.into(), backend.port.to_host()));
        }
    }

    fn endpoint(&self, (addr, port): (IpAddr, u16)) {
        let bit = bit(Be16::from_host(port));
        match addr {
            IpAddr::V4(addr) => self.set(place::<V4>(&addr.octets()), bit),
            IpAddr::V6(addr) => self.set(place::<V6>(&addr.octets()), bit),
        }
    }

    /// Every port of a VIP is answered for.
    fn address(&self, addr: IpAddr, flags: u32) {
        if flags & frontend_flags::VIP == 0 {
            return;
        }
        match addr {
            IpAddr::V4(addr) => self.set(place::<V4>(&addr.octets()), any_port::<V4>(&addr.octets())),
            IpAddr::V6(addr) => self.set(place::<V6>(&addr.octets()), any_port::<V6>(&addr.octets())),
        }
    }

    fn set(&self, place: u32, bits: u64) {
        if let Some(word) = self.0.double(place) {
            word.fetch_or(bits, Ordering::Release);
        }
    }
}
