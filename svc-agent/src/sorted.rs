//! A sorted map whose copies share what they have in common.
//!
//! Whoever keeps a copy can tell later what is different, for the price of the difference: with ten thousand Services a
//! change of one is found without looking at the others. The entries lie in pieces; a change copies one piece, a copy of
//! the map copies the pointers to all of them, and pieces that two maps share are passed over when these are compared.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A piece that grows beyond this becomes two.
const PIECE: usize = 64;

type Piece<K, V> = Arc<Vec<(K, V)>>;

/// Whether two lists share every item: how lists are compared of which each item that did not change keeps its `Arc`.
pub fn shares_all<T>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

/// The map. Cheap to clone; keys and values are cloned when a piece that is shared changes, so they should be, too.
#[derive(Clone)]
pub struct Sorted<K, V> {
    /// None is empty.
    pieces: Vec<Piece<K, V>>,
    len: usize,
}

/// What is different at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a, K, V> {
    /// The key.
    pub key: &'a K,
    /// What was there.
    pub before: Option<&'a V>,
    /// What is there.
    pub now: Option<&'a V>,
}

impl<K, V> Sorted<K, V> {
    /// An empty map.
    pub const fn new() -> Self {
        Self { pieces: Vec::new(), len: 0 }
    }

    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter(Cursor::new(&self.pieces))
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> Sorted<K, V> {
    /// The value at a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// The entry at a key.
    pub fn get_key_value(&self, key: &K) -> Option<(&K, &V)> {
        let piece = self.pieces.get(self.piece_of(key))?;
        let place = piece.binary_search_by(|(own, _)| own.cmp(key)).ok()?;
        piece.get(place).map(|(key, value)| (key, value))
    }

    /// Whether there is a value at a key.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// What is different from `before`, in order. Values count as equal if `same` says so.
    pub fn changes<'a>(&'a self, before: &'a Self, same: impl Fn(&V, &V) -> bool) -> Vec<Change<'a, K, V>> {
        let (mut old, mut new) = (Cursor::new(&before.pieces), Cursor::new(&self.pieces));
        let mut changes = Vec::new();
        loop {
            if old.skip_shared(&mut new) {
                continue;
            }
            let order = match (old.entry(), new.entry()) {
                (None, None) => return changes,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((old, _)), Some((new, _))) => old.cmp(new),
            };
            let before = old.entry().filter(|_| order != Ordering::Greater);
            let now = new.entry().filter(|_| order != Ordering::Less);
            let equal = matches!((before, now), (Some((_, before)), Some((_, now))) if same(before, now));
            if let Some((key, _)) = now.or(before).filter(|_| !equal) {
                changes.push(Change { key, before: before.map(|(_, value)| value), now: now.map(|(_, value)| value) });
            }
            if before.is_some() {
                old.step();
            }
            if now.is_some() {
                new.step();
            }
        }
    }

    /// The piece in which a key is or would be.
    fn piece_of(&self, key: &K) -> usize {
        let begins_before = |piece: &Piece<K, V>| piece.first().is_some_and(|(first, _)| first <= key);
        self.pieces.partition_point(begins_before).saturating_sub(1)
    }
}

impl<K: Ord + Clone, V: Clone> Sorted<K, V> {
    /// Puts a value at a key; what was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let index = self.piece_of(&key);
        let Some(piece) = self.pieces.get_mut(index) else {
            self.pieces.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let entries = Arc::make_mut(piece);
        match entries.binary_search_by(|(own, _)| own.cmp(&key)) {
            Ok(place) => entries.get_mut(place).map(|(_, old)| std::mem::replace(old, value)),
            Err(place) => {
                entries.insert(place, (key, value));
                self.len += 1;
                if entries.len() > PIECE {
                    // What is filled in order leaves whole pieces behind.
                    let at = if place == PIECE { PIECE } else { PIECE / 2 };
                    let tail = entries.split_off(at);
                    self.pieces.insert(index + 1, Arc::new(tail));
                }
                None
            }
        }
    }

    /// Removes a key; what was there.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let index = self.piece_of(key);
        let piece = self.pieces.get_mut(index)?;
        let place = piece.binary_search_by(|(own, _)| own.cmp(key)).ok()?;
        let entries = Arc::make_mut(piece);
        let (_, value) = entries.remove(place);
        if entries.is_empty() {
            self.pieces.remove(index);
        }
        self.len -= 1;
        Some(value)
    }

    /// The value at a key, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let index = self.piece_of(key);
        let piece = self.pieces.get_mut(index)?;
        let place = piece.binary_search_by(|(own, _)| own.cmp(key)).ok()?;
        Arc::make_mut(piece).get_mut(place).map(|(_, value)| value)
    }

    /// Keeps what `keep` says; it may change the rest.
    pub fn retain(&mut self, keep: impl FnMut(&K, &mut V) -> bool) {
        let mut keep = keep;
        let all = std::mem::take(self);
        for (key, mut value) in all.iter().map(|(key, value)| (key.clone(), value.clone())) {
            if keep(&key, &mut value) {
                self.insert(key, value);
            }
        }
    }
}

/// A place in a map.
struct Cursor<'a, K, V> {
    pieces: std::slice::Iter<'a, Piece<K, V>>,
    /// The rest of the piece that was begun.
    rest: &'a [(K, V)],
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn new(pieces: &'a [Piece<K, V>]) -> Self {
        Self { pieces: pieces.iter(), rest: &[] }
    }

    fn entry(&mut self) -> Option<(&'a K, &'a V)> {
        if self.rest.is_empty() {
            self.rest = self.pieces.next()?;
        }
        self.rest.first().map(|(key, value)| (key, value))
    }

    fn step(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    /// Passes over a piece at which both stand; whether they did.
    fn skip_shared(&mut self, other: &mut Self) -> bool {
        if !self.rest.is_empty() || !other.rest.is_empty() {
            return false;
        }
        let (mut own, mut others) = (self.pieces.clone(), other.pieces.clone());
        match (own.next(), others.next()) {
            (Some(a), Some(b)) if Arc::ptr_eq(a, b) => {
                (self.pieces, other.pieces) = (own, others);
                true
            }
            _ => false,
        }
    }
}

impl<K, V> Clone for Cursor<'_, K, V> {
    fn clone(&self) -> Self {
        Self { pieces: self.pieces.clone(), rest: self.rest }
    }
}

/// All entries, in order.
pub struct Iter<'a, K, V>(Cursor<'a, K, V>);

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.0.entry()?;
        self.0.step();
        Some(entry)
    }
}

impl<'a, K, V> IntoIterator for &'a Sorted<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Sorted<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Sorted<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Eq, V: Eq> Eq for Sorted<K, V> {}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for Sorted<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Sorted<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut all = Self::new();
        all.extend(entries);
        all
    }
}

impl<K: Ord + Clone, V: Clone, const N: usize> From<[(K, V); N]> for Sorted<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

#[cfg(test)]
impl<K: Ord, V> std::ops::Index<&K> for Sorted<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("an entry with this key")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn check(map: &Sorted<u16, u32>, model: &BTreeMap<u16, u32>) {
        assert!(map.iter().eq(model.iter()));
        assert_eq!(map.len(), model.len());
        assert!(map.pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= PIECE));
        for key in [0, 7, 500, 65_535] {
            assert_eq!(map.get(&key), model.get(&key));
            assert_eq!(map.get_key_value(&key), model.get_key_value(&key));
        }
    }

    fn differences(before: &BTreeMap<u16, u32>, now: &BTreeMap<u16, u32>) -> Vec<(u16, Option<u32>, Option<u32>)> {
        let keys: std::collections::BTreeSet<_> = before.keys().chain(now.keys()).copied().collect();
        let at = |key| (key, before.get(&key).copied(), now.get(&key).copied());
        keys.into_iter().map(at).filter(|(_, before, now)| before != now).collect()
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_its_copies_tell_the_difference(
            steps in prop::collection::vec((0_u16..600, prop::option::weighted(0.7, 0_u32..3), prop::bool::weighted(0.02)), 0..1500)
        ) {
            let (mut map, mut model) = (Sorted::new(), BTreeMap::new());
            let mut kept = (map.clone(), model.clone());
            for (key, value, keep) in steps {
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                }
                if keep {
                    kept = (map.clone(), model.clone());
                }
            }
            check(&map, &model);
            check(&kept.0, &kept.1);
            let changes = map.changes(&kept.0, |a, b| a == b);
            let changes: Vec<_> = changes.iter().map(|c| (*c.key, c.before.copied(), c.now.copied())).collect();
            prop_assert_eq!(changes, differences(&kept.1, &model));
        }
    }

    #[test]
    fn what_two_maps_share_is_not_looked_at() {
        let before: Sorted<u32, u32> = (0..10_000).map(|number| (number, 0)).collect();
        let mut now = before.clone();
        for key in [17, 5_000, 9_999] {
            now.insert(key, 1);
        }
        now.remove(&6_000);
        now.insert(10_001, 0);
        let looked = std::cell::Cell::new(0);
        let changes = now.changes(&before, |a, b| {
            looked.set(looked.get() + 1);
            a == b
        });
        let keys: Vec<_> = changes.iter().map(|change| *change.key).collect();
        assert_eq!(keys, [17, 5_000, 6_000, 9_999, 10_001]);
        assert!(looked.get() <= 6 * PIECE, "looked at {} entries", looked.get());
    }
}
