//! What an API server would have been configured with.

use std::ops::RangeInclusive;

/// The configurable part of validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The ports that `nodePort` may be.
    pub node_ports: RangeInclusive<u16>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { node_ports: 30_000..=32_767 }
    }
}
