//! The manifests in `deploy/` say what the code does.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use svc_agent::command;
use svc_agent::config::keys;
use svc_agent::sources::kubernetes::kinds::RIGHTS;

use crate::need;

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

/// What `kubectl kustomize` makes of an overlay; `None` where there is no kubectl, or one of before 1.21, which knows an older form
/// of patches.
fn built(test: &str, overlay: &str) -> Option<Vec<Value>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kustomize").join(overlay);
    let version = Command::new("kubectl").args(["version", "--client", "-o", "json"]).output();
    let client: Value = version.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok()).unwrap_or_default();
    if client.get("kustomizeVersion").is_none() {
        need::skip(test, "needs kubectl 1.21 or later");
        return None;
    }
    let output = Command::new("kubectl").arg("kustomize").arg(&dir).output().unwrap();
    assert!(output.status.success(), "{overlay}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{overlay}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect())
}

#[test]
fn kustomize_builds_each_overlay_into_one_daemon_set_with_all_that_it_names() {
    let test = "kustomize_builds_each_overlay_into_one_daemon_set_with_all_that_it_names";
    for (overlay, source) in [("kubernetes", "--kubernetes"), ("files", "--manifests")] {
        let Some(objects) = built(test, overlay) else { return };
        let of_kind = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).collect::<Vec<_>>();
        let [set] = of_kind("DaemonSet")[..] else { panic!("{overlay}") };
        assert!(objects.iter().all(|object| {
            object["metadata"]["namespace"] == "kube-system" || object["kind"].as_str().unwrap().starts_with("Cluster")
        }));
        let pod = &set["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let args = texts(&container["args"]);
        assert!(args[0] == "run" && args.iter().any(|arg| arg.starts_with(source)), "{overlay}: {args:?}");
        // The patch left the rest as it is in the base.
        assert_eq!(container["securityContext"], self::container(DAEMON_SETS[0])["securityContext"]);
        assert!(container["livenessProbe"].is_object() && pod["hostNetwork"] == true);
        let volumes: BTreeSet<&str> =
            pod["volumes"].as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap()).collect();
        for mount in container["volumeMounts"].as_array().unwrap() {
            assert!(volumes.contains(mount["name"].as_str().unwrap()), "{overlay}: {mount}");
        }
        // Names that kustomize makes, and those that the Pod asks for.
        let maps: BTreeSet<&str> =
            of_kind("ConfigMap").iter().map(|map| map["metadata"]["name"].as_str().unwrap()).collect();
        for variable in container["env"].as_array().unwrap() {
            if let Some(name) = variable.pointer("/valueFrom/configMapKeyRef/name") {
                assert!(maps.contains(name.as_str().unwrap()), "{overlay}: {name} is not among {maps:?}");
            }
        }
        if let Some(account) = pod.get("serviceAccountName") {
            let accounts = of_kind("ServiceAccount");
            assert!(accounts.iter().any(|object| object["metadata"]["name"] == *account), "{overlay}");
            let [binding] = of_kind("ClusterRoleBinding")[..] else { panic!("{overlay}") };
            assert_eq!(binding["subjects"][0]["name"], *account);
            assert_eq!(binding["subjects"][0]["namespace"], "kube-system");
        }
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units_and_rates_them_safe() {
    let test = "systemd_finds_nothing_wrong_with_the_units_and_rates_them_safe";
    for unit in ["svc-agent", "svc-dns"] {
        // What a unit starts has to be there.
        let dir = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        let file = dir.path().join(format!("{unit}.service"));
        let text = read(&format!("{unit}.service"));
        std::fs::write(&file, text.replace(&format!("/usr/local/bin/{unit}"), "/bin/true")).unwrap();
        let Ok(verified) = Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&file).output() else {
            need::skip(test, "needs systemd-analyze (Debian's package systemd)");
            return;
        };
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        let about: Vec<_> = said.lines().filter(|line| line.contains(unit)).collect();
        assert!(about.is_empty(), "{about:?}");
        // Of ten, where ten is no protection at all.
        let threshold = ["security", "--offline=true", "--no-pager", "--threshold=25"];
        let rated = Command::new("systemd-analyze").args(threshold).arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&rated.stdout).into_owned();
        let overall = text.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_default();
        assert!(rated.status.success() && !overall.is_empty(), "{unit}: {overall}");
    }
}
