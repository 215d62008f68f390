//! Whose each frontend in the maps is.

use std::collections::{BTreeSet, HashMap};

use svc_common::maps::{Frontend, spec};

use super::addresses::{Addresses, PerFamily};
use crate::apply::AnyFrontendKey;
use crate::compile::allocator::Full;
use crate::resolve::AddressFamily;

/// The service id behind every frontend in the maps, with the frontend's flags.
#[derive(Debug, Default)]
pub struct Owners {
    of: HashMap<AnyFrontendKey, (u32, u32)>,
    /// How many of each family.
    counts: PerFamily,
    /// Their addresses, which have rows of their own in the same maps.
    pub addresses: Addresses,
}

impl Owners {
    /// The service id behind a frontend, if it is in the maps.
    pub fn of(&self, key: &AnyFrontendKey) -> Option<u32> {
        self.of.get(key).map(|&(service, _)| service)
    }

    /// Records a frontend that was written; tells whose it was before if it was another's.
    pub fn insert(&mut self, key: AnyFrontendKey, value: &Frontend) -> Option<u32> {
        let before = self.of.insert(key, (value.service, value.flags));
        let (addr, ..) = key.name();
        self.addresses.insert(addr, value.flags);
        match before {
            Some((_, flags)) => self.addresses.remove(addr, flags),
            None => *self.counts.of_mut(key.family()) += 1,
        }
        before.map(|(service, _)| service).filter(|&before| before != value.service)
    }

    /// Records a frontend that was removed.
    pub fn remove(&mut self, key: &AnyFrontendKey) {
        if let Some((_, flags)) = self.of.remove(key) {
            let (addr, ..) = key.name();
            self.addresses.remove(addr, flags);
            *self.counts.of_mut(key.family()) -= 1;
        }
    }

    /// Whether these frontends and the rows of their addresses fit into maps of `capacity` elements each.
    ///
    /// # Errors
    /// [`Full`] if they do not.
    pub fn check_room(&self, wanted: &BTreeSet<AnyFrontendKey>, capacity: u32) -> Result<(), Full> {
        let families = [(AddressFamily::V4, spec::FRONTENDS_V4.name), (AddressFamily::V6, spec::FRONTENDS_V6.name)];
        for (family, map) in families {
            let new = || wanted.iter().filter(|key| key.family() == family && !self.of.contains_key(key));
            let addresses: BTreeSet<_> = new().map(|key| key.name().0).collect();
            let addresses = addresses.into_iter().filter(|addr| !self.addresses.has_row(*addr));
            let used = self.counts.of(family) + self.addresses.rows(family);
            let (needed, free) = ((new().count() + addresses.count()) as u32, capacity.saturating_sub(used as u32));
            if needed > free {
                return Err(Full::Elements { map, needed, free, capacity });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn key(last: u8) -> AnyFrontendKey {
        AnyFrontendKey::new(IpAddr::from([10, 96, 0, last]), 80, 6)
    }

    fn of(service: u32) -> Frontend {
        Frontend { service, ..Frontend::default() }
    }

    #[test]
    fn b80_only_new_frontends_of_the_same_family_and_their_addresses_need_room() {
        let mut owners = Owners::default();
        for last in 1..=3 {
            assert_eq!(owners.insert(key(last), &of(1)), None);
        }
        owners.insert(AnyFrontendKey::new("2001:db8::1".parse().unwrap(), 80, 6), &of(1));
        owners.remove(&key(3));
        owners.remove(&key(3));
        assert_eq!(owners.check_room(&[key(1), key(2), key(3)].into(), 6), Ok(()));
        let full = owners.check_room(&[key(2), key(3), key(4)].into(), 6).unwrap_err();
        assert_eq!(full.to_string(), "map `FRONTENDS_V4` is full: 4 more elements are needed, 2 of 6 are free");
        let udp = |last| AnyFrontendKey::new(IpAddr::from([10, 96, 0, last]), 80, 17);
        assert_eq!(owners.check_room(&[udp(1), udp(2)].into(), 6), Ok(()), "their addresses have rows");
    }

    #[test]
    fn b77_a_frontend_that_changes_hands_names_its_former_owner() {
        let mut owners = Owners::default();
        owners.insert(key(1), &of(1));
        assert_eq!(owners.insert(key(1), &of(2)), Some(1));
        assert_eq!(owners.insert(key(1), &of(2)), None);
        assert_eq!(owners.of(&key(1)), Some(2));
    }
}
