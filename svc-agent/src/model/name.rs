//! Names of objects.

use std::fmt;

/// Namespace and name of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ServiceName {
    /// The Service `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The kinds of object that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// `v1` `Service`.
    Service,
    /// `v1` `Endpoints`.
    Endpoints,
    /// `discovery.k8s.io/v1` `EndpointSlice`.
    EndpointSlice,
    /// `v1` `Pod`.
    Pod,
    /// `v1` `Node`.
    Node,
}

impl ObjectKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Service, Self::Endpoints, Self::EndpointSlice, Self::Pod, Self::Node];

    /// `kind` as in a manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Endpoints => "Endpoints",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::Node => "Node",
        }
    }

    /// `apiVersion` as in a manifest.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Service | Self::Endpoints | Self::Pod | Self::Node => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
        }
    }

    /// The kind by one of its names: `Service`, `service`, `services`, `svc`.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(word: &str) -> Result<Self, String> {
        let small = word.to_lowercase();
        let is_meant = |kind: &Self| {
            let name = kind.as_str().to_lowercase();
            let short = match kind {
                Self::Service => "svc",
                Self::Endpoints => "ep",
                Self::EndpointSlice => "eps",
                Self::Pod => "po",
                Self::Node => "no",
            };
            let singular = name.strip_suffix('s').unwrap_or(&name);
            small == name || small == short || small.strip_suffix('s') == Some(name.as_str()) || small == singular
        };
        Self::ALL.into_iter().find(is_meant).ok_or_else(|| {
            let expected = Self::ALL.map(Self::as_str).join(", ");
            format!("found the kind {}, expected one of {expected}", super::text::quote(word))
        })
    }

    /// Whether objects of the kind are in a namespace.
    pub const fn is_namespaced(self) -> bool {
        match self {
            Self::Service | Self::Endpoints | Self::EndpointSlice | Self::Pod => true,
            Self::Node => false,
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Identity of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its namespace; empty for a kind that has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return write!(f, "{} `{}`", self.kind, self.name);
        }
        write!(f, "{} `{}/{}`", self.kind, self.namespace, self.name)
    }
}
