//! Connections as rows. In is from the client, out is to it.

use super::human::{number, seconds};
use super::printer::{Column, Show, column, wide};
use crate::control::api::{Flow, NextHop};

impl Show for Flow {
    const COLUMNS: &'static [Column] = &[
        column("PROTO"),
        column("CLIENT"),
        column("VIP"),
        column("BACKEND"),
        column("SNAT"),
        column("STATE"),
        column("PACKETS-IN"),
        column("BYTES-IN"),
        column("PACKETS-OUT"),
        column("BYTES-OUT"),
        column("IDLE"),
        wide("SERVICE"),
        wide("DEVICE"),
        wide("NEXT-HOP"),
    ];

    fn rows(&self) -> Vec<Vec<String>> {
        let hop = self.next_hop.as_ref();
        vec![vec![
            self.protocol.to_string(),
            self.client.to_string(),
            self.vip.to_string(),
            self.backend.to_string(),
            self.snat.map(|source| source.to_string()).unwrap_or_default(),
            self.state.to_string(),
            number(self.forward.packets),
            number(self.forward.bytes),
            number(self.reverse.packets),
            number(self.reverse.bytes),
            seconds(self.idle_seconds),
            self.service.as_ref().map(|service| format!("{}/{}", service.namespace, service.name)).unwrap_or_default(),
            hop.map(device).unwrap_or_default(),
            hop.and_then(|hop| hop.mac.clone()).unwrap_or_default(),
        ]]
    }
}

fn device(hop: &NextHop) -> String {
    hop.device.clone().unwrap_or_else(|| format!("#{}", hop.ifindex))
}
