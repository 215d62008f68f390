//! Backends as rows.

use std::net::SocketAddr;

use super::printer::{Column, Show, column, wide};
use crate::control::api::Backend;

impl Show for Backend {
    const COLUMNS: &'static [Column] = &[
        column("NAMESPACE"),
        column("SERVICE"),
        column("PORT"),
        column("ID"),
        column("BACKEND"),
        column("STATE"),
        column("SHARE"),
        wide("LOCAL-SHARE"),
        wide("LOCAL"),
    ];

    fn rows(&self) -> Vec<Vec<String>> {
        let protocol = self.protocol.map_or_else(String::new, |protocol| format!("/{protocol}"));
        let service = self.service.as_ref();
        vec![vec![
            service.map(|service| service.namespace.clone()).unwrap_or_default(),
            service.map(|service| service.name.clone()).unwrap_or_default(),
            service.map(|service| format!("{}{protocol}", service.port)).unwrap_or_default(),
            self.id.to_string(),
            SocketAddr::new(self.address, self.port).to_string(),
            self.state.to_string(),
            percent(self.share_percent),
            self.local_share_percent.map(percent).unwrap_or_default(),
            self.local.to_string(),
        ]]
    }
}

fn percent(value: f64) -> String {
    format!("{value:.1}%")
}
