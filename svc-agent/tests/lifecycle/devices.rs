//! Devices that come, go, or belong to somebody else.

use std::fs;

use super::world::{World, able, until};

#[test]
fn a_device_made_anew_is_attached_to_anew_and_its_old_pins_go() {
    if !able("a_device_made_anew_is_attached_to_anew_and_its_old_pins_go") {
        return;
    }
    let world = World::new();
    let agent = world.start(&[]);
    let old = world.link_pin("eth0", "tc_ingress");
    assert!(old.exists());
    world.ip("link del eth0");
    until("the old pin is gone", || !old.exists());
    world.add_uplink();
    let new = world.link_pin("eth0", "tc_ingress");
    assert_ne!(new, old);
    until("the new device is attached to", || new.exists());
    until("the status shows it", || agent.device("eth0").is_some_and(|device| device["tc"]["kind"] == "tcx"));
}

#[test]
fn devices_and_addresses_are_followed() {
    if !able("devices_and_addresses_are_followed") {
        return;
    }
    let world = World::new();
    let agent = world.start(&[]);
    let epoch = || agent.json(&["status"])["epoch"].as_u64().unwrap();
    let before = epoch();
    world.ip("link add veth7 type veth peer name peer7");
    until("a pod's device is attached to", || {
        agent.device("veth7").is_some_and(|device| device["class"] == "workload" && device["tc"]["kind"] == "tcx")
    });
    world.ip("addr add 192.0.2.77/24 dev eth0");
    until("the address is known", || agent.device("eth0").unwrap()["addresses"].to_string().contains("192.0.2.77"));
    until("flows check themselves", || epoch() != before);
    let before = epoch();
    world.ip("route add 203.0.113.0/24 via 192.0.2.9");
    until("a route makes flows check themselves", || epoch() != before);
    let before = epoch();
    world.ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev eth0");
    until("a neighbour makes flows check themselves", || epoch() != before);
}

#[test]
fn a_foreign_xdp_program_stays_and_is_told() {
    if !able("a_foreign_xdp_program_stays_and_is_told") {
        return;
    }
    let world = World::new();
    let other = World::new();
    let first = world.start(&["--xdp-mode", "native"]);
    let before = world.link("eth0", "xdp");
    // To an agent with another pin directory, the first one's program is a stranger's.
    let pin_dir = other.pin_dir();
    let second = world.start(&["--xdp-mode", "native", "--pin-dir", pin_dir.to_str().unwrap()]);
    let xdp = second.device("eth0").unwrap()["xdp"].clone();
    assert_eq!(xdp["mode"], "off");
    let reason = xdp["reason"].as_str().unwrap();
    assert!(reason.contains("another XDP program") && reason.contains(&before.program_id.to_string()), "{reason}");
    assert_eq!(world.link("eth0", "xdp"), before);
    assert_eq!(second.device("eth0").unwrap()["tc"]["kind"], "tcx");
    drop(first);
}

#[test]
fn a_link_of_another_namespace_is_not_taken_for_ours() {
    if !able("a_link_of_another_namespace_is_not_taken_for_ours") {
        return;
    }
    let world = World::new();
    let other = World::new();
    assert_eq!(world.ifindex("eth0"), other.ifindex("eth0"), "namespaces count from the same number");
    world.start(&[]).kill();
    let before = world.link("eth0", "tc_ingress");
    let pin_dir = world.pin_dir();
    let agent = other.start(&["--pin-dir", pin_dir.to_str().unwrap()]);
    let tc = agent.device("eth0").unwrap()["tc"].clone();
    assert!(tc["kind"] == "off" && tc["reason"].as_str().unwrap().contains("another network namespace"), "{tc}");
    assert_eq!(world.link("eth0", "tc_ingress"), before);
}

#[test]
fn a_removed_pin_is_pinned_again_without_detaching() {
    if !able("a_removed_pin_is_pinned_again_without_detaching") {
        return;
    }
    let world = World::new();
    let agent = world.start(&[]);
    let (link, map) = (world.link("eth0", "tc_ingress"), world.map_id("FLOWS_V4"));
    let pin = world.link_pin("eth0", "tc_ingress");
    fs::remove_file(&pin).unwrap();
    fs::remove_file(world.map("FLOWS_V4")).unwrap();
    until("both are pinned again", || pin.exists() && world.map("FLOWS_V4").exists());
    assert_eq!(world.link("eth0", "tc_ingress"), link, "{}", agent.log());
    assert_eq!(world.map_id("FLOWS_V4"), map);
}

#[test]
fn a_removed_pin_directory_is_made_again_without_detaching() {
    if !able("a_removed_pin_directory_is_made_again_without_detaching") {
        return;
    }
    let world = World::new();
    let agent = world.start(&[]);
    let (link, map) = (world.link("eth0", "tc_ingress"), world.map_id("FLOWS_V4"));
    let pin = world.link_pin("eth0", "tc_ingress");
    for directory in [world.pin_dir().join("v1"), world.pin_dir()] {
        fs::remove_dir_all(&directory).unwrap();
        until("all is pinned again", || pin.exists() && world.map("FLOWS_V4").exists());
        assert_eq!(world.link("eth0", "tc_ingress"), link, "{}", agent.log());
        assert_eq!(world.map_id("FLOWS_V4"), map);
    }
    assert!(world.refusal(&[]).contains("another svc-agent uses the pin directory"), "the lock moved along");
}
