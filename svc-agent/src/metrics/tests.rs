//! The page of a made-up agent.

use std::time::Duration;

use super::{Timings, page};
use crate::control::testing;

fn shown(max_ports: usize) -> String {
    let timings = Timings::default();
    timings.pass.observe(Duration::from_millis(3));
    page(&testing::status(), &testing::services(), &timings, max_ports)
}

#[test]
fn every_family_is_told_once_and_every_value_is_a_number() {
    let text = shown(100);
    let mut families = Vec::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let name = family.split(' ').next().unwrap();
            assert!(!families.contains(&name), "{name} twice");
            families.push(name);
        } else if !line.starts_with('#') {
            let (row, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(row.starts_with(families.last().unwrap()), "{line} is not of {:?}", families.last());
        }
    }
    for line in [
        "svc_agent_sync_complete 1",
        "svc_agent_announced_routes 3",
        "svc_agent_answered_addresses 1",
        "svc_agent_silent_peers 1",
        "svc_agent_sync_pass_duration_seconds_count 1",
        "svc_agent_source_connected{kind=\"services\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
    }
}

#[test]
fn only_so_many_ports_have_values_of_their_own() {
    let rows =
        |text: &str| text.lines().filter(|line| line.starts_with("svc_agent_service_connections_total{")).count();
    let ports = testing::services().iter().map(|service| service.ports.len()).sum::<usize>();
    assert_eq!(rows(&shown(ports)), ports);
    let cut = shown(1);
    assert_eq!(rows(&cut), 1);
    assert!(cut.contains(&format!("svc_agent_omitted_service_ports {}\n", ports - 1)), "{cut}");
    assert_eq!(rows(&shown(0)), 0);
}
