//! Pins that are hostile, wrong, or in use.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use aya::maps::MapData;

use super::world::{BPF_FS, World, able};

#[test]
fn a_pin_directory_that_others_could_have_made_is_refused_and_left_alone() {
    if !able("a_pin_directory_that_others_could_have_made_is_refused_and_left_alone") {
        return;
    }
    let world = World::new();
    let directory = world.pin_dir();
    let make =
        || fs::create_dir(&directory).and_then(|()| fs::set_permissions(&directory, Permissions::from_mode(0o700)));

    make().unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    assert!(world.refusal(&[]).contains("its mode is 0755"));
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    chown(&directory, Some(65_534), None).unwrap();
    assert!(world.refusal(&[]).contains("it belongs to uid 65534"));
    fs::remove_dir(&directory).unwrap();

    let elsewhere = Path::new(BPF_FS).join(format!("{}-elsewhere", world.name));
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &directory).unwrap();
    let text = world.refusal(&[]);
    fs::remove_file(&directory).unwrap();
    assert!(text.contains("it is a symbolic link"), "{text}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "something was written through the link");
    fs::remove_dir(&elsewhere).unwrap();

    let ordinary = world.files.path().join("pins");
    assert!(world.refusal(&["--pin-dir", ordinary.to_str().unwrap()]).contains("not on a BPF file system"));

    let parent = Path::new(BPF_FS).join(format!("{}-parent", world.name));
    let text = world.refusal(&["--pin-dir", parent.join("pins").to_str().unwrap()]);
    assert!(text.contains("the directory around it does not exist"), "{text}");
    fs::create_dir(&parent).unwrap();
    chown(&parent, Some(65_534), None).unwrap();
    let text = world.refusal(&["--pin-dir", parent.join("pins").to_str().unwrap()]);
    fs::remove_dir(&parent).unwrap();
    assert!(text.contains("holds the pin directory") && text.contains("uid 65534"), "{text}");

    // What is safe is used, and a directory below it is looked at as well.
    make().unwrap();
    fs::create_dir(directory.join("v1")).unwrap();
    fs::set_permissions(directory.join("v1"), Permissions::from_mode(0o777)).unwrap();
    assert!(world.refusal(&[]).contains("its mode is 0777"));
    fs::remove_dir(directory.join("v1")).unwrap();
    world.start(&[]).kill();
}

#[test]
fn the_pins_are_found_where_ip_netns_exec_hides_the_file_system() {
    if !able("the_pins_are_found_where_ip_netns_exec_hides_the_file_system") {
        return;
    }
    let world = World::new();
    let agent = world.start_by(&["ip", "netns", "exec", &world.name], &[]);
    let shown = agent.json(&["status"])["pinDir"].clone();
    assert_eq!(shown, world.pin_dir().to_str().unwrap());
    let link = world.link("eth0", "tc_ingress");
    agent.kill();
    world.start(&[]).kill();
    assert_eq!(world.link("eth0", "tc_ingress").id, link.id, "the same pins by either way");
}

#[test]
fn a_second_agent_on_the_same_pins_is_refused() {
    if !able("a_second_agent_on_the_same_pins_is_refused") {
        return;
    }
    let world = World::new();
    let first = world.start(&[]);
    let text = world.refusal(&[]);
    assert!(text.contains("another svc-agent uses the pin directory") && text.contains("--pin-dir"), "{text}");
    assert!(first.svcctl(&["status"]).status.success());
}

/// Pins a map of another shape in the place of one of ours.
fn usurp(world: &World, name: &str) {
    const HASH: u32 = 1;
    let map = aya_obj::Map::new_from_params(HASH, 4, 4, 16, 0);
    fs::remove_file(world.map(name)).unwrap();
    MapData::create(map, "svct_wrong", None).unwrap().pin(world.map(name)).unwrap();
}

#[test]
fn a_wrong_map_is_replaced_and_the_reason_is_told() {
    if !able("a_wrong_map_is_replaced_and_the_reason_is_told") {
        return;
    }
    let world = World::new();
    world.start(&[]).kill();
    let (devices, frontends) = (world.map_id("DEVICES"), world.map_id("FRONTENDS_V4"));
    usurp(&world, "FLOWS_V4");
    let wrong = world.map_id("FLOWS_V4");
    let log = world.start(&[]).kill();
    assert!(log.contains("key size is 4, expected 16") && log.contains("FLOWS_V4"), "{log}");
    assert_ne!(world.map_id("FLOWS_V4"), wrong);
    assert_eq!((world.map_id("DEVICES"), world.map_id("FRONTENDS_V4")), (devices, frontends), "the others are kept");

    // Ids in the planned maps name each other: they go together. The flow tables stay.
    let flows = world.map_id("FLOWS_V4");
    usurp(&world, "SLOTS");
    let log = world.start(&[]).kill();
    assert!(log.contains("its ids belong together"), "{log}");
    assert_ne!(world.map_id("FRONTENDS_V4"), frontends);
    assert_eq!(world.map_id("FLOWS_V4"), flows);
}

#[test]
fn another_capacity_makes_new_flow_tables_and_keeps_the_rest() {
    if !able("another_capacity_makes_new_flow_tables_and_keeps_the_rest") {
        return;
    }
    let world = World::new();
    world.start(&[]).kill();
    let before = ["FLOWS_V4", "EMBRYOS_V6", "SELECTIONS"].map(|map| world.map_id(map));
    let log = world.start(&["--max-flows", "8192"]).kill();
    assert!(log.contains("max_entries is 4096, expected 8192"), "{log}");
    let after = ["FLOWS_V4", "EMBRYOS_V6", "SELECTIONS"].map(|map| world.map_id(map));
    assert!(after[0] != before[0] && after[1] != before[1] && after[2] == before[2]);
}
