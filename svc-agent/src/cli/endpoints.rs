//! Endpoints as rows, one each; a Service without any has one that says so.

use std::net::SocketAddr;

use super::printer::{Column, Show, column, wide};
use crate::control::api::{Endpoint, ServiceEndpoints};

impl Show for ServiceEndpoints {
    const COLUMNS: &'static [Column] = &[
        column("NAMESPACE"),
        column("SERVICE"),
        column("PORT"),
        column("ENDPOINT"),
        column("READY"),
        column("NODE"),
        column("TARGET"),
        wide("SERVING"),
        wide("TERMINATING"),
        wide("LOCAL"),
    ];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |cells: Vec<String>| [self.namespace.clone(), self.name.clone()].into_iter().chain(cells).collect();
        if self.endpoints.is_empty() {
            return vec![row(vec![String::new(); Self::COLUMNS.len() - 2])];
        }
        self.endpoints.iter().map(|endpoint| row(cells(endpoint))).collect()
    }
}

fn cells(endpoint: &Endpoint) -> Vec<String> {
    vec![
        format!("{}/{}", endpoint.service_port, endpoint.protocol),
        SocketAddr::new(endpoint.address, endpoint.port).to_string(),
        endpoint.ready.to_string(),
        endpoint.node_name.clone().unwrap_or_default(),
        endpoint.target.clone().unwrap_or_default(),
        endpoint.serving.to_string(),
        endpoint.terminating.to_string(),
        endpoint.local.to_string(),
    ]
}
