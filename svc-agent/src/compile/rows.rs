//! Room for Maglev tables: runs of rows in `SLOTS`.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// The rows of `SLOTS`.
///
/// Rows that were freed rest until they are needed or much rests, and at least until the pass is over; the oldest come
/// back first. Tables are taken from the front, first fit; single rows from the back, so that they do not part the room
/// for tables. Free neighbours are joined.
#[derive(Debug)]
pub struct Rows {
    /// First row -> number of rows; never adjacent.
    free: BTreeMap<u32, u32>,
    /// Freed in earlier passes, the oldest first.
    resting: VecDeque<Range<u32>>,
    /// How many rows rest.
    rest: u32,
    /// How many may rest.
    may_rest: u32,
    /// Freed in this pass.
    freed: Vec<Range<u32>>,
}

impl Rows {
    /// All of `capacity` rows, free but for the ranges in `used`, which do not overlap.
    pub fn new(capacity: u32, used: impl IntoIterator<Item = Range<u32>>) -> Self {
        let mut used: Vec<_> = used.into_iter().collect();
        used.sort_unstable_by_key(|range| range.start);
        let mut free = BTreeMap::new();
        let mut next = 0;
        for range in used.into_iter().chain(std::iter::once(capacity..capacity)) {
            if range.start > next {
                free.insert(next, range.start - next);
            }
            next = next.max(range.end);
        }
        Self { free, resting: VecDeque::new(), rest: 0, may_rest: capacity / 8, freed: Vec::new() }
    }

    /// Takes `count` adjacent rows; `None` if there is no such room in this pass.
    pub fn take(&mut self, count: u32) -> Option<Range<u32>> {
        loop {
            if let Some(range) = self.fit(count) {
                return Some(range);
            }
            if !self.wake_oldest() {
                return None;
            }
        }
    }

    /// Gives back rows that were taken and never written.
    pub fn untake(&mut self, range: Range<u32>) {
        self.join(range);
    }

    /// Frees rows that no selection names any more.
    pub fn free(&mut self, range: Range<u32>) {
        self.freed.push(range);
    }

    /// Lets the rows that were freed in this pass be taken.
    pub fn end_pass(&mut self) {
        for range in self.freed.drain(..) {
            self.rest += range.len() as u32;
            self.resting.push_back(range);
        }
        while self.rest > self.may_rest && self.wake_oldest() {}
    }

    /// How many are free or will be when the pass is over.
    #[cfg(test)]
    pub fn free_count(&self) -> usize {
        let rest = self.resting.iter().chain(&self.freed).map(ExactSizeIterator::len);
        self.free.values().map(|&len| len as usize).chain(rest).sum()
    }

    /// Takes rows out of those that are free.
    fn fit(&mut self, count: u32) -> Option<Range<u32>> {
        let fits = |&(_, &len): &(&u32, &u32)| len >= count;
        let last = count == 1;
        let (&first, &len) = if last { self.free.iter().rfind(fits) } else { self.free.iter().find(fits) }?;
        self.free.remove(&first);
        let start = if last { first + len - count } else { first };
        let end = start + count;
        if first < start {
            self.free.insert(first, start - first);
        }
        if end < first + len {
            self.free.insert(end, first + len - end);
        }
        Some(start..end)
    }

    /// Makes the rows free that rest longest; false if none rest.
    fn wake_oldest(&mut self) -> bool {
        let Some(oldest) = self.resting.pop_front() else { return false };
        self.rest -= oldest.len() as u32;
        self.join(oldest);
        true
    }

    /// Adds rows to those that are free, joined with their neighbours.
    fn join(&mut self, range: Range<u32>) {
        let Range { mut start, mut end } = range;
        if let Some((&before, &len)) = self.free.range(..start).next_back()
            && before + len == start
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(len) = self.free.remove(&end) {
            end += len;
        }
        self.free.insert(start, end - start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tables_come_from_the_front_and_single_rows_from_the_back() {
        let mut rows = Rows::new(256, []);
        assert_eq!(rows.take(64), Some(0..64));
        assert_eq!(rows.take(1), Some(255..256));
        assert_eq!(rows.take(64), Some(64..128));
        assert_eq!(rows.take(128), None, "the last row is taken");
        assert_eq!(rows.take(127), Some(128..255));
    }

    #[test]
    fn b77_freed_rows_are_not_taken_in_the_same_pass_and_the_oldest_come_first() {
        let mut rows = Rows::new(192, []);
        let tables: Vec<_> = (0..3).map_while(|_| rows.take(64)).collect();
        assert_eq!(tables.len(), 3);
        rows.free(128..192);
        assert_eq!(rows.take(64), None);
        rows.end_pass();
        rows.free(0..64);
        assert_eq!(rows.take(64), Some(128..192));
        assert_eq!(rows.take(64), None);
        rows.end_pass();
        assert_eq!(rows.take(64), Some(0..64));
    }

    #[test]
    fn b77_rows_rest_while_there_is_other_room() {
        let mut rows = Rows::new(4096, []);
        let table = rows.take(64).unwrap();
        rows.free(table);
        rows.end_pass();
        assert_eq!(rows.take(64), Some(64..128));
    }

    #[test]
    fn b78_rows_of_tables_found_in_the_maps_are_not_taken() {
        let mut rows = Rows::new(256, [64..128, 255..256]);
        assert_eq!(rows.take(64), Some(0..64));
        assert_eq!(rows.take(1), Some(254..255));
        assert_eq!(rows.take(64), Some(128..192));
    }

    proptest! {
        #[test]
        fn b77_room_is_neither_lost_nor_given_twice(steps in proptest::collection::vec((0_u8..4, any::<prop::sample::Index>()), 1..200)) {
            let mut rows = Rows::new(2048, []);
            let (mut taken, mut freed): (Vec<Range<u32>>, Vec<Range<u32>>) = (Vec::new(), Vec::new());
            for (step, pick) in steps {
                match step {
                    0 if !taken.is_empty() => {
                        let range = taken.swap_remove(pick.index(taken.len()));
                        freed.push(range.clone());
                        rows.free(range);
                    }
                    1 => {
                        rows.end_pass();
                        freed.clear();
                    }
                    _ => {
                        let count = [1, 64, 256][pick.index(3)];
                        if let Some(range) = rows.take(count) {
                            prop_assert_eq!(range.len(), count as usize);
                            for other in taken.iter().chain(&freed) {
                                prop_assert!(range.end <= other.start || other.end <= range.start);
                            }
                            taken.push(range);
                        }
                    }
                }
            }
            for range in taken {
                rows.free(range);
            }
            rows.end_pass();
            prop_assert_eq!(rows.take(2048), Some(0..2048));
        }
    }
}
