//! What is asked of the API server, and the rights that this takes.

use std::fmt;

use crate::model::ObjectKind;

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Watched {
    /// Services of all namespaces.
    Services,
    /// EndpointSlices of all namespaces, except those of headless Services and of other proxies, as kube-proxy does.
    EndpointSlices,
    /// The Node that the agent runs on, or all of them.
    Node,
}

impl Watched {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Services, Self::EndpointSlices, Self::Node];

    /// The resource, as in paths and in roles.
    pub const fn resource(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::Node => "nodes",
        }
    }

    /// The kind of its objects.
    pub const fn object_kind(self) -> ObjectKind {
        match self {
            Self::Services => ObjectKind::Service,
            Self::EndpointSlices => ObjectKind::EndpointSlice,
            Self::Node => ObjectKind::Node,
        }
    }

    /// `kind` of its lists.
    pub const fn list_kind(self) -> &'static str {
        match self {
            Self::Services => "ServiceList",
            Self::EndpointSlices => "EndpointSliceList",
            Self::Node => "NodeList",
        }
    }

    /// `apiVersion` of its lists.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Services | Self::Node => "v1",
            Self::EndpointSlices => "discovery.k8s.io/v1",
        }
    }

    /// Path of the list, with what selects the objects. `node` is the one Node that is wanted; without, all are.
    pub fn path(self, node: Option<&str>) -> String {
        match self {
            Self::Services => "/api/v1/services?".to_owned(),
            Self::EndpointSlices => format!(
                "/apis/discovery.k8s.io/v1/endpointslices?labelSelector={}",
                escape("!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name")
            ),
            Self::Node => {
                let one = |node| format!("fieldSelector={}", escape(&format!("metadata.name={node}")));
                format!("/api/v1/nodes?{}", node.map(one).unwrap_or_default())
            }
        }
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource())
    }
}

/// One rule of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// The API group; empty for the core.
    pub group: &'static str,
    /// The resource, with its subresource if it is one.
    pub resource: &'static str,
    /// What the agent does with it.
    pub verbs: &'static [&'static str],
}

/// Everything that the agent does at the API server: the role in `deploy/kustomize` grants this and no more.
pub const RIGHTS: &[Right] = &[
    Right { group: "", resource: "services", verbs: &["list", "watch"] },
    Right { group: "discovery.k8s.io", resource: "endpointslices", verbs: &["list", "watch"] },
    Right { group: "", resource: "nodes", verbs: &["list", "watch"] },
    // Addresses from `load-balancer-pools`.
    Right { group: "", resource: "services/status", verbs: &["patch"] },
    // What is refused.
    Right { group: "events.k8s.io", resource: "events", verbs: &["create"] },
];

/// Text within a query.
pub fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_change_the_query() {
        assert_eq!(Watched::Node.path(Some("a&watch=1")), "/api/v1/nodes?fieldSelector=metadata.name%3Da%26watch%3D1");
    }

    #[test]
    fn what_is_watched_is_among_the_rights() {
        for watched in Watched::ALL {
            let group = watched.api_version().split_once('/').map_or("", |(group, _)| group);
            let right = RIGHTS.iter().find(|right| right.resource == watched.resource()).unwrap();
            assert_eq!((right.group, right.verbs), (group, ["list", "watch"].as_slice()));
        }
    }
}
