//! What requests do to the files, whatever they are and whenever the agent dies.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::sources::manifests::ManifestSource;
use crate::sources::{LocalSources, Raw};

/// An agent's state directory, and a manifests directory beside it.
struct World {
    home: TempDir,
    applied: Applied,
    sources: LocalSources,
}

impl World {
    fn new() -> Self {
        let home = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        fs::create_dir(home.path().join("manifests")).unwrap();
        let applied = Applied::open(&home.path().join("state"), Rules::default()).unwrap();
        let sources = Self::sources(&home, &applied);
        Self { home, applied, sources }
    }

    fn sources(home: &TempDir, applied: &Applied) -> LocalSources {
        LocalSources::new(Some(&home.path().join("manifests")), applied.objects(), &Rules::default())
    }

    fn restart(self) -> Self {
        let Self { home, applied, sources } = self;
        drop((applied, sources));
        let applied = Applied::open(&home.path().join("state"), Rules::default()).unwrap();
        let sources = Self::sources(&home, &applied);
        Self { home, applied, sources }
    }

    fn apply_with(&mut self, text: &str, options: &Options) -> Result<Vec<(String, Action)>, Refusal> {
        let seen = self.sources.load();
        let outcomes = self.applied.apply(text.as_bytes(), options, &seen)?;
        Ok(outcomes.into_iter().map(|outcome| (outcome.key.to_string(), outcome.action)).collect())
    }

    fn apply(&mut self, text: &str) -> Vec<Action> {
        self.apply_with(text, &Options::default()).unwrap().into_iter().map(|(_, action)| action).collect()
    }

    fn refusal(&mut self, text: &str) -> String {
        self.apply_with(text, &Options::default()).unwrap_err().to_string()
    }

    fn delete(&mut self, kind: ObjectKind, name: &str) -> Result<Vec<String>, Refusal> {
        let seen = self.sources.load();
        let key = ObjectKey { kind, namespace: "default".into(), name: name.into() };
        let outcomes = self.applied.delete(vec![key], &Options::default(), &seen)?;
        Ok(outcomes.into_iter().map(|outcome| outcome.key.to_string()).collect())
    }

    /// Names of the applied files, drafts and journals included.
    fn files(&self) -> Vec<String> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.applied.objects()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                names.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()));
            } else {
                names.push(path.file_name().unwrap().to_owned());
            }
        }
        let mut names: Vec<String> = names.into_iter().map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn raw(&mut self, kind: ObjectKind, name: &str) -> Raw {
        let key = ObjectKey { kind, namespace: "default".into(), name: name.into() };
        self.sources.load().objects.raw[&key].clone()
    }
}

fn service(name: &str, port: &str) -> String {
    format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n")
}

fn slice(name: &str, service: &str, more: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nendpoints: []\n\
         metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {service}{more}}}}}\n"
    )
}

#[test]
fn an_object_is_created_configured_and_unchanged_and_a_restart_keeps_it() {
    let mut world = World::new();
    assert_eq!(world.apply(&service("web", "80")), [Action::Created]);
    assert_eq!(world.files(), ["default_web.json"]);
    let first = world.raw(ObjectKind::Service, "web").value();
    assert_eq!(world.apply(&service("web", "80")), [Action::Unchanged]);
    assert_eq!(world.apply(&(service("web", "81") + &service("dns", "53"))), [Action::Configured, Action::Created]);
    let mut world = world.restart();
    let second = world.raw(ObjectKind::Service, "web").value();
    assert_eq!(second["spec"]["ports"][0]["port"], 81);
    for field in ["uid", "creationTimestamp", "namespace"] {
        assert_eq!(first["metadata"][field], second["metadata"][field], "{field}");
        assert!(first["metadata"][field].is_string(), "{field}");
    }
    assert_eq!((&first["metadata"]["generation"], &second["metadata"]["generation"]), (&json!(1), &json!(2)));
    let version = |value: &Value| value["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(version(&second) > version(&first));
    assert_eq!(world.apply(&service("web", "81")), [Action::Unchanged]);
    // A label is a change, but none of what the generation counts.
    let labelled = service("web", "81").replace("{name: web}", "{name: web, labels: {a: b}}");
    assert_eq!(world.apply(&labelled), [Action::Configured]);
    assert_eq!(world.raw(ObjectKind::Service, "web").value()["metadata"]["generation"], 2);
}

#[test]
fn what_was_got_can_be_applied_again_and_changes_nothing() {
    let mut world = World::new();
    let text = service("web", "80").replace("{ports", "{type: LoadBalancer, selector: {app: web}, ports");
    world.apply(&text);
    // The agent found addresses for it.
    let mut seen = world.sources.load();
    let name = crate::model::ServiceName::new("default", "web");
    let mut found = (*seen.objects.services[&name]).clone();
    found.cluster_ips = vec!["10.96.0.7".parse().unwrap()];
    found.ports[0].node_port = Some(30_007);
    found.ingress = vec![crate::model::Ingress { ip: "192.0.2.7".parse().unwrap(), proxy: false }];
    seen.objects.services.insert(name, found.into());
    let key = ObjectKey { kind: ObjectKind::Service, namespace: "default".into(), name: "web".into() };
    let got = with_allocated(seen.objects.raw[&key].value(), &key, &seen);
    assert_eq!(got["spec"]["clusterIP"], "10.96.0.7");
    assert_eq!(got["spec"]["clusterIPs"], json!(["10.96.0.7"]));
    assert_eq!(got["spec"]["ports"][0]["nodePort"], 30_007);
    assert_eq!(got["status"]["loadBalancer"]["ingress"], json!([{"ip": "192.0.2.7"}]));

    let options = Options::default();
    let again = world.applied.apply(got.to_string().as_bytes(), &options, &seen).unwrap();
    assert_eq!(again[0].action, Action::Unchanged);
    // With another port, what was found for it is still not asked for.
    let mut changed = got.clone();
    changed["spec"]["ports"][0]["targetPort"] = 8080.into();
    let outcome = world.applied.apply(changed.to_string().as_bytes(), &options, &seen).unwrap().remove(0);
    let kept = outcome.kept.unwrap();
    assert_eq!(outcome.action, Action::Configured);
    assert_eq!(
        kept["spec"],
        json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]})
    );
    assert_eq!(kept.get("status"), None);
    // Another address is.
    changed["spec"]["clusterIP"] = "10.96.0.8".into();
    changed["spec"]["clusterIPs"] = json!(["10.96.0.8"]);
    let outcome = world.applied.apply(changed.to_string().as_bytes(), &options, &seen).unwrap().remove(0);
    assert_eq!(outcome.kept.unwrap()["spec"]["clusterIP"], "10.96.0.8");
}

#[test]
fn what_servers_write_is_not_taken_from_a_request() {
    let mut world = World::new();
    let text = r#"{"apiVersion": "v1", "kind": "Service", "status": {"loadBalancer": {}}, "spec": {"ports": [{"port": 80}]},
        "metadata": {"name": "web", "uid": "mine", "generation": 77, "resourceVersion": "5",
            "creationTimestamp": "2001-01-01T00:00:00Z", "managedFields": [], "labels": {},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}}}"#;
    assert_eq!(world.apply(text), [Action::Created]);
    let kept = world.raw(ObjectKind::Service, "web").value();
    assert_eq!(kept["metadata"]["generation"], 1);
    assert_ne!(kept["metadata"]["uid"], "mine");
    assert_ne!(kept["metadata"]["resourceVersion"], "5");
    assert!(!kept["metadata"]["creationTimestamp"].as_str().unwrap().starts_with("2001"));
    for absent in ["managedFields", "annotations", "labels"] {
        assert_eq!(kept["metadata"].get(absent), None);
    }
    assert_eq!(kept.get("status"), None);
    assert_eq!(world.apply(&service("web", "80")), [Action::Unchanged]);
}

#[test]
fn one_bad_object_keeps_all_of_a_request_out_and_every_fault_is_told() {
    let mut world = World::new();
    let bad = service("web", "80") + &service("bad", "'x'") + "---\na: [\n---\nkind: Deployment\napiVersion: apps/v1\n";
    let text = world.refusal(&bad);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("request document 3: line 12 "), "{text}");
    assert!(lines[1].starts_with("request: found the kind `Deployment`, expected one of Service, "), "{text}");
    assert!(lines[2].contains("document 2, Service `default/bad`: spec.ports[0].port: found the string"), "{text}");
    assert!(world.files().is_empty());
    for (text, fault) in [
        ("", "request: found no object"),
        ("# nothing\n", "request: found no object"),
        ("[]", "expected a Kubernetes object"),
        ("{\"kind\": \"List\", \"apiVersion\": \"v1\", \"items\": []}", "found no object"),
        (&*(service("web", "80") + &service("web", "81")), "it is there twice"),
    ] {
        let found = world.refusal(text);
        assert!(found.contains(fault), "{text}: {found}");
    }
    assert!(world.files().is_empty());
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let mut world = World::new();
    let dry = Options { dry_run: true, ..Options::default() };
    let text = service("web", "80");
    assert_eq!(world.apply_with(&text, &dry).unwrap(), [("Service `default/web`".to_owned(), Action::Created)]);
    assert!(world.files().is_empty());
    world.apply(&text);
    let seen = world.sources.load();
    let outcomes = world.applied.delete_named(text.as_bytes(), &dry, &seen).unwrap();
    assert_eq!(outcomes[0].action, Action::Deleted);
    assert_eq!(world.files(), ["default_web.json"]);
}

#[test]
fn hostile_names_lead_nowhere() {
    let mut world = World::new();
    for name in ["../../../etc/passwd", "a/b", "..", ".", "", "a_b", ".new", "A", "a\\0b", "ａ", "a\\n", "-a", "%2e%2e"]
    {
        for (name, namespace) in [(name, "default"), ("web", name)] {
            let text = format!(
                "{{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"spec\": {{\"ports\": [{{\"port\": 80}}]}}, \
                 \"metadata\": {{\"name\": \"{name}\", \"namespace\": \"{namespace}\"}}}}"
            );
            let outcome = world.apply_with(&text, &Options::default());
            // No namespace means the usual one.
            assert!(outcome.is_err() || namespace.is_empty(), "{text}: {outcome:?}");
            let key = ObjectKey { kind: ObjectKind::Service, namespace: namespace.into(), name: name.into() };
            assert!(namespace.is_empty() || directory::file(&key).is_err(), "{key}");
        }
    }
    let long = slice(&["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join("."), "web", "");
    assert!(world.refusal(&long).contains("found 253 characters, expected at most 242"));
    assert_eq!(world.files(), ["default_web.json"]);
    let mut outside: Vec<_> =
        fs::read_dir(world.home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    outside.sort();
    assert_eq!(outside, ["manifests", "state"]);
}

#[test]
fn what_the_manifests_define_is_theirs() {
    let mut world = World::new();
    fs::write(world.home.path().join("manifests/web.yaml"), service("web", "80")).unwrap();
    let theirs = "Service `default/web` is defined in web.yaml document 1 of the manifests directory; change it there";
    assert_eq!(world.refusal(&(service("dns", "53") + &service("web", "81"))), theirs);
    assert!(world.files().is_empty());
    assert_eq!(world.delete(ObjectKind::Service, "web").unwrap_err().to_string(), theirs);
    // A manifest that came later hides what was applied, which can be deleted still.
    world.apply(&service("dns", "53"));
    fs::write(world.home.path().join("manifests/dns.yaml"), service("dns", "54")).unwrap();
    let snapshot = world.sources.load();
    let problem = &snapshot.problems[0].text;
    assert!(
        problem.contains(
            "applied/service/default_dns.json document 1, Service `default/dns`: defined already in dns.yaml"
        ),
        "{problem}"
    );
    assert_eq!(world.delete(ObjectKind::Service, "dns").unwrap(), ["Service `default/dns`"]);
    assert!(world.sources.load().problems.is_empty());
}

#[test]
fn deleting_takes_the_endpoints_along_that_were_made_for_the_service_alone() {
    let mut world = World::new();
    let made = ", endpointslice.kubernetes.io/managed-by: svcctl";
    let text =
        service("web", "80") + &slice("web-1", "web", made) + &slice("web-2", "web", "") + &slice("dns-1", "dns", made);
    world.apply(&text);
    let deleted = world.delete(ObjectKind::Service, "web").unwrap();
    assert_eq!(deleted, ["Service `default/web`", "EndpointSlice `default/web-1`"]);
    assert_eq!(world.files(), ["default_dns-1.json", "default_web-2.json"]);
    let missing = world.delete(ObjectKind::Service, "web").unwrap_err();
    assert!(matches!(&missing, Refusal::NotFound(text) if text == "Service `default/web` not found"), "{missing}");
    // All or nothing here, too.
    let seen = world.sources.load();
    let text = slice("web-2", "web", "") + &service("gone", "x");
    assert!(world.applied.delete_named(text.as_bytes(), &Options::default(), &seen).is_err());
    assert_eq!(world.files().len(), 2);
    let lenient = Options { ignore_missing: true, ..Options::default() };
    assert_eq!(world.applied.delete_named(text.as_bytes(), &lenient, &seen).unwrap().len(), 1);
}

#[test]
fn a_namespace_that_is_asked_for_is_given_or_insisted_on() {
    let mut world = World::new();
    let prod = Options { namespace: Some("prod".into()), ..Options::default() };
    let text = service("web", "80")
        .replace("---\n", "kind: List\napiVersion: v1\nitems:\n- ")
        .replace("\nkind: S", "\n  kind: S");
    let text = text.replace("\nmetadata", "\n  metadata").replace("\nspec", "\n  spec");
    assert_eq!(world.apply_with(&text, &prod).unwrap()[0].0, "Service `prod/web`");
    let text = service("web", "80").replace("name: web", "name: web, namespace: test");
    let error = world.apply_with(&text, &prod).unwrap_err().to_string();
    assert!(error.contains("metadata.namespace: found `test`, expected `prod` as asked for"), "{error}");
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: node-a}\n";
    assert_eq!(world.apply_with(node, &prod).unwrap()[0].0, "Node `node-a`");
    assert_eq!(world.files(), ["_node-a.json", "prod_web.json"]);
    assert_eq!(world.sources.load().objects.nodes.len(), 1);
}

#[test]
fn what_exists_is_not_created_again() {
    let mut world = World::new();
    let create = Options { create: true, ..Options::default() };
    world.apply_with(&service("web", "80"), &create).unwrap();
    let error = world.apply_with(&service("web", "81"), &create).unwrap_err().to_string();
    assert!(error.starts_with("Service `default/web` exists already"), "{error}");
}

#[test]
fn an_agent_that_dies_in_the_middle_leaves_all_or_nothing() {
    let mut world = World::new();
    world.apply(&(service("a", "1") + &service("b", "1") + &service("c", "1")));
    let change = |world: &World| {
        let key = |name: &str| ObjectKey { kind: ObjectKind::Service, namespace: "default".into(), name: name.into() };
        let value = |name: &str| directory::read(world.applied.objects(), &key(name)).unwrap().unwrap();
        let mut changes = vec![FileChange::remove(&key("c")).unwrap()];
        for name in ["a", "b"] {
            let mut value = value(name);
            value["spec"]["ports"][0]["port"] = 2.into();
            changes.push(FileChange::write(&key(name), &value).unwrap());
        }
        changes
    };
    let ports = |world: &mut World| -> Vec<u16> {
        world.sources.load().objects.services.values().map(|service| service.ports[0].port).collect()
    };
    // Before the decision: drafts without a journal.
    let changes = change(&world);
    commit::decide(world.applied.objects(), &changes).unwrap();
    let journal = world.applied.objects().join(".journal");
    let decided = fs::read(&journal).unwrap();
    fs::remove_file(&journal).unwrap();
    let mut world = world.restart();
    assert_eq!((ports(&mut world), world.files().len()), (vec![1, 1, 1], 3));
    // After it, with one of the steps done.
    commit::decide(world.applied.objects(), &changes).unwrap();
    fs::rename(world.applied.objects().join(".draft-1"), world.applied.objects().join("service/default_a.json"))
        .unwrap();
    assert_eq!(fs::read(&journal).unwrap(), decided);
    let mut world = world.restart();
    assert_eq!(
        (ports(&mut world), world.files()),
        (vec![2, 2], vec!["default_a.json".into(), "default_b.json".into()])
    );
}

#[test]
fn a_failure_to_write_changes_nothing() {
    let mut world = World::new();
    world.apply(&service("a", "1"));
    // Something lies where the second draft would be.
    fs::create_dir(world.applied.objects().join(".draft-1")).unwrap();
    let error = world.apply_with(&(service("a", "2") + &service("b", "2")), &Options::default()).unwrap_err();
    assert!(matches!(error, Refusal::Failed(_)), "{error}");
    fs::remove_dir(world.applied.objects().join(".draft-1")).unwrap();
    let mut world = world.restart();
    let services = world.sources.load().objects.services;
    assert_eq!(services.values().map(|service| service.ports[0].port).collect::<Vec<_>>(), [1]);
}

#[test]
fn the_directory_is_ours_alone() {
    let world = World::new();
    let state = world.home.path().join("state");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(state.clone()), mode(state.join("objects"))), (0o700, 0o700));
    let error = Applied::open(&state, Rules::default()).unwrap_err().to_string();
    assert!(error.contains("another svc-agent uses the state directory"), "{error}");
    let mut world = world;
    world.apply(&service("web", "80"));
    assert_eq!(mode(state.join("objects/service/default_web.json")), 0o600);

    // A link in the place of an object is neither followed nor replaced.
    let victim = world.home.path().join("victim.json");
    fs::write(&victim, "{}").unwrap();
    symlink(&victim, state.join("objects/service/default_link.json")).unwrap();
    let error = world.apply_with(&service("link", "80"), &Options::default()).unwrap_err().to_string();
    assert!(error.contains("is a symbolic link"), "{error}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "{}");
    let home = world.home;
    drop((world.applied, world.sources));

    let refused = |path: PathBuf, text: &str| {
        let error = Applied::open(&path, Rules::default()).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    };
    symlink(&state, home.path().join("alias")).unwrap();
    refused(home.path().join("alias"), "is a symbolic link");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o770)).unwrap();
    refused(state.clone(), "has mode 0770");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    drop(Applied::open(&state, Rules::default()).unwrap());
    assert_eq!(mode(state.clone()), 0o700);
    refused(home.path().join("victim.json"), "is not a directory");
    refused(home.path().join("no/such"), "cannot make");
    if nix::unistd::geteuid().is_root() {
        nix::unistd::chown(&state, Some(65_534.into()), None).unwrap();
        refused(state, "belongs to uid 65534");
    } else {
        eprintln!("SKIPPED: foreign owners, for want of root");
    }
}

#[test]
fn a_spoilt_file_is_told_and_can_be_replaced() {
    let mut world = World::new();
    world.apply(&service("web", "80"));
    fs::write(world.applied.objects().join("service/default_web.json"), "{").unwrap();
    let mut fresh = ManifestSource::of_applied(world.applied.objects(), Rules::default());
    let snapshot = fresh.load();
    assert!(snapshot.problems[0].text.starts_with("applied/service/default_web.json document 1"), "{snapshot:?}");
    assert!(!snapshot.complete);
    assert_eq!(world.apply(&service("web", "80")), [Action::Created]);
    assert!(fresh.load().problems.is_empty());
}
