//! Serves `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::sleep;
use tracing::{info, warn};

use super::published::Published;
use super::view::AgentView;
use crate::control::View as _;
use crate::control::api::ObjectFilter;
use crate::health::{AGAIN, Page, Reply};
use crate::metrics::{self, CONTENT_TYPE, PATH};

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
        let mut told = false;
        loop {
            match Page::start(self.address, reply.clone()) {
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
