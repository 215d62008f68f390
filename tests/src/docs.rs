//! What the documents name must exist: tests, counters, maps, keys, files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use svc_agent::command;
use svc_agent::config::{Config, keys};
use svc_common::maps::spec;
use svc_common::reason::Reason;

const CRATES: [&str; 6] = ["svc-common", "svc-ebpf", "svc-agent", "svc-dns", "tests", "xtask"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The first cells of the rows of all tables.
fn rows(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
}

/// Names of tests are sentences.
fn is_sentence(name: &str) -> bool {
    name.matches('_').count() >= 3 && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of all functions that are called like tests.
fn sentences() -> BTreeSet<String> {
    let mut files = Vec::new();
    CRATES.iter().for_each(|name| sources(&root().join(name), &mut files));
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let functions = text
            .lines()
            .filter_map(|line| line.trim_start().trim_start_matches("async ").strip_prefix("fn ")?.split('(').next());
        names.extend(functions.filter(|name| is_sentence(name)).map(str::to_owned));
    }
    names
}

#[test]
fn every_test_that_the_behaviours_name_exists() {
    let text = read("docs/behaviours.md");
    let tests = sentences();
    let missing: Vec<_> =
        quoted(&text).filter(|name| is_sentence(name)).filter(|name| !tests.contains(*name)).collect();
    assert!(missing.is_empty(), "docs/behaviours.md names tests that do not exist: {missing:#?}");
}

#[test]
fn every_behaviour_has_one_row() {
    let text = read("docs/behaviours.md");
    for number in 1..=80 {
        let name = format!("B{number:02}");
        assert_eq!(rows(&text).filter(|cell| *cell == name).count(), 1, "{name}");
    }
}

#[test]
fn every_counter_map_and_key_is_explained() {
    let text = read("docs/operations.md");
    let explained: BTreeSet<&str> = rows(&text).flat_map(quoted).collect();
    let names = Reason::ALL.iter().map(|reason| reason.code());
    let names = names.chain(spec::ALL.iter().map(|map| map.name)).chain(keys::ALL.iter().map(|key| key.name));
    let missing: Vec<_> = names.filter(|name| !explained.contains(name)).collect();
    assert!(missing.is_empty(), "docs/operations.md has no row for {missing:?}");
}

#[test]
fn the_example_configuration_has_every_key_with_its_default() {
    let text = read("deploy/svc-agent.toml");
    let mut values = Vec::new();
    for key in keys::ALL {
        let assignment = format!("{} = ", key.name);
        let line = text.lines().find_map(|line| Some((line, line.trim_start_matches('#').strip_prefix(&assignment)?)));
        let (line, value) = line.unwrap_or_else(|| panic!("no line for `{}`", key.name));
        // Instead of manifests.
        if key.name != "kubeconfig" {
            values.push(line.trim_start_matches('#'));
        }
        if let Some(default) = key.default {
            assert_eq!(
                value.replace(['[', ']', '"'], "").replace(", ", ","),
                default.replace(['[', ']'], ""),
                "{}",
                key.name
            );
        }
    }
    let dir = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
    for (name, text) in [("shipped.toml", text.clone()), ("full.toml", values.join("\n"))] {
        let file = dir.path().join(name);
        fs::write(&file, text).unwrap();
        let matches = command::command().get_matches_from(["svc-agent", "run", "--config", file.to_str().unwrap()]);
        Config::from_matches(matches.subcommand_matches("run").unwrap()).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn files_and_folders_that_documents_name_are_there() {
    let mut documents = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        documents.push(format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()));
    }
    for document in documents {
        let text = read(&document);
        let folder = root().join(&document).parent().unwrap().to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let is_file = !target.is_empty() && !target.contains("://");
            assert!(!is_file || folder.join(target).exists(), "{document}: link to {target}");
        }
        let tops = CRATES.iter().chain(&["docs", "deploy", "examples"]);
        let tops: Vec<String> = tops.map(|top| format!("{top}/")).collect();
        let paths = quoted(&text).filter(|path| tops.iter().any(|top| path.starts_with(top)));
        // Annotations are written alike.
        let paths = paths.filter(|path| !path.starts_with("svc-agent/health-check"));
        for path in paths.filter(|path| !path.contains(['{', '*', ' ', '\n'])) {
            assert!(root().join(path).exists(), "{document}: {path}");
        }
    }
}
