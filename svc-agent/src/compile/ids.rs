//! Ids of services, selections and backends: numbers from 1 on, indices into the maps.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

/// The ids of one kind.
///
/// An id that was freed rests as long as possible: never used ones come first, then the one that was freed longest ago,
/// and never one that was freed in the same pass. So a packet or a flow that still names an old id finds it free.
#[derive(Debug)]
pub struct Ids {
    /// Never used.
    fresh: Range<u32>,
    /// Free again, the oldest first.
    free: VecDeque<u32>,
    /// Freed in this pass.
    resting: Vec<u32>,
}

impl Ids {
    /// The ids from 1 to `capacity` - 1, all free but those in `used`.
    pub fn new(capacity: u32, used: &BTreeSet<u32>) -> Self {
        let first_fresh = used.range(..capacity).next_back().map_or(1, |last| last + 1);
        // Nothing tells when those below were freed: they come after the fresh ones.
        let free = (1..first_fresh).filter(|id| !used.contains(id)).collect();
        Self { fresh: first_fresh..capacity, free, resting: Vec::new() }
    }

    /// Takes a free id; `None` if there is none in this pass.
    pub fn take(&mut self) -> Option<u32> {
        self.fresh.next().or_else(|| self.free.pop_front())
    }

    /// Gives back the id that was taken last and never written anywhere.
    pub fn untake(&mut self, id: u32) {
        if id + 1 == self.fresh.start {
            self.fresh.start = id;
        } else {
            self.free.push_front(id);
        }
    }

    /// Frees an id that nothing in the maps names any more.
    pub fn free(&mut self, id: u32) {
        self.resting.push(id);
    }

    /// How many are free or will be when the pass is over.
    #[cfg(test)]
    pub fn free_count(&self) -> usize {
        self.fresh.len() + self.free.len() + self.resting.len()
    }

    /// Lets the ids that were freed in this pass be taken.
    pub fn end_pass(&mut self) {
        self.free.extend(self.resting.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(ids: &mut Ids, count: usize) -> Vec<u32> {
        (0..count).map_while(|_| ids.take()).collect()
    }

    #[test]
    fn ids_begin_at_one_and_end_below_the_capacity() {
        let mut ids = Ids::new(4, &BTreeSet::new());
        assert_eq!(take(&mut ids, 9), [1, 2, 3]);
    }

    #[test]
    fn b77_a_freed_id_is_not_taken_in_the_same_pass_and_the_oldest_comes_first() {
        let mut ids = Ids::new(6, &BTreeSet::new());
        assert_eq!(take(&mut ids, 4), [1, 2, 3, 4]);
        ids.free(3);
        ids.end_pass();
        ids.free(1);
        assert_eq!(take(&mut ids, 9), [5, 3], "the fresh one first, not the one freed in this pass");
        ids.end_pass();
        assert_eq!(take(&mut ids, 9), [1]);
    }

    #[test]
    fn ids_taken_for_nothing_come_back_in_the_same_order() {
        let mut ids = Ids::new(4, &BTreeSet::from([2]));
        let taken = take(&mut ids, 9);
        assert_eq!(taken, [3, 1]);
        for id in taken.into_iter().rev() {
            ids.untake(id);
        }
        assert_eq!(take(&mut ids, 9), [3, 1]);
    }

    #[test]
    fn b78_ids_found_in_the_maps_are_not_taken() {
        let mut ids = Ids::new(8, &BTreeSet::from([1, 4, 5, 4_000_000_000]));
        assert_eq!(take(&mut ids, 9), [6, 7, 2, 3]);
    }
}
