//! What happens to the state while files come, change, break and go.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::ManifestSource;
use crate::model::{Rules, Service, ServiceName};
use crate::sources::{Severity, Snapshot};

/// A directory with a source over it.
struct World {
    dir: tempfile::TempDir,
    source: ManifestSource,
}

impl World {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        let source = ManifestSource::new(dir.path(), Rules::default());
        let world = Self { dir, source };
        for (name, text) in files {
            world.write(name, text);
        }
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces a file as a careful writer does.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(".new"), text).unwrap();
        fs::rename(self.at(".new"), self.at(name)).unwrap();
    }

    fn load(&mut self) -> Snapshot {
        self.source.load()
    }
}

fn service(name: &str, ip: u8) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: 10.96.0.{ip}, ports: [{{port: 80}}]}}\n"
    )
}

const BAD_PORT: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: http}]}\n";

/// Services with the last octet of their ClusterIP.
fn services(snapshot: &Snapshot) -> Vec<(String, u8)> {
    let last = |service: &Service| match service.cluster_ips[..] {
        [std::net::IpAddr::V4(ip)] => ip.octets()[3],
        _ => 0,
    };
    snapshot.objects.services.values().map(|service| (service.name.name.clone(), last(service))).collect()
}

fn expect(snapshot: &Snapshot, expected: &[(&str, u8)], errors: usize, complete: bool) {
    let expected: Vec<(String, u8)> = expected.iter().map(|(name, ip)| ((*name).to_owned(), *ip)).collect();
    assert_eq!(services(snapshot), expected);
    let told = snapshot.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    assert_eq!((told, snapshot.complete), (errors, complete), "{:?}", snapshot.problems);
}

fn shared(snapshot: &Snapshot, name: &str) -> Arc<Service> {
    snapshot.objects.services[&ServiceName::new("default", name)].clone()
}

#[test]
fn b79_a_file_that_stops_parsing_keeps_its_last_good_objects() {
    let mut world = World::new(&[("a.yaml", &(service("a", 1) + &service("b", 2)))]);
    expect(&world.load(), &[("a", 1), ("b", 2)], 0, true);
    world.write("a.yaml", &(service("a", 9) + "---\n{ half"));
    let snapshot = world.load();
    expect(&snapshot, &[("a", 1), ("b", 2)], 1, true);
    assert!(snapshot.problems[0].text.starts_with("a.yaml document 2: line 7 column"), "{:?}", snapshot.problems);
    assert!(snapshot.problems[0].text.ends_with("; the objects of its last good version stay in use"));
    world.write("a.yaml", &service("a", 9));
    expect(&world.load(), &[("a", 9)], 0, true);
}

#[test]
fn b79_an_object_that_becomes_invalid_keeps_its_last_good_version_while_others_change() {
    let mut world = World::new(&[("a.yaml", &(service("a", 1) + &service("b", 2)))]);
    world.load();
    world.write("a.yaml", &(BAD_PORT.to_owned() + &service("b", 3)));
    let snapshot = world.load();
    expect(&snapshot, &[("a", 1), ("b", 3)], 1, true);
    assert_eq!(
        snapshot.problems[0].text,
        "a.yaml document 1, Service `default/a`: spec.ports[0].port: found the string \"http\", expected a number; \
         its last good version stays in use"
    );
    // Still remembered after another change of the file; forgotten when the object goes.
    world.write("a.yaml", &(BAD_PORT.to_owned() + &service("b", 4)));
    expect(&world.load(), &[("a", 1), ("b", 4)], 1, true);
    world.write("a.yaml", &service("b", 4));
    expect(&world.load(), &[("b", 4)], 0, true);
}

#[test]
fn b79_a_removed_file_takes_its_objects_along() {
    let mut world = World::new(&[("a.yaml", &service("a", 1)), ("sub.yml", &service("b", 2))]);
    expect(&world.load(), &[("a", 1), ("b", 2)], 0, true);
    fs::remove_file(world.at("a.yaml")).unwrap();
    expect(&world.load(), &[("b", 2)], 0, true);
}

#[test]
fn b78_what_was_bad_at_the_start_makes_the_state_incomplete_until_it_is_good_or_gone() {
    for bad in ["{ half", BAD_PORT, "just text"] {
        let mut world = World::new(&[("a.yaml", bad), ("b.yaml", &service("b", 2))]);
        expect(&world.load(), &[("b", 2)], 1, false);
        world.write("a.yaml", &format!("{bad}\n# changed"));
        expect(&world.load(), &[("b", 2)], 1, false);
        world.write("a.yaml", &service("a", 1));
        expect(&world.load(), &[("a", 1), ("b", 2)], 0, true);
        // From now on its good state is known.
        world.write("a.yaml", bad);
        assert!(world.load().complete);
    }
    let mut world = World::new(&[("a.yaml", "{ half")]);
    assert!(!world.load().complete);
    fs::remove_file(world.at("a.yaml")).unwrap();
    expect(&world.load(), &[], 0, true);
    // What appears later cannot be in the maps.
    world.write("new.yaml", "{ half");
    expect(&world.load(), &[], 1, true);
}

#[test]
fn b78_a_directory_that_is_missing_at_the_start_makes_the_state_incomplete() {
    let dir = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
    let root = dir.path().join("manifests");
    let mut source = ManifestSource::new(&root, Rules::default());
    expect(&source.load(), &[], 1, false);
    fs::create_dir(&root).unwrap();
    fs::write(root.join("bad.yaml"), "{ half").unwrap();
    expect(&source.load(), &[], 1, false);
    fs::write(root.join("bad.yaml"), service("a", 1)).unwrap();
    expect(&source.load(), &[("a", 1)], 0, true);
    // One that vanishes keeps what it had.
    fs::rename(&root, dir.path().join("away")).unwrap();
    expect(&source.load(), &[("a", 1)], 1, true);
    fs::create_dir(&root).unwrap();
    expect(&source.load(), &[], 0, true);
}

#[test]
fn of_two_definitions_the_first_by_file_name_counts() {
    let mut world = World::new(&[("b.yaml", &service("a", 2)), ("c.yaml", &service("a", 3))]);
    let snapshot = world.load();
    expect(&snapshot, &[("a", 2)], 1, true);
    assert_eq!(
        snapshot.problems[0].text,
        "c.yaml document 1, Service `default/a`: defined already in b.yaml document 1, which counts because it comes \
         first; remove one of them"
    );
    // The deletion of the other changes nothing.
    let before = shared(&snapshot, "a");
    fs::remove_file(world.at("c.yaml")).unwrap();
    assert!(Arc::ptr_eq(&before, &shared(&world.load(), "a")));
    world.write("a.yaml", &service("a", 1));
    expect(&world.load(), &[("a", 1)], 1, true);
    fs::remove_file(world.at("a.yaml")).unwrap();
    expect(&world.load(), &[("a", 2)], 0, true);
    world.write("b.yaml", &(service("x", 7) + &service("x", 8)));
    expect(&world.load(), &[("x", 7)], 1, true);
}

#[test]
fn b80_what_did_not_change_is_the_same_in_memory() {
    let mut world = World::new(&[("a.yaml", &(service("a", 1) + &service("b", 2))), ("c.yaml", &service("c", 3))]);
    let first = world.load();
    world.write("a.yaml", &(service("a", 1) + &service("b", 9)));
    let second = world.load();
    for (name, same) in [("a", true), ("b", false), ("c", true)] {
        assert_eq!(Arc::ptr_eq(&shared(&first, name), &shared(&second, name)), same, "{name}");
    }
}

#[test]
fn an_emptied_file_is_taken_for_one_that_is_being_written() {
    let mut world = World::new(&[("a.yaml", &service("a", 1))]);
    world.load();
    world.write("a.yaml", "\n");
    let snapshot = world.load();
    expect(&snapshot, &[("a", 1)], 0, true);
    assert_eq!(snapshot.problems.len(), 1);
    // A file of comments was written on purpose.
    world.write("a.yaml", "# nothing left\n");
    expect(&world.load(), &[], 0, true);
}

#[test]
fn a_file_over_the_limit_keeps_its_last_good_objects() {
    let mut world = World::new(&[("a.yaml", &service("a", 1))]);
    world.load();
    fs::File::options().write(true).open(world.at("a.yaml")).unwrap().set_len((64 << 20) + 1).unwrap();
    // A process that another test is just starting may have the file open for a moment, which looks like a writer.
    let mut looks = (0..500).map(|_| {
        std::thread::sleep(Duration::from_millis(10));
        world.load()
    });
    let snapshot = looks.find(|snapshot| !snapshot.problems.is_empty()).unwrap();
    expect(&snapshot, &[("a", 1)], 1, true);
    assert!(snapshot.problems[0].text.contains("found 67108865 bytes, expected at most 67108864"));
}

#[test]
fn a_config_map_is_swapped_as_a_whole() {
    let mut world = World::new(&[]);
    let version = |world: &World, name: &str, ip: u8| {
        fs::create_dir(world.at(name)).unwrap();
        fs::write(world.at(name).join("web.yaml"), service("a", ip)).unwrap();
        symlink(name, world.at("..data_tmp")).unwrap();
        fs::rename(world.at("..data_tmp"), world.at("..data")).unwrap();
    };
    version(&world, "..2024_01", 1);
    symlink("..data/web.yaml", world.at("web.yaml")).unwrap();
    expect(&world.load(), &[("a", 1)], 0, true);
    version(&world, "..2024_02", 2);
    fs::remove_dir_all(world.at("..2024_01")).unwrap();
    expect(&world.load(), &[("a", 2)], 0, true);
}

async fn noticed(source: &mut ManifestSource) -> Snapshot {
    tokio::time::timeout(Duration::from_secs(20), source.changed()).await.expect("the change is noticed");
    source.load()
}

/// Loads until the source has nothing to look at again.
async fn settled(world: &mut World) -> Snapshot {
    let mut snapshot = world.load();
    while tokio::time::timeout(Duration::from_millis(300), world.source.changed()).await.is_ok() {
        snapshot = world.load();
    }
    snapshot
}

#[tokio::test]
async fn changes_are_noticed_at_once() {
    let mut world = World::new(&[("a.yaml", &service("a", 1))]);
    settled(&mut world).await;
    let start = std::time::Instant::now();
    world.write("a.yaml", &service("a", 2));
    expect(&noticed(&mut world.source).await, &[("a", 2)], 0, true);
    assert!(start.elapsed() < Duration::from_secs(2), "by an event, not by the poll: {:?}", start.elapsed());
    settled(&mut world).await;
    fs::create_dir(world.at("sub")).unwrap();
    settled(&mut world).await;
    world.write("sub/b.yaml", &service("b", 3));
    expect(&noticed(&mut world.source).await, &[("a", 2), ("b", 3)], 0, true);
    settled(&mut world).await;
    fs::remove_file(world.at("a.yaml")).unwrap();
    expect(&noticed(&mut world.source).await, &[("b", 3)], 0, true);
    let quiet = tokio::time::timeout(Duration::from_millis(300), world.source.changed()).await;
    assert!(quiet.is_err(), "reading the files is no change");
}

#[tokio::test]
async fn b80_a_change_of_one_file_is_looked_at_alone() {
    let mut world =
        World::new(&[("a.yaml", &service("a", 1)), ("b.yaml", &service("b", 2)), ("c.yaml", &service("c", 3))]);
    settled(&mut world).await;
    // Replaced, written in place, new, gone.
    world.write("a.yaml", &service("a", 4));
    expect(&noticed(&mut world.source).await, &[("a", 4), ("b", 2), ("c", 3)], 0, true);
    assert_eq!(world.source.files.seen(), 1);
    settled(&mut world).await;
    fs::write(world.at("b.yaml"), service("b", 5)).unwrap();
    expect(&noticed(&mut world.source).await, &[("a", 4), ("b", 5), ("c", 3)], 0, true);
    assert_eq!(world.source.files.seen(), 1);
    settled(&mut world).await;
    world.write("d.yaml", &service("d", 6));
    expect(&noticed(&mut world.source).await, &[("a", 4), ("b", 5), ("c", 3), ("d", 6)], 0, true);
    assert_eq!(world.source.files.seen(), 1);
    settled(&mut world).await;
    fs::remove_file(world.at("c.yaml")).unwrap();
    expect(&noticed(&mut world.source).await, &[("a", 4), ("b", 5), ("d", 6)], 0, true);
    assert_eq!(world.source.files.seen(), 0);
}

#[tokio::test]
async fn what_a_directory_or_a_link_takes_along_is_noticed() {
    let mut world = World::new(&[("a.yaml", &service("a", 1))]);
    fs::create_dir(world.at("sub.yaml")).unwrap();
    fs::create_dir(world.at("away")).unwrap();
    world.write("sub.yaml/b.yaml", &service("b", 2));
    world.write("away/c.yaml", &service("c", 3));
    expect(&settled(&mut world).await, &[("a", 1), ("b", 2), ("c", 3)], 0, true);
    let outside = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
    for (name, left) in [("sub.yaml", &[("a", 1), ("c", 3)][..]), ("away", &[("a", 1)])] {
        fs::rename(world.at(name), outside.path().join(name)).unwrap();
        expect(&noticed(&mut world.source).await, left, 0, true);
        settled(&mut world).await;
    }
    fs::rename(outside.path().join("away"), world.at("away")).unwrap();
    expect(&noticed(&mut world.source).await, &[("a", 1), ("c", 3)], 0, true);
    settled(&mut world).await;
    // A link to what is hidden: a change behind it is one of the link's file.
    fs::create_dir(world.at("..1")).unwrap();
    fs::write(world.at("..1/d.yaml"), service("d", 4)).unwrap();
    symlink("..1/d.yaml", world.at("d.yaml")).unwrap();
    expect(&noticed(&mut world.source).await, &[("a", 1), ("c", 3), ("d", 4)], 0, true);
    settled(&mut world).await;
    fs::write(world.at("..1/d.yaml"), service("d", 5)).unwrap();
    let mut snapshot = noticed(&mut world.source).await;
    while services(&snapshot)[2].1 != 5 {
        snapshot = noticed(&mut world.source).await;
    }
    expect(&snapshot, &[("a", 1), ("c", 3), ("d", 5)], 0, true);
}

#[tokio::test]
async fn a_file_is_not_read_while_somebody_writes_it() {
    use std::io::Write;
    let mut world = World::new(&[("a.yaml", &(service("a", 1) + &service("b", 2)))]);
    settled(&mut world).await;
    let mut writer = fs::File::create(world.at("a.yaml")).unwrap();
    writer.write_all(service("a", 5).as_bytes()).unwrap();
    writer.flush().unwrap();
    // Valid so far, but without `b`: taking it would remove a Service for a moment.
    expect(&noticed(&mut world.source).await, &[("a", 1), ("b", 2)], 0, true);
    writer.write_all(service("b", 6).as_bytes()).unwrap();
    drop(writer);
    let mut snapshot = noticed(&mut world.source).await;
    while services(&snapshot)[0].1 != 5 {
        snapshot = noticed(&mut world.source).await;
    }
    expect(&snapshot, &[("a", 5), ("b", 6)], 0, true);
}

#[tokio::test]
async fn a_change_is_not_lost_when_the_wait_is_dropped() {
    let mut world = World::new(&[]);
    settled(&mut world).await;
    world.write("a.yaml", &service("a", 1));
    for _ in 0..5 {
        // Dropped within the quiet time that follows an event.
        let _ = tokio::time::timeout(Duration::from_millis(10), world.source.changed()).await;
    }
    expect(&noticed(&mut world.source).await, &[("a", 1)], 0, true);
}

#[tokio::test]
async fn a_directory_that_is_replaced_is_watched_again() {
    let dir = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
    let root = dir.path().join("manifests");
    fs::create_dir(&root).unwrap();
    let mut source = ManifestSource::new(&root, Rules::default());
    source.load();
    fs::rename(&root, dir.path().join("old")).unwrap();
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a.yaml"), service("a", 1)).unwrap();
    expect(&noticed(&mut source).await, &[("a", 1)], 0, true);
    while tokio::time::timeout(Duration::from_millis(300), source.changed()).await.is_ok() {
        source.load();
    }
    let start = std::time::Instant::now();
    fs::write(root.join("a.yaml"), service("a", 2)).unwrap();
    expect(&noticed(&mut source).await, &[("a", 2)], 0, true);
    assert!(start.elapsed() < Duration::from_secs(2));
}
