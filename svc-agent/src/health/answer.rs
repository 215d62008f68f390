//! What is answered, as kube-proxy does it. Pure.

use std::time::Instant;

use serde_json::json;

use super::age_s;
use crate::model::ServiceName;

const JSON: &str = "application/json";

/// How the agent is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// What is wanted was not done for too long.
    pub stale: bool,
    /// The node is going away (KEP-3836).
    pub leaving: bool,
    /// Every source was heard, and what they want was in the maps once.
    pub ready: bool,
    /// When everything was done last.
    pub done: Option<Instant>,
}

impl Condition {
    /// The agent does its work, whatever becomes of the node.
    pub fn works(&self) -> bool {
        !self.stale
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// What the body is.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Reply {
    /// Whether a Service has endpoints here that take new connections.
    pub fn of_service(service: &ServiceName, local_endpoints: usize, works: bool) -> Self {
        let body = json!({
            "service": {"namespace": service.namespace, "name": service.name},
            "localEndpoints": local_endpoints,
            "serviceProxyHealthy": works,
        });
        Self {
            status: status(local_endpoints > 0 && works),
            headers: vec![("x-load-balancing-endpoint-weight", local_endpoints.to_string())],
            ..Self::json(body.to_string())
        }
    }

    /// JSON that somebody else made.
    pub fn json(body: String) -> Self {
        Self { status: 200, headers: Vec::new(), content_type: JSON, body }
    }

    /// Text of a kind.
    pub fn text(content_type: &'static str, body: String) -> Self {
        Self { content_type, ..Self::json(body) }
    }

    /// There is nothing to tell at this path.
    pub fn not_found() -> Self {
        Self { status: 404, ..Self::json(json!({"error": "not found"}).to_string()) }
    }

    /// It cannot be told.
    pub fn failed(error: &str) -> Self {
        Self { status: 500, ..Self::json(json!({"error": error}).to_string()) }
    }

    /// How the agent is, by path: `/healthz` for load balancers, `/livez` and `/readyz` for the kubelet.
    pub fn of_agent(path: &str, condition: &Condition) -> Self {
        let good = match path.split('?').next().unwrap_or_default() {
            "/healthz" => condition.works() && !condition.leaving,
            "/livez" => condition.works(),
            "/readyz" => condition.works() && condition.ready,
            _ => return Self::not_found(),
        };
        let body = json!({
            "nodeEligible": !condition.leaving,
            "stale": condition.stale,
            "ready": condition.ready,
            "lastUpdatedSecondsAgo": age_s(condition.done),
        });
        Self { status: status(good), ..Self::json(body.to_string()) }
    }
}

fn status(good: bool) -> u16 {
    if good { 200 } else { 503 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b62_a_service_is_healthy_with_an_endpoint_here_and_an_agent_that_works() {
        let service = ServiceName::new("default", "web");
        for (endpoints, works, expected) in [(0, true, 503), (1, true, 200), (7, true, 200), (1, false, 503)] {
            let reply = Reply::of_service(&service, endpoints, works);
            assert_eq!(reply.status, expected, "{endpoints} {works}");
            assert_eq!(reply.headers, [("x-load-balancing-endpoint-weight", endpoints.to_string())]);
            let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
            let expected = json!({"service": {"namespace": "default", "name": "web"}, "localEndpoints": endpoints,
                "serviceProxyHealthy": works});
            assert_eq!(body, expected);
        }
    }

    #[test]
    fn b62_a_node_that_leaves_is_alive_but_not_healthy() {
        let good = Condition { ready: true, ..Condition::default() };
        for (condition, expected) in [
            (good, [200, 200, 200]),
            (Condition { leaving: true, ..good }, [503, 200, 200]),
            (Condition { stale: true, ..good }, [503, 503, 503]),
            (Condition { ready: false, ..good }, [200, 200, 503]),
        ] {
            let found = ["/healthz", "/livez", "/readyz?verbose"].map(|path| Reply::of_agent(path, &condition).status);
            assert_eq!(found, expected, "{condition:?}");
        }
        assert_eq!(Reply::of_agent("/", &good).status, 404);
    }
}
