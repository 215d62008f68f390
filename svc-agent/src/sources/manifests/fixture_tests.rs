//! The manifests under `tests/manifests`: the good ones load without a word, the bad ones say what they promise in their
//! comments.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::ManifestSource;
use super::documents;
use super::object::Contents;
use crate::model::{ObjectKind, Rules};
use crate::resolve::{Node, Policy, Resolver};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests").join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn good_manifests_load_without_a_word() {
    let snapshot = ManifestSource::new(folder("good"), Rules::default()).load();
    assert_eq!(snapshot.problems, []);
    assert!(snapshot.complete);
    let counts = ObjectKind::ALL.map(|kind| snapshot.objects.count(kind));
    assert_eq!(counts, [9, 2, 3, 2, 1]);
    let ignored: Vec<(&str, usize)> =
        snapshot.objects.ignored.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    assert_eq!(ignored, [("Service", 1)]);
}

#[test]
fn an_export_of_kubectl_resolves_as_the_cluster_had_it() {
    let snapshot = ManifestSource::new(folder("good/exported.yaml"), Rules::default()).load();
    let node = Node {
        name: "node-a".to_owned(),
        zone: Some("zone-a".to_owned()),
        addresses: vec!["192.168.10.11".parse().unwrap(), "fd00:1::11".parse().unwrap()],
        ..Node::default()
    };
    let desired = Resolver::new(Policy::default()).update(&snapshot, &node);
    assert_eq!(desired.problems, []);
    assert_eq!(desired.services.len(), 1);
    let ports = desired.services.values().next().unwrap();
    let shown: Vec<String> = ports
        .iter()
        .map(|port| {
            let frontends = port.frontends.iter().map(|frontend| format!("{}:{}", frontend.addr, frontend.port));
            let backends = port.backends.iter().map(|backend| format!("{}:{}", backend.addr, backend.port));
            format!(
                "{} {} -> {}; {:?}",
                port.key.port_name,
                frontends.collect::<Vec<_>>().join(" "),
                backends.collect::<Vec<_>>().join(" "),
                port.local
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "http 10.96.12.34:80 192.168.10.11:31080 198.51.100.17:80 -> 10.244.1.12:8080 10.244.2.9:8080; Backends([0])",
            "http fd00:1::11:31080 fd00:10:96::c22:80 -> ; Reject",
            "https 10.96.12.34:443 192.168.10.11:31443 198.51.100.17:443 -> 10.244.1.12:8443 10.244.2.9:8443; Backends([0])",
            "https fd00:1::11:31443 fd00:10:96::c22:443 -> ; Reject",
        ]
    );
}

#[test]
fn bad_manifests_say_what_is_wrong() {
    for path in files("bad").into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "yaml")) {
        let text = fs::read_to_string(&path).unwrap();
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# expect: ")).collect();
        let objects: usize =
            text.lines().find_map(|line| line.strip_prefix("# objects: ")).map_or(0, |n| n.parse().unwrap());
        let snapshot = ManifestSource::new(&path, Rules::default()).load();
        let told: Vec<String> = snapshot.problems.iter().map(ToString::to_string).collect();
        assert_eq!(told, expected, "{}", path.display());
        let used: usize = ObjectKind::ALL.iter().map(|kind| snapshot.objects.count(*kind)).sum();
        assert_eq!(used, objects, "{}", path.display());
    }
    let snapshot = ManifestSource::new(folder("bad/duplicate-key.json"), Rules::default()).load();
    let expected = "duplicate-key.json document 1: duplicate key `port` at line 3 column 42";
    assert_eq!(snapshot.problems.iter().map(|problem| problem.text.as_str()).collect::<Vec<_>>(), [expected]);
}

/// Reads bytes as the source would; what counts is that it comes back, with at least one word about what it left out.
fn read(bytes: &[u8], json: bool) {
    let (documents, errors) = documents::read(bytes, json);
    assert!(errors.iter().all(|(number, text)| *number > 0 && !text.contains('\n')));
    let mut contents = Contents::default();
    for document in &documents {
        contents.add("x.yaml", document, &Rules::default());
    }
    for read in contents.objects {
        assert!(read.object.is_some() || !read.problems.is_empty());
        assert!(read.problems.iter().all(|problem| !problem.text.contains('\n')), "{:?}", read.problems);
    }
}

fn all_bytes() -> Vec<Vec<u8>> {
    files("good").into_iter().chain(files("bad")).map(|path| fs::read(path).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), json: bool) {
        read(&bytes, json);
    }

    #[test]
    fn random_text_never_panics(text in "[ \\t\\n:\\-\\[\\]{}&*!|>'\"%@`a-d0-9,#?.~<]{0,200}") {
        read(text.as_bytes(), false);
    }

    #[test]
    fn mutated_manifests_never_panic(
        file in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let all = all_bytes();
        let mut bytes = all[file.index(all.len())].clone();
        for (place, byte, edit) in edits {
            let place = place.index(bytes.len());
            match edit {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                _ => drop(bytes.remove(place)),
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read(&bytes, false);
    }

    #[test]
    fn values_of_wrong_types_never_panic(
        place in any::<prop::sample::Index>(),
        value in prop::sample::select(vec!["null", "[]", "{}", "0", "-1", "1.5", "99999999999999999999", "\"\"", "\"x\"", "true", "[null]", "{a: b}"]),
    ) {
        // Replaces what follows one of the colons of the export.
        let text = fs::read_to_string(folder("good/exported.yaml")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let place = place.index(lines.len());
        let changed = lines.iter().enumerate().map(|(i, line)| match line.split_once(": ") {
            Some((key, _)) if i == place => format!("{key}: {value}"),
            _ => (*line).to_owned(),
        });
        read(changed.collect::<Vec<_>>().join("\n").as_bytes(), false);
    }
}
