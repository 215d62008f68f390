//! Objects as they were given, for those who want to see them: `svcctl get -o yaml`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// Who keeps an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Keeper {
    /// A file of the manifests directory.
    #[default]
    Manifests,
    /// The agent itself: it was applied over the control socket.
    Applied,
    /// The API server of a cluster.
    ApiServer,
}

/// An object as it was given, valid or not. Cheap to clone; the text is compact, as there may be many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    json: Arc<str>,
    /// Who keeps it.
    pub keeper: Keeper,
    /// Where it was read, for messages.
    pub origin: Arc<str>,
    /// When it was seen first, by whoever reads it.
    pub seen: Timestamp,
    /// It is invalid and has no good version: nothing is made of it.
    pub refused: bool,
}

impl Raw {
    /// An object with `apiVersion` and `kind`, seen for the first time.
    pub fn new(value: &Value, keeper: Keeper, origin: &str) -> Self {
        Self { json: value.to_string().into(), keeper, origin: origin.into(), seen: now(), refused: false }
    }

    /// What stays of an earlier version: the time, and the text if it is the same.
    #[must_use]
    pub fn following(mut self, earlier: Option<&Self>) -> Self {
        if let Some(earlier) = earlier {
            self.seen = earlier.seen;
            if self.json == earlier.json {
                self.json = earlier.json.clone();
            }
        }
        self
    }

    /// The object as compact JSON.
    pub fn json(&self) -> &Arc<str> {
        &self.json
    }

    /// The object.
    pub fn value(&self) -> Value {
        // It was made from a value.
        serde_json::from_str(&self.json).unwrap_or_default()
    }
}

/// The time of day; at the epoch's beginning if the clock stands before it.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
    Timestamp::new(seconds, i32::try_from(since.subsec_nanos()).unwrap_or_default()).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_version_keeps_the_time_of_the_first_one_and_shares_an_equal_text() {
        let value = json!({"kind": "Service", "metadata": {"name": "web"}});
        let mut first = Raw::new(&value, Keeper::Manifests, "a.yaml");
        first.seen = Timestamp::UNIX_EPOCH;
        let second = Raw::new(&value, Keeper::Manifests, "b.yaml").following(Some(&first));
        assert!(Arc::ptr_eq(first.json(), second.json()) && second.seen == first.seen && &*second.origin == "b.yaml");
        let third = Raw::new(&json!({}), Keeper::Manifests, "b.yaml").following(Some(&first));
        assert!(third.seen == first.seen && third.value() == json!({}) && first.value() == value);
    }
}
