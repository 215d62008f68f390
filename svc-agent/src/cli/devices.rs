//! Devices as rows.

use super::human::joined;
use super::printer::{Column, Show, column, wide};
use crate::control::api::Device;

impl Show for Device {
    const COLUMNS: &'static [Column] = &[
        column("NAME"),
        column("CLASS"),
        column("XDP"),
        column("TC"),
        column("MTU"),
        column("ADDRESSES"),
        column("XDP-REASON"),
        wide("IFINDEX"),
        wide("MAC"),
        wide("TC-REASON"),
    ];

    fn rows(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.name.clone(),
            self.class.to_string(),
            self.xdp.mode.to_string(),
            self.tc.kind.to_string(),
            self.mtu.to_string(),
            joined(&self.addresses),
            self.xdp.reason.clone(),
            self.ifindex.to_string(),
            self.mac.clone(),
            self.tc.reason.clone(),
        ]]
    }
}
