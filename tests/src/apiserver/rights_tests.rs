//! The agent's source where it may not see everything.

use std::sync::Arc;
use std::time::Duration;

use svc_agent::model::Rules;
use svc_agent::sources::kubernetes::servers::{self, Servers};
use svc_agent::sources::kubernetes::transport::{Answer, Request, Transport};
use svc_agent::sources::kubernetes::{KubernetesSource, Nodes, Timing};

use super::Server;
use super::source_tests::{has, store};

/// Answers requests for Nodes with this status: rights to them are not given everywhere.
struct WithoutNodes(Server, u16);

impl Transport for WithoutNodes {
    fn send<'a>(
        &'a self,
        server: &'a servers::Server,
        request: Request,
    ) -> futures::future::BoxFuture<'a, anyhow::Result<Answer>> {
        Box::pin(async move {
            let forbidden = request.path.starts_with("/api/v1/nodes");
            let answer = self.0.answer(&server.url, request).await?;
            Ok(if forbidden { Answer { status: self.1, ..answer } } else { answer })
        })
    }
}

/// A source to which requests for Nodes are answered with this status, after its first look.
async fn source(nodes: u16) -> KubernetesSource {
    let servers = Servers::new(vec![servers::Server::new("a")], None).unwrap();
    let transport = Arc::new(WithoutNodes(Server::new(store()), nodes));
    let mut source =
        KubernetesSource::start("here", Nodes::Own, &Rules::default(), servers, transport, Timing::default());
    source.first(Duration::from_secs(10)).await;
    source
}

#[tokio::test(start_paused = true)]
async fn without_the_right_to_see_nodes_services_work() {
    let snapshot = source(403).await.load();
    assert!(snapshot.complete && has(&snapshot, "web"));
    assert!(snapshot.problems.iter().any(|problem| problem.text.contains("nodes") && problem.text.contains("403")));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_void_is_no_missing_right() {
    assert!(!source(401).await.load().complete);
}
