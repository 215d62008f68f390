//! Serves `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use super::published::Published;
use super::view::AgentView;
use crate::control::View as _;
use crate::control::api::ObjectFilter;
use crate::health::{Page, Reply};
use crate::metrics::{self, CONTENT_TYPE, PATH};

/// How long an address that is taken is waited for before it is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// What the task works with.
pub struct MetricsTask {
    /// Where.
    pub address: SocketAddr,
    /// Ports of Services that have values of their own.
    pub max_ports: usize,
    /// What is told.
    pub view: Arc<AgentView>,
    /// How long things take.
    pub published: Arc<Published>,
}

impl MetricsTask {
    /// Serves until it is dropped.
    pub async fn run(self) {
        let (view, published, max_ports) = (self.view, self.published.clone(), self.max_ports);
        let reply = move |path: &str| match path {
            // Maps are read: others take over the tasks of this thread.
            PATH => tokio::task::block_in_place(|| page(&view, &published, max_ports)),
            _ => Reply::not_found(),
        };
        let reply: Arc<dyn Fn(&str) -> Reply + Send + Sync> = Arc::new(reply);
        let mut told = false;
        loop {
            let asked = reply.clone();
            match Page::start(self.address, move |path| asked(path)) {
                Ok(started) => {
                    info!(address = %started.address(), "answering {PATH}");
                    self.published.metrics.set(None);
                    return std::future::pending().await;
                }
                Err(error) => {
                    let trouble = format!("no metrics at {}: {error}; set --metrics-bind", self.address);
                    if !std::mem::replace(&mut told, true) {
                        warn!("{trouble}; trying again");
                    }
                    self.published.metrics.set(Some(trouble));
                    sleep(AGAIN).await;
                }
            }
        }
    }
}

fn page(view: &AgentView, published: &Published, max_ports: usize) -> Reply {
    let text = || -> anyhow::Result<String> {
        let (status, services) = (view.status()?, view.services(&ObjectFilter::default())?);
        Ok(metrics::page(&status, &services, &published.timings, max_ports))
    };
    match text() {
        Ok(text) => Reply::text(CONTENT_TYPE, text),
        Err(error) => Reply::failed(&error.to_string()),
    }
}
