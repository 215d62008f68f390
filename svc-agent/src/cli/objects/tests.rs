//! `svcctl get` of objects, `apply` and `delete`, against a server with sources that work.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::rows;
use crate::cli::run;
use crate::control::testing::{FakeView, Server};
use crate::control::workshop::Workshop;
use crate::model::ObjectKind;

/// Exit code, standard output, standard error.
type Outcome = (u8, String, String);

fn svcctl(socket: &Path, args: &str) -> Outcome {
    let start = ["svcctl".into(), "--socket".into(), socket.into()];
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(start.into_iter().chain(args.split(' ').map(Into::into)), &mut out, &mut err);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// A server whose agent has sources, and a directory to write files to.
struct World {
    socket: PathBuf,
    workshop: Workshop,
    files: tempfile::TempDir,
}

impl World {
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.files.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn ctl(&self, args: &str) -> Outcome {
        svcctl(&self.socket, args)
    }

    /// What a command that succeeds and warns of nothing prints.
    fn ok(&self, args: &str) -> String {
        let (code, out, err) = self.ctl(args);
        assert_eq!((code, err.as_str()), (0, ""), "{args}: {out}");
        out
    }
}

async fn with(checks: impl FnOnce(World) + Send + 'static) {
    let workshop = Workshop::new();
    let server = Server::start(FakeView { catalog: Some(workshop.catalog()), ..FakeView::default() });
    let socket = server.path.clone();
    tokio::task::spawn_blocking(move || {
        let files = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        checks(World { socket, workshop, files });
    })
    .await
    .unwrap();
    server.stop().await;
}

const WEB: &str = "apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web, quoted: 'yes', number: '80'}}
spec: {type: NodePort, clusterIP: 10.96.0.10, selector: {app: web}, ports: [{name: http, port: 80, nodePort: 30080}, {name: dns, port: 53, protocol: UDP, nodePort: 30053}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}, {addresses: [10.0.0.3]}, {addresses: [10.0.0.4]}]
ports: [{name: http, port: 8080}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_may_follow_the_resource_and_labels_have_a_column() {
    with(|world| {
        let file = world.write("web.yaml", WEB);
        world.ctl(&format!("apply -f {file}"));
        let shown = world.ok("get svc/web --show-labels --no-headers");
        assert!(shown.starts_with("web ") && shown.trim_end().ends_with("app=web,number=80,quoted=yes"), "{shown}");
        assert_eq!(world.ok("get service/web -o name"), "service/web\n");
        assert!(world.ok("get ep/web --show-labels").contains("LABELS"));
        for (args, expected) in [
            ("get svc/none", "`none` not found"),
            ("get svc/web other", "found a name twice"),
            ("get nothing/web", "invalid value"),
            ("get flows --show-labels", "for objects only"),
        ] {
            let (code, _, err) = world.ctl(args);
            assert!(code != 0 && err.contains(expected), "{args}: {err}");
        }
    })
    .await;
}

#[test]
fn services_have_the_columns_of_kubectl() {
    let old = json!({"name": "web", "creationTimestamp": "2001-01-01T00:00:00Z"});
    let check = |spec: Value, status: Value, wide: bool, wanted: &[&str]| {
        let object = json!({"kind": "Service", "metadata": old, "spec": spec, "status": status});
        let cells = rows::cells(ObjectKind::Service, &object, wide);
        assert_eq!(cells[..5], wanted[..5], "{object}");
        assert!(cells[5].ends_with('y') && cells.len() == rows::columns(ObjectKind::Service).len());
    };
    let none = || json!({});
    check(json!({"ports": [{"port": 80}]}), none(), false, &["web", "ClusterIP", "", "", "80/TCP"]);
    check(
        json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"], "externalIPs": ["192.0.2.1", "192.0.2.2"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP", "nodePort": 0}]}),
        none(),
        false,
        &["web", "ClusterIP", "10.96.0.1", "192.0.2.1,192.0.2.2", "80:30080/TCP,53/UDP"],
    );
    check(json!({"clusterIP": "None"}), none(), false, &["web", "ClusterIP", "None", "", ""]);
    check(
        json!({"type": "ExternalName", "externalName": "example.org", "ports": [{"port": 80}]}),
        none(),
        false,
        &["web", "ExternalName", "", "example.org", "80/TCP"],
    );
    let balancer = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
    let pending = ["web", "LoadBalancer", "10.96.0.1", "<pending>", "80/TCP"];
    check(balancer.clone(), none(), false, &pending);
    check(balancer.clone(), json!({"loadBalancer": {}}), false, &pending);
    let found = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}, {"hostname": "lb.example.org"}]}});
    check(balancer.clone(), found.clone(), false, &["web", "LoadBalancer", "10.96.0.1", "192.0.2.9,lb....", "80/TCP"]);
    check(balancer, found, true, &["web", "LoadBalancer", "10.96.0.1", "192.0.2.9,lb.example.org", "80/TCP"]);
    // What is not valid is shown as far as it goes.
    check(json!({"ports": "x", "type": 5}), none(), false, &["web", "ClusterIP", "", "", ""]);
}

#[test]
fn other_kinds_have_the_columns_of_kubectl() {
    let check = |kind: ObjectKind, object: Value, wanted: &[&str]| {
        let cells = rows::cells(kind, &object, false);
        assert_eq!(cells.len(), rows::columns(kind).len());
        assert_eq!(cells[..wanted.len()], *wanted, "{object}");
    };
    check(
        ObjectKind::EndpointSlice,
        json!({"metadata": {"name": "a"}, "addressType": "IPv4", "ports": [{"port": 8080}, {"port": 53}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.3"]}, {"addresses": ["10.0.0.4"]}]}),
        &["a", "IPv4", "8080,53", "10.0.0.1,10.0.0.2,10.0.0.3 + 1 more...", "<unknown>"],
    );
    check(ObjectKind::EndpointSlice, json!({"metadata": {"name": "a"}}), &["a", "", "<unset>", "<unset>"]);
    check(
        ObjectKind::Endpoints,
        json!({"metadata": {"name": "a"}, "subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}]}]}),
        &["a", "10.0.0.1:80,[fd00::1]:80"],
    );
    check(
        ObjectKind::Pod,
        json!({"metadata": {"name": "a"}, "spec": {"containers": [{}, {}], "nodeName": "n"},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [{"ready": true, "restartCount": 3}, {"ready": false}]}}),
        &["a", "1/2", "Running", "3", "<unknown>", "10.0.0.1", "n"],
    );
    check(
        ObjectKind::Pod,
        json!({"metadata": {"name": "a", "deletionTimestamp": "2001-01-01T00:00:00Z"}}),
        &["a", "0/0", "Terminating", "0"],
    );
    check(
        ObjectKind::Node,
        json!({"metadata": {"name": "a", "labels": {"node-role.kubernetes.io/worker": ""}}, "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.33.0"}}}),
        &["a", "Ready,SchedulingDisabled", "worker", "<unknown>", "v1.33.0"],
    );
    check(ObjectKind::Node, json!({"metadata": {"name": "a"}}), &["a", "Unknown", "<none>"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_applied_is_shown_and_deleted_in_kubectls_words() {
    with(|world| {
        let file = world.write("web.yaml", WEB);
        let created = "service/web created\nendpointslice.discovery.k8s.io/web-1 created\n";
        let dry = "service/web created (dry run)\nendpointslice.discovery.k8s.io/web-1 created (dry run)\n";
        assert_eq!(world.ok(&format!("apply -f {file} --dry-run")), dry);
        assert_eq!(world.ctl("get svc").2, "No Services found in the namespace `default`; -A shows every namespace.\n");
        assert_eq!(world.ok(&format!("apply -f {file}")), created);
        assert_eq!(world.ok(&format!("apply -f {file}")), created.replace("created", "unchanged"));

        let table = world.ok("get services");
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "NAME   TYPE       CLUSTER-IP   EXTERNAL-IP   PORT(S)                     AGE");
        assert!(
            lines[1].starts_with("web    NodePort   10.96.0.10   <none>        80:30080/TCP,53:30053/UDP   "),
            "{table}"
        );
        assert!(lines[1].ends_with('s') && lines.len() == 2, "{table}");
        assert!(world.ok("get svc -A").starts_with("NAMESPACE   NAME   TYPE "));
        assert!(world.ok("get svc -o wide --no-headers").trim_end().ends_with("app=web"));
        assert_eq!(world.ok("get svc -o name"), "service/web\n");
        assert_eq!(world.ok("get svc -l app=web,number!=81 -o name"), "service/web\n");
        assert!(world.ctl("get svc -l app=db").2.starts_with("No Services found"));
        assert!(world.ok("get eps").contains("IPv4          8080    10.0.0.1,10.0.0.2,10.0.0.3 + 1 more..."));
        assert_eq!(world.ctl("get svc gone").2, "error: Service `gone` not found in the namespace `default`\n");
        assert_eq!(world.ctl("get svc other/web").2, "error: Service `other/web` not found\n");

        assert_eq!(world.ok("delete service web --dry-run"), "service \"web\" deleted (dry run)\n");
        assert_eq!(world.ok("delete svc/web"), "service \"web\" deleted\n");
        assert_eq!(world.ctl("delete svc web").2, "error: Service `default/web` not found\n");
        assert_eq!(world.ok("delete svc web --ignore-not-found"), "");
        assert_eq!(
            world.ok(&format!("delete -f {file} --ignore-not-found")),
            "endpointslice.discovery.k8s.io \"web-1\" deleted\n"
        );
        assert_eq!(world.ctl("get eps").0, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_get_gives_can_be_applied_again_and_is_unchanged() {
    with(|world| {
        let alloc = "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: alloc\n  annotations:\n    text: \"on\\nyes: no # {}\"\n    \
                     a: 'true'\n    b: '1e3'\n    c: ~user\n    d: '0x10'\n    e: 'null'\n    f: '12:30'\n    g: ''\n    h: 'off'\n    i: \"\\t- x\"\n    \
                     j: '2001-01-01'\n    k: '.5'\n    l: '010'\n    m: ' x '\n    n: '@x'\n    o: '|'\nspec: {ports: [{port: 80}]}\n";
        let file = world.write("all.yaml", &format!("{WEB}{alloc}"));
        world.ok(&format!("apply -f {file}"));
        for format in ["yaml", "json"] {
            for what in ["svc", "eps", "svc alloc", "svc web"] {
                let text = world.ok(&format!("get {what} -o {format}"));
                let again = world.write("again", &text);
                let said = world.ok(&format!("apply -f {again}"));
                assert!(!said.is_empty() && said.lines().all(|line| line.ends_with(" unchanged")), "{said}{text}");
            }
        }
        let shown: Value = serde_json::from_str(&world.ok("get svc alloc -o json")).unwrap();
        assert!(shown["spec"]["clusterIP"].as_str().unwrap().starts_with("10.96."), "{shown}");
        // Words that YAML 1.1 takes for something else stand in quotes.
        let yaml = world.ok("get svc alloc -o yaml");
        for text in ["h: \"off\"", "a: \"true\"", "f: \"12:30\"", "l: \"010\""] {
            assert!(yaml.contains(text) || yaml.contains(&text.replace('"', "'")), "{text} in {yaml}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_file_keeps_all_files_out() {
    with(|world| {
        world.write("a.yaml", WEB);
        world.write("b.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 0}]}\n");
        world.write("notes.txt", "nothing");
        let dir = world.files.path().display().to_string();
        let (code, out, err) = world.ctl(&format!("apply -f {dir}"));
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(
            err.starts_with(&format!("error: {dir}/b.yaml document 1, Service `default/b`: spec.ports[0].port")),
            "{err}"
        );
        assert!(err.ends_with("\nnothing was changed\n"), "{err}");
        assert_eq!(world.ctl("get svc -A").1, "");
        fs::remove_file(world.files.path().join("b.yaml")).unwrap();
        let large = world.write("large", &format!("{WEB}#{}", " ".repeat(1 << 20)));
        let (code, _, err) = world.ctl(&format!("apply -f {large}"));
        assert!(code == 1 && err.contains("expected at most 1048576; split it"), "{err}");
        assert_eq!(world.ok(&format!("apply -f {dir}")).lines().count(), 2);
        assert_eq!(world.ok(&format!("delete -f {dir}")).lines().count(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_of_the_manifests_are_shown_and_not_changed() {
    with(|world| {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: None}\n---\n\
                    apiVersion: v1\nkind: Service\nmetadata: {name: b, namespace: other}\nspec: {type: ExternalName, externalName: x.org}\n---\n\
                    apiVersion: v1\nkind: Service\nmetadata: {name: c}\nspec: {ports: [{port: http}]}\n";
        fs::write(world.workshop.manifests().join("m.yaml"), text).unwrap();
        let names = || world.ok("get svc -A -o name --no-headers");
        for _ in 0..500 {
            if world.ctl("get svc -A -o name").1.lines().count() == 3 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(names(), "service/a\nservice/c\nservice/b\n");
        let table = world.ok("get svc -A");
        assert!(table.contains("default     a      ClusterIP      None         <none>        <none>"), "{table}");
        assert!(table.contains("other       b      ExternalName   <none>       x.org         <none>"), "{table}");
        let (code, _, err) = world.ctl("delete svc a");
        assert_eq!(code, 1);
        assert_eq!(err, "error: Service `default/a` is defined in m.yaml document 1 of the manifests directory; change it there\n");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_what_comes_changes_and_goes() {
    with(|world| {
        let file = world.write("web.yaml", WEB);
        world.ok(&format!("apply -f {file}"));
        let (reader, mut writer) = std::io::pipe().unwrap();
        let socket = world.socket.clone();
        let watching = std::thread::spawn(move || {
            let args = ["svcctl", "--socket", socket.to_str().unwrap(), "get", "svc", "-w", "--no-headers"];
            run(args.map(Into::into), &mut writer, &mut Vec::new())
        });
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(reader));
        let mut line = || lines.next().unwrap().unwrap();
        assert!(line().starts_with("web   NodePort"));
        let changed = world.write("web2.yaml", &WEB.replace("NodePort", "LoadBalancer"));
        world.ok(&format!("apply -f {changed}"));
        assert!(line().contains("LoadBalancer   10.96.0.10   <pending>"));
        world.ok("delete svc web");
        assert!(line().contains("LoadBalancer"));
        world.ok(&format!("apply -f {file} -n default"));
        assert!(line().contains("NodePort"));
        drop(watching);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_follows_an_api_server_takes_no_changes() {
    let server = Server::start(FakeView::default());
    let path = server.path.clone();
    tokio::task::spawn_blocking(move || {
        let files = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        let file = files.path().join("web.yaml");
        fs::write(&file, WEB).unwrap();
        for args in [format!("apply -f {}", file.display()), "delete svc web".to_owned()] {
            let (code, out, err) = svcctl(&path, &args);
            assert_eq!((code, out.as_str()), (1, ""));
            assert_eq!(err, "error: this agent follows an API server: change objects there\n");
        }
    })
    .await
    .unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_are_shown_by_service_whatever_they_were_written_as() {
    with(|world| {
        let more = "---\napiVersion: v1\nkind: Service\nmetadata: {name: old}\nspec: {clusterIP: None, ports: [{port: 80}]}\n\
                    ---\napiVersion: v1\nkind: Endpoints\nmetadata: {name: old}\nsubsets: [{addresses: [{ip: 10.0.1.1}], ports: [{port: 81}]}]\n\
                    ---\napiVersion: v1\nkind: Service\nmetadata: {name: pods}\nspec: {selector: {app: x}, ports: [{port: 80, targetPort: 82}]}\n\
                    ---\napiVersion: v1\nkind: Pod\nmetadata: {name: x, labels: {app: x}}\nspec: {nodeName: n, containers: []}\n\
                    status: {phase: Running, podIP: 10.0.2.1, podIPs: [{ip: 10.0.2.1}], conditions: [{type: Ready, status: 'True'}]}\n\
                    ---\napiVersion: v1\nkind: Service\nmetadata: {name: empty}\nspec: {clusterIP: None, ports: [{port: 80}]}\n";
        let file = world.write("all.yaml", &format!("{WEB}{more}"));
        world.ok(&format!("apply -f {file}"));
        let table = world.ok("get endpoints --no-headers");
        let rows: Vec<&str> = table.lines().map(|line| line.rsplit_once("   ").unwrap().0.trim_end()).collect();
        assert_eq!(
            rows,
            [
                "empty   <none>",
                "old     10.0.1.1:81",
                "pods    10.0.2.1:82",
                "web     10.0.0.1:8080,10.0.0.2:8080,10.0.0.3:8080 + 1 more...",
            ]
        );
        assert!(world.ok("get ep web -A").starts_with("NAMESPACE   NAME   ENDPOINTS "));
        assert_eq!(world.ok("get ep -o name"), "endpoints/old\n");
        assert_eq!(world.ctl("get ep gone").2, "error: Endpoints `gone` not found in the namespace `default`\n");
        // What the agent made of Pods is there, too, and not to be applied.
        let slices = world.ok("get eps -l endpointslice.kubernetes.io/managed-by=svc-agent -o yaml");
        assert!(slices.contains("kubernetes.io/service-name: pods") && slices.contains("10.0.2.1"), "{slices}");
        let (code, _, err) = world.ctl(&format!("apply -f {}", world.write("made.yaml", &slices)));
        assert!(code == 1 && err.contains("made by the agent of the Pods that this Service selects"), "{err}");
        assert!(world.ok("get pods -o wide").contains("x      0/0     Running   0          "));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_description_has_definition_endpoints_traffic_and_problems() {
    with(|world| {
        world.ok(&format!("apply -f {}", world.write("web.yaml", WEB)));
        let text = world.ok("describe service web");
        for line in [
            "Name:                      web\n",
            "Labels:                    app=web,number=80,quoted=yes\n",
            "Selector:                  app=web\n",
            "IPs:                       10.96.0.10\n",
            "Port:                      http  80/TCP\n",
            "NodePort:                  http  30080/TCP\n",
            "Endpoints:                 10.0.0.1:8080,10.0.0.2:8080,10.0.0.3:8080,10.0.0.4:8080\n",
            "Defined in:                applied/service/default_web.json document 1\n",
            "Frontends:                 TCP IPv4: 10.96.0.1:80 (ClusterIP), 198.51.100.1:30080 (NodePort)\n",
            "Traffic:                   0 new connections, ",
            "Problems:\n  web.yaml document 1, Service `default/web`: no endpoints\n",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
        assert_eq!(world.ok("describe svc/web"), text);
        assert_eq!(world.ctl("describe svc gone").2, "error: Service `gone` not found in the namespace `default`\n");
        assert_eq!(world.ctl("describe pod x").0, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_are_those_of_the_namespace_and_of_the_api_server() {
    with(|world| {
        let service = |name: &str, namespace: &str, ip: &str| {
            format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{clusterIP: {ip}, ports: [{{port: 443}}]}}\n")
        };
        let text = service("kubernetes", "default", "10.96.0.1") + &service("a", "default", "10.96.0.2") + &service("b", "prod", "10.96.0.3");
        world.ok(&format!("apply -f {}", world.write("all.yaml", &text)));
        let hosts = |args: &str| {
            let out = world.ok(args);
            let hosts = out.lines().filter(|line| line.contains("_SERVICE_HOST="));
            hosts.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(hosts("env"), ["A_SERVICE_HOST=10.96.0.2", "KUBERNETES_SERVICE_HOST=10.96.0.1"]);
        assert_eq!(hosts("env -n prod"), ["B_SERVICE_HOST=10.96.0.3", "KUBERNETES_SERVICE_HOST=10.96.0.1"]);
        assert_eq!(hosts("env -n prod b"), ["B_SERVICE_HOST=10.96.0.3"]);
        assert_eq!(world.ctl("env -n prod a").2, "error: Service `a` not found in the namespace `prod`\n");
    })
    .await;
}
