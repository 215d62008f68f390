//! Whose each frontend in the maps is.

use std::collections::{BTreeSet, HashMap};

use svc_common::maps::spec;

use crate::apply::AnyFrontendKey;
use crate::compile::allocator::Full;
use crate::resolve::AddressFamily;

/// The service id behind every frontend in the maps.
#[derive(Debug, Default)]
pub struct Owners {
    of: HashMap<AnyFrontendKey, u32>,
    v4: u32,
    v6: u32,
}

impl Owners {
    /// The service id behind a frontend, if it is in the maps.
    pub fn of(&self, key: &AnyFrontendKey) -> Option<u32> {
        self.of.get(key).copied()
    }

    /// Records a frontend that was written; tells whose it was before if it was another's.
    pub fn insert(&mut self, key: AnyFrontendKey, service: u32) -> Option<u32> {
        let before = self.of.insert(key, service);
        if before.is_none() {
            *self.count(key.family()) += 1;
        }
        before.filter(|&before| before != service)
    }

    /// Records a frontend that was removed.
    pub fn remove(&mut self, key: &AnyFrontendKey) {
        if self.of.remove(key).is_some() {
            *self.count(key.family()) -= 1;
        }
    }

    /// Whether these frontends fit into maps of `capacity` elements each.
    ///
    /// # Errors
    /// [`Full`] if they do not.
    pub fn check_room(&self, wanted: &BTreeSet<AnyFrontendKey>, capacity: u32) -> Result<(), Full> {
        let families = [
            (AddressFamily::V4, self.v4, spec::FRONTENDS_V4.name),
            (AddressFamily::V6, self.v6, spec::FRONTENDS_V6.name),
        ];
        for (family, used, map) in families {
            let new = wanted.iter().filter(|key| key.family() == family && !self.of.contains_key(key));
            let (needed, free) = (new.count() as u32, capacity.saturating_sub(used));
            if needed > free {
                return Err(Full::Elements { map, needed, free, capacity });
            }
        }
        Ok(())
    }

    fn count(&mut self, family: AddressFamily) -> &mut u32 {
        match family {
            AddressFamily::V4 => &mut self.v4,
            AddressFamily::V6 => &mut self.v6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn key(last: u8) -> AnyFrontendKey {
        AnyFrontendKey::new(IpAddr::from([10, 96, 0, last]), 80, 6)
    }

    #[test]
    fn b80_only_new_frontends_of_the_same_family_need_room() {
        let mut owners = Owners::default();
        for last in 1..=3 {
            assert_eq!(owners.insert(key(last), 1), None);
        }
        owners.insert(AnyFrontendKey::new("2001:db8::1".parse().unwrap(), 80, 6), 1);
        owners.remove(&key(3));
        owners.remove(&key(3));
        assert_eq!(owners.check_room(&[key(1), key(2), key(3)].into(), 3), Ok(()));
        let full = owners.check_room(&[key(2), key(3), key(4)].into(), 3).unwrap_err();
        assert_eq!(full.to_string(), "map `FRONTENDS_V4` is full: 2 more elements are needed, 1 of 3 are free");
    }

    #[test]
    fn b77_a_frontend_that_changes_hands_names_its_former_owner() {
        let mut owners = Owners::default();
        owners.insert(key(1), 1);
        assert_eq!(owners.insert(key(1), 2), Some(1));
        assert_eq!(owners.insert(key(1), 2), None);
        assert_eq!(owners.of(&key(1)), Some(2));
    }
}
