//! How a Service wants its endpoints to be checked.

/// What an endpoint has to answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CheckKind {
    /// Accept a TCP connection.
    Tcp,
    /// Answer a GET of this path with a status from 200 to 399.
    Http(String),
}

/// An active health check, as the annotations of a Service ask for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HealthCheck {
    /// What is asked.
    pub kind: CheckKind,
    /// The port of the endpoints that is asked; that of the Service's first TCP port unless given.
    pub port: Option<u16>,
    /// Seconds between two checks of an endpoint.
    pub interval_s: u32,
    /// Seconds that an answer may take.
    pub timeout_s: u32,
    /// So many good answers in a row make an endpoint healthy again.
    pub healthy: u32,
    /// So many bad ones make it unhealthy.
    pub unhealthy: u32,
}
