//! What upstream servers said, for as long as they said that it holds (RFC 1035, 2308, 9520).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, RecordType};

use super::{Asking, Forwarded};

/// The longest that an answer is kept, and that there is none, whatever the servers say.
const LONGEST_S: (u32, u32) = (3600, 300);
/// How long nobody is asked again after nobody could tell.
const FAILURE: Duration = Duration::from_secs(1);
/// Answers of more records are not kept: the number of entries bounds the memory.
const MAX_RECORDS: usize = 100;

/// What an answer depends on. Names are compared without regard to case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    name: Name,
    query_type: RecordType,
    dnssec: bool,
    unchecked: bool,
}

impl Key {
    /// Of a question.
    pub fn of(asking: &Asking) -> Self {
        Self {
            name: asking.question.name().clone(),
            query_type: asking.question.query_type(),
            dnssec: asking.dnssec,
            unchecked: asking.unchecked,
        }
    }
}

/// A bounded number of answers.
#[derive(Debug)]
pub struct Cache {
    capacity: usize,
    entries: HashMap<Key, Entry>,
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    until: Instant,
    found: Forwarded,
}

impl Cache {
    /// Of so many answers; 0 keeps none.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, entries: HashMap::new() }
    }

    /// An answer that still holds, with what is left of its time.
    pub fn get(&self, key: &Key, now: Instant) -> Option<Forwarded> {
        let (asked, entry) = self.entries.get_key_value(key)?;
        if entry.until <= now {
            return None;
        }
        let age = u32::try_from(now.saturating_duration_since(entry.since).as_secs()).unwrap_or(u32::MAX);
        let mut found = entry.found.clone();
        for record in found.answers.iter_mut().chain(&mut found.authorities) {
            record.ttl = record.ttl.saturating_sub(age);
            if record.name == asked.name {
                // As this client wrote it.
                record.name = key.name.clone();
            }
        }
        Some(found)
    }

    /// Keeps an answer, if it holds for any time.
    pub fn insert(&mut self, key: Key, found: &Forwarded, now: Instant) {
        let holds = Duration::from_secs(holds_s(&key, found).into());
        if found.answers.len() + found.authorities.len() <= MAX_RECORDS {
            self.keep(key, found.clone(), now, holds);
        }
    }

    /// Remembers for a moment that nobody could tell.
    pub fn insert_failure(&mut self, key: Key, now: Instant) {
        let nothing =
            Forwarded { code: ResponseCode::ServFail, answers: Vec::new(), authorities: Vec::new(), authentic: false };
        self.keep(key, nothing, now, FAILURE);
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn keep(&mut self, key: Key, mut found: Forwarded, now: Instant, holds: Duration) {
        if holds.is_zero() || self.capacity == 0 {
            return;
        }
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            self.make_room(now);
        }
        for record in found.answers.iter_mut().chain(&mut found.authorities) {
            record.ttl = record.ttl.min(LONGEST_S.0);
        }
        // The key in place keeps the case of an older question.
        self.entries.remove(&key);
        self.entries.insert(key, Entry { since: now, until: now + holds, found });
    }

    /// Drops what does not hold any more, and if that is not enough, any sixteenth.
    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, entry| entry.until > now);
        if self.entries.len() >= self.capacity {
            let some: Vec<Key> = self.entries.keys().take(self.capacity.div_ceil(16)).cloned().collect();
            for key in some {
                self.entries.remove(&key);
            }
        }
    }
}

/// For how many seconds an answer holds.
fn holds_s(key: &Key, found: &Forwarded) -> u32 {
    let answered =
        found.answers.iter().any(|record| record.record_type() == key.query_type || key.query_type == RecordType::ANY);
    let shortest = found.answers.iter().map(|record| record.ttl).min();
    if answered && found.code == ResponseCode::NoError {
        return shortest.unwrap_or(0).min(LONGEST_S.0);
    }
    // That there is nothing holds for as long as the zone says; a server that does not say is asked again.
    let nothing = found.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    });
    nothing.unwrap_or(0).min(shortest.unwrap_or(u32::MAX)).min(LONGEST_S.1)
}
