//! What becomes of Services with selectors, and of Pods.

use std::sync::Arc;

use super::allocate_tests::snapshot;
use super::{Controllers, Memory, Settings};
use crate::model::{EndpointSlice, Rules};
use crate::sources::manifests::ManifestSource;
use crate::sources::{Objects, Snapshot, merge};

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n";

fn pod(name: &str, spec: &str, status: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, uid: u-{name}, labels: {{app: web, n: {name}}}}}\n\
         spec: {{nodeName: node-a, {spec}}}\nstatus: {{{status}}}\n"
    )
}

fn up(ip: &str) -> String {
    format!("podIP: \"{ip}\", conditions: [{{type: Ready, status: \"True\"}}]")
}

fn complete(text: &str) -> Snapshot {
    Controllers::new(Settings::default(), Memory::default()).complete(snapshot(text))
}

/// Each endpoint with its ports and its flags: ready, serving, terminating.
fn shown(snapshot: &Snapshot) -> Vec<String> {
    let mut all = Vec::new();
    for slice in snapshot.objects.slices.values().flatten() {
        let ports: Vec<String> =
            slice.ports.iter().map(|port| format!("{}={}/{}", port.name, port.port, port.protocol)).collect();
        for endpoint in &slice.endpoints {
            let flag = |set, flag| if set { flag } else { "" };
            all.push(format!(
                "{} {} {}{}{}",
                endpoint.addr,
                ports.join(","),
                flag(endpoint.ready, "r"),
                flag(endpoint.serving, "s"),
                flag(endpoint.terminating, "t")
            ));
        }
    }
    all
}

fn problems(snapshot: &Snapshot) -> Vec<String> {
    snapshot.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn b60_the_state_of_a_pod_makes_the_state_of_its_endpoint() {
    let spec =
        "spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80}], publishNotReadyAddresses: PUBLISH}\n";
    let not = "podIP: 10.0.0.1, conditions: [{type: Ready, status: \"False\"}]";
    let deleted = |pod: String| pod.replace("uid:", "deletionTimestamp: \"2026-01-01T00:00:00Z\", uid:");
    for (text, plain, published) in [
        (pod("a", "", &up("10.0.0.1")), Some("rs"), Some("rs")),
        (pod("a", "", not), Some(""), Some("r")),
        (pod("a", "", "podIP: 10.0.0.1"), Some(""), Some("r")),
        (pod("a", "", ""), None, None),
        (pod("a", "", &format!("phase: Succeeded, {}", up("10.0.0.1"))), None, None),
        (pod("a", "", &format!("phase: Failed, {}", up("10.0.0.1"))), None, None),
        (deleted(pod("a", "", &up("10.0.0.1"))), Some("st"), Some("rst")),
        (deleted(pod("a", "", not)), Some("t"), Some("rt")),
        (pod("a", "", &up("10.0.0.1")).replace("app: web", "app: other"), None, None),
    ] {
        for (publish, expected) in [("false", plain), ("true", published)] {
            let found = shown(&complete(&format!("{SERVICE}{}{text}", spec.replace("PUBLISH", publish))));
            let expected: Vec<String> = expected.map(|flags| format!("10.0.0.1 =80/TCP {flags}")).into_iter().collect();
            assert_eq!(found, expected, "publishNotReadyAddresses: {publish}\n{text}");
        }
    }
}

#[test]
fn b74_a_named_target_port_is_each_pods_own() {
    let service = format!(
        "{SERVICE}spec: {{clusterIP: 10.96.0.1, selector: {{app: web}}, ports: [{{name: web, port: 80, targetPort: http}}, \
         {{name: dns, port: 53, protocol: UDP, targetPort: dns}}, {{name: fix, port: 9}}]}}\n"
    );
    let with = |ports: &str| format!("containers: [{{name: c, ports: [{ports}]}}]");
    let text = service
        + &pod(
            "a",
            &with("{name: http, containerPort: 8080}, {name: dns, containerPort: 5353, protocol: UDP}"),
            &up("10.0.0.1"),
        )
        + &pod("b", &with("{name: http, containerPort: 8081}, {name: dns, containerPort: 5353}"), &up("10.0.0.2"))
        + &pod(
            "c",
            "containers: [], initContainers: [{name: i, ports: [{name: http, containerPort: 1}]}, \
             {name: s, restartPolicy: Always, ports: [{name: http, containerPort: 8082}]}]",
            &up("10.0.0.3"),
        );
    let snapshot = complete(&text);
    let mut found = shown(&snapshot);
    found.sort();
    assert_eq!(
        found,
        [
            "10.0.0.1 web=8080/TCP,dns=5353/UDP,fix=9/TCP rs",
            "10.0.0.2 web=8081/TCP,fix=9/TCP rs",
            "10.0.0.3 web=8082/TCP,fix=9/TCP rs"
        ]
    );
    let expected = "warning: a.yaml document 1, Service `default/web`: spec.ports[1].targetPort: found `dns` for UDP, but Pod \
                    `default/b` (a.yaml document 3) has `http`, `dns`; it gets no connections for this port";
    assert_eq!(problems(&snapshot), [expected]);
}

#[test]
fn b76_each_family_has_its_own_slice_and_a_service_only_its_families() {
    let both = "podIPs: [{ip: 10.0.0.1}, {ip: \"fd00::1\"}], conditions: [{type: Ready, status: \"True\"}]";
    for (spec, expected) in [
        ("", vec!["10.0.0.1 =80/TCP rs", "fd00::1 =80/TCP rs"]),
        ("ipFamilies: [IPv6]", vec!["fd00::1 =80/TCP rs"]),
        ("ipFamilies: [IPv4]", vec!["10.0.0.1 =80/TCP rs"]),
    ] {
        let text =
            format!("{SERVICE}spec: {{selector: {{app: web}}, ports: [{{port: 80}}], {spec}}}\n") + &pod("a", "", both);
        assert_eq!(shown(&complete(&text)), expected, "{spec}");
    }
}

#[test]
fn b57_zones_nodes_and_names_come_along() {
    let node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: node-a, labels: {topology.kubernetes.io/zone: z1}}\n";
    for (spec, zones, nodes, hostname) in [
        ("", 0, 0, None),
        ("trafficDistribution: PreferClose", 1, 0, None),
        ("trafficDistribution: PreferSameNode", 1, 1, None),
        ("clusterIP: None", 0, 0, Some("a-0")),
    ] {
        let text = format!("{SERVICE}spec: {{selector: {{app: web}}, ports: [{{port: 80}}], {spec}}}\n{node}")
            + &pod(
                "a",
                &format!("hostname: a-0, subdomain: {}", if hostname.is_some() { "web" } else { "other" }),
                &up("10.0.0.1"),
            );
        let snapshot = complete(&text);
        let slice: &Arc<EndpointSlice> = snapshot.objects.slices.values().flatten().next().unwrap();
        let endpoint = &slice.endpoints[0];
        assert_eq!((endpoint.zone.as_deref(), endpoint.node.as_deref()), (Some("z1"), Some("node-a")));
        assert_eq!(
            (endpoint.for_zones.len(), endpoint.for_nodes.len(), endpoint.hostname.as_deref()),
            (zones, nodes, hostname)
        );
        let target = endpoint.target.as_ref().unwrap();
        assert_eq!((target.kind.as_str(), target.name.as_str(), target.uid.as_str()), ("Pod", "a", "u-a"));
    }
}

#[test]
fn given_endpoints_win_and_others_select_nothing() {
    let given = "---\napiVersion: v1\nkind: Endpoints\nmetadata: {name: web}\nsubsets: [{addresses: [{ip: 10.9.9.9}], ports: [{port: 1}]}]\n";
    let pods = pod("a", "", &up("10.0.0.1"));
    for (spec, more, expected) in [
        ("selector: {app: web}", given, vec!["10.9.9.9 =1/TCP rs"]),
        ("selector: {app: web}", "", vec!["10.0.0.1 =80/TCP rs"]),
        ("selector: {app: web, n: a}", "", vec!["10.0.0.1 =80/TCP rs"]),
        ("selector: {app: web, n: b}", "", vec![]),
        ("selector: {}", "", vec![]),
        ("selector: {}", given, vec!["10.9.9.9 =1/TCP rs"]),
        ("type: ExternalName, externalName: a.b, selector: {app: web}", "", vec![]),
    ] {
        let text = format!("{SERVICE}spec: {{ports: [{{port: 80}}], {spec}}}\n{more}{pods}");
        assert_eq!(shown(&complete(&text)), expected, "{spec}");
    }
    let elsewhere = format!("{SERVICE}spec: {{ports: [{{port: 80}}], selector: {{app: web}}}}\n")
        + &pods.replace("name: a,", "name: a, namespace: other,");
    assert_eq!(shown(&complete(&elsewhere)), Vec::<String>::new());
}

#[test]
fn a_selector_that_finds_nobody_to_connect_to_says_why() {
    let service = format!("{SERVICE}spec: {{clusterIP: 10.96.0.1, ports: [{{port: 80}}], selector: {{app: web}}}}\n");
    for (pods, expected) in [
        (String::new(), "no Pod of the namespace has these labels"),
        (
            pod("a", "", "") + &pod("b", "", "phase: Failed"),
            "of 2 Pods with these labels 1 are finished and 1 have no address yet",
        ),
        (pod("a", "", "podIP: 10.0.0.1"), "Pod `default/a` (a.yaml document 2) has no condition Ready"),
    ] {
        let told = problems(&complete(&(service.clone() + &pods)));
        assert!(
            told.len() == 1 && told[0].starts_with("notice: a.yaml document 1, Service `default/web`: spec.selector: "),
            "{told:?}"
        );
        assert!(told[0].contains(expected), "{told:?}");
    }
}

#[test]
fn b80_a_change_of_one_pod_costs_the_services_that_select_it() {
    let mut text = String::new();
    for n in 0..20 {
        text += &format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{n}}}\nspec: {{ports: [{{port: 80}}], selector: {{app: web, n: p{}}}}}\n",
            n % 10
        );
        text += &pod(&format!("p{n}"), "", &up(&format!("10.0.0.{n}")));
    }
    let mut source = snapshot(&text);
    let mut controllers = Controllers::new(Settings::default(), Memory::default());
    let first = controllers.complete(source.clone());
    assert_eq!(controllers.selection.remade(), 20);
    assert!(first.objects.slices.values().all(|slices| slices.len() == 1 && slices[0].endpoints.len() == 1));
    controllers.complete(source.clone());
    assert_eq!(controllers.selection.remade(), 0);
    let later = snapshot(&text.replace("10.0.0.3\"", "10.0.0.33\""));
    let (namespace, [p3, p4]) = ("default".to_owned(), ["p3", "p4"].map(str::to_owned));
    let changed = later.objects.pods[&namespace][&p3].clone();
    source.objects.pods.get_mut(&namespace).unwrap().insert(p3, changed);
    let second = controllers.complete(source.clone());
    // Two Services select p3.
    assert_eq!(controllers.selection.remade(), 2);
    let changed =
        first.objects.slices.iter().filter(|(name, slices)| !Arc::ptr_eq(&slices[0], &second.objects.slices[*name][0]));
    assert_eq!(changed.map(|(name, _)| name.name.as_str()).collect::<Vec<_>>(), ["s13", "s3"]);
    // One that goes takes its endpoints along.
    source.objects.pods.get_mut(&namespace).unwrap().remove(&p4);
    let third = controllers.complete(source);
    assert_eq!(third.objects.slices.values().filter(|slices| slices[0].endpoints.is_empty()).count(), 2);
}

#[test]
fn what_people_write_by_hand_becomes_services_that_work() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests/good");
    let read = |name: &str| ManifestSource::look_once(folder.join(name), "", &Rules::default());
    let settings = Settings::new(&["10.96.0.0/12".parse().unwrap()], 30_000..=32_767, Vec::new());
    let whole = merge([read("services.yaml"), read("pods.yaml")]);
    let whole = Controllers::new(settings, Memory::default()).complete(whole);
    let mut found = Vec::new();
    for (name, service) in &whole.objects.services {
        let slices = whole.objects.slices.get(name).cloned().unwrap_or_default();
        let one = Snapshot {
            objects: Objects { slices: [(name.clone(), slices)].into(), ..Objects::default() },
            ..Snapshot::default()
        };
        let flag = |set: bool, word| if set { word } else { "" };
        found.push(format!(
            "{} {}{}{}-> {}",
            name.name,
            flag(service.cluster_ips.len() == 1, "ip "),
            flag(service.ports.iter().any(|port| port.node_port.is_some()), "nodeport "),
            flag(!service.ingress.is_empty(), "lb "),
            shown(&one).join("; ")
        ));
    }
    assert_eq!(
        found,
        [
            "loadbalancer-service ip nodeport lb -> 10.244.0.5 =8080/TCP rs",
            "my-service ip -> 10.244.0.5 =8080/TCP rs; 10.244.0.6 =8080/TCP rs",
            "nodeport-service ip nodeport -> 10.244.0.5 =8080/TCP rs",
            "svc-2 ip nodeport -> ",
            "web-and-logging-service ip -> 10.244.1.7 web=80/TCP,metrics=9090/TCP rs",
            "my-database -> ",
        ]
    );
    assert_eq!(whole.problems.len(), 1, "svc-2 selects nobody: {:?}", whole.problems);
}
