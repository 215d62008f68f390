//! Which device is what, by its name.

use std::fmt;

use globset::GlobMatcher;
use svc_common::maps::device_class;

/// What a device faces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Not managed.
    Other,
    /// The network.
    Uplink,
    /// Pods.
    Workload,
    /// Other nodes, through a tunnel.
    Overlay,
}

impl Class {
    /// The value in the map.
    pub const fn number(self) -> u8 {
        match self {
            Self::Other => device_class::OTHER,
            Self::Uplink => device_class::UPLINK,
            Self::Workload => device_class::WORKLOAD,
            Self::Overlay => device_class::OVERLAY,
        }
    }

    /// Whether programs are attached to it.
    pub const fn managed(self) -> bool {
        !matches!(self, Self::Other)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Other => "other",
            Self::Uplink => "uplink",
            Self::Workload => "workload",
            Self::Overlay => "overlay",
        })
    }
}

/// The patterns of the configuration, in the order in which they are tried.
#[derive(Clone, Debug, Default)]
pub struct Patterns(Vec<(Class, GlobMatcher)>);

impl Patterns {
    /// Uplinks first, then workloads, then overlays.
    pub fn new(uplinks: Vec<GlobMatcher>, workloads: Vec<GlobMatcher>, overlays: Vec<GlobMatcher>) -> Self {
        let classed = |class, globs: Vec<GlobMatcher>| globs.into_iter().map(move |glob| (class, glob));
        Self(
            classed(Class::Uplink, uplinks)
                .chain(classed(Class::Workload, workloads))
                .chain(classed(Class::Overlay, overlays))
                .collect(),
        )
    }

    /// The class of the device called `name`.
    pub fn class(&self, name: &str) -> Class {
        self.0.iter().find(|(_, glob)| glob.is_match(name)).map_or(Class::Other, |(class, _)| *class)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn patterns(uplinks: &str, workloads: &str, overlays: &str) -> Patterns {
        let globs =
            |list: &str| list.split(',').map(|glob| globset::Glob::new(glob).unwrap().compile_matcher()).collect();
        Patterns::new(globs(uplinks), globs(workloads), globs(overlays))
    }

    #[test]
    fn the_first_match_wins_in_the_order_uplinks_workloads_overlays() {
        let patterns = patterns("eth*,en*", "veth*,eth9", "vxlan*");
        for (name, class) in [
            ("eth0", Class::Uplink),
            ("eth9", Class::Uplink),
            ("ens3.100", Class::Uplink),
            ("veth1234", Class::Workload),
            ("vxlan.calico", Class::Overlay),
            ("lo", Class::Other),
        ] {
            assert_eq!(patterns.class(name), class, "{name}");
        }
    }
}
