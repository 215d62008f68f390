//! The manifests in `deploy/` say what the code does.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use svc_agent::command;
use svc_agent::config::keys;
use svc_agent::sources::kubernetes::kinds::RIGHTS;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn documents(file: &str) -> Vec<Value> {
    let text = read(file);
    text.split("\n---\n")
        .map(|text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{file}: {error}")))
        .collect()
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

const DAEMON_SETS: [&str; 3] =
    ["kustomize/base/daemonset.yaml", "kustomize/kubernetes/daemonset.yaml", "kustomize/files/daemonset.yaml"];

fn container(file: &str) -> Value {
    documents(file).remove(0).pointer("/spec/template/spec/containers/0").unwrap().clone()
}

#[test]
fn the_role_grants_what_the_agent_does_and_no_more() {
    let documents = documents("kustomize/kubernetes/rbac.yaml");
    let role = documents.iter().find(|object| object["kind"] == "ClusterRole").unwrap();
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                granted.extend(texts(&rule["verbs"]).into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
    }
    let used = RIGHTS.iter().flat_map(|right| {
        right.verbs.iter().map(|verb| (right.group.to_owned(), right.resource.to_owned(), (*verb).to_owned()))
    });
    assert_eq!(granted, used.collect());
}

#[test]
fn files_that_a_kustomization_names_are_there() {
    for overlay in ["base", "kubernetes", "files"] {
        let kustomization = &documents(&format!("kustomize/{overlay}/kustomization.yaml"))[0];
        let resources = kustomization["resources"].as_array().unwrap().iter().map(|item| item.as_str().unwrap());
        let patches = kustomization["patches"].as_array().into_iter().flatten();
        for file in resources.chain(patches.map(|patch| patch["path"].as_str().unwrap())) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kustomize").join(overlay).join(file);
            assert!(path.exists(), "{}", path.display());
        }
    }
}

#[test]
fn the_agents_arguments_and_variables_exist() {
    for file in DAEMON_SETS {
        let container = container(file);
        let args = texts(&container["args"]);
        let matches = command::command().try_get_matches_from(["svc-agent".to_owned()].into_iter().chain(args));
        assert!(matches.is_ok(), "{file}: {matches:?}");
        for variable in container["env"].as_array().into_iter().flatten() {
            let name = variable["name"].as_str().unwrap();
            assert!(keys::ALL.iter().any(|key| key.variable == name), "{file}: {name}");
        }
    }
}

#[test]
fn the_agent_has_the_same_capabilities_in_a_pod_and_as_a_unit() {
    let security = &container(DAEMON_SETS[0])["securityContext"];
    assert_eq!(texts(&security["capabilities"]["drop"]), ["ALL"]);
    let added: BTreeSet<String> =
        texts(&security["capabilities"]["add"]).into_iter().map(|name| format!("CAP_{name}")).collect();
    let unit = read("svc-agent.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    assert_eq!(added, line.split(' ').map(str::to_owned).collect());
}

#[test]
fn probes_ask_where_the_agent_answers() {
    let container = container(DAEMON_SETS[0]);
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let port = container[probe]["httpGet"]["port"].as_u64().unwrap();
        assert!(keys::HEALTHZ_BIND.default.unwrap().ends_with(&format!(":{port}")), "{probe}");
    }
}
