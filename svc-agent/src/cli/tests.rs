//! `svcctl` against a server with a made-up agent: what it prints and how it ends.

use std::io;
use std::path::{Path, PathBuf};

use super::run;
use crate::control::testing::{FakeView, Server};

/// Exit code, standard output, standard error.
type Outcome = (u8, String, String);

fn svcctl(socket: &Path, args: &str) -> Outcome {
    let start = ["svcctl".into(), "--socket".into(), socket.into()];
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(start.into_iter().chain(args.split(' ').map(Into::into)), &mut out, &mut err);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// Runs the checks where blocking is allowed, against a server with this agent.
async fn with(view: FakeView, checks: impl FnOnce(PathBuf) + Send + 'static) {
    let server = Server::start(view);
    let path = server.path.clone();
    tokio::task::spawn_blocking(move || checks(path)).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frontends_show_what_the_node_made_of_services() {
    with(FakeView::default(), |path| {
        let table = "NAMESPACE     NAME   TYPE        CLUSTER-IP             EXTERNAL-IP   PORT(S)               ENDPOINTS\n\
                     default       web    NodePort    10.96.0.1,fd00:96::1   <none>        80:30080/TCP,80/TCP   1/2\n\
                     kube-system   dns    ClusterIP   <none>                 <none>        <none>                <none>\n";
        let (code, out, err) = svcctl(&path, "get frontends");
        assert_eq!((code, out.as_str()), (0, table));
        assert_eq!(err, "warning: kube-system/dns is refused: the map `FRONTENDS_V4` is full\n");
        assert_eq!(svcctl(&path, "get fe -A").1, table);

        let (_, out, err) = svcctl(&path, "get frontend web --no-headers");
        assert!(out.starts_with("default   web ") && out.lines().count() == 1 && err.is_empty(), "{out}{err}");
        assert_eq!(svcctl(&path, "get fe -n default").1.lines().count(), 2);
        assert_eq!(svcctl(&path, "get fe default/web").1.lines().count(), 2);
        assert_eq!(svcctl(&path, "get fe --limit 1").1.lines().count(), 2);
        assert!(svcctl(&path, "get fe -o wide").1.contains("BYTES-OUT"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_show_translation_and_counters_in_human_and_in_exact_numbers() {
    with(FakeView { flows: 3, ..Default::default() }, |path| {
        let (code, out, _) = svcctl(&path, "get flows");
        let wanted = "\
PROTO   CLIENT            VIP            BACKEND         SNAT                STATE         PACKETS-IN   BYTES-IN   PACKETS-OUT   BYTES-OUT   IDLE
TCP     192.0.2.1:40000   10.96.0.1:80   10.0.1.1:8080   198.51.100.1:1024   Established   12           1.2M       34            987         3s
UDP     192.0.2.2:40001   10.96.0.1:80   10.0.1.1:8080   <none>              Unreplied     12           1.2M       34            987         3s
TCP     192.0.2.3:40002   10.96.0.1:80   10.0.1.1:8080   198.51.100.1:1024   Established   12           1.2M       34            987         3s
";
        assert_eq!((code, out.as_str()), (0, wanted));
        let (_, out, _) = svcctl(&path, "get fl --protocol udp -o json");
        let flows: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(flows["items"].as_array().unwrap().len(), 1);
        assert_eq!(flows["items"][0]["forward"]["bytes"], 1_234_567);
        let (_, out, _) = svcctl(&path, "get flow --client 192.0.2.1 -o yaml");
        assert!(out.starts_with("items:\n- protocol: TCP\n  family: IPv4\n"), "{out}");
        assert!(out.contains("\n  forward:\n    packets: 12\n    bytes: 1234567\n"), "{out}");
        assert!(svcctl(&path, "get flows -o wide web").1.contains("default/web"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_lists_have_a_row_per_element() {
    with(FakeView::default(), |path| {
        let (_, out, _) = svcctl(&path, "get targets");
        let wanted = "NAMESPACE     SERVICE   PORT     ENDPOINT        READY    NODE     TARGET\n\
                      default       web       80/TCP   10.0.1.1:8080   true     node-a   web-1\n\
                      default       web       80/TCP   10.0.2.1:8080   false    node-b   web-2\n\
                      kube-system   dns       <none>   <none>          <none>   <none>   <none>\n";
        assert_eq!(out, wanted);
        let (_, out, _) = svcctl(&path, "get backends");
        let wanted = "NAMESPACE   SERVICE   PORT     ID   BACKEND         STATE      SHARE\n\
                      default     web       80/TCP   1    10.0.1.1:8080   Ready      100.0%\n\
                      <none>      <none>    <none>   2    10.0.2.1:8080   Draining   0.0%\n";
        assert_eq!(out, wanted);
        let (_, out, _) = svcctl(&path, "get counters");
        let wanted = "COUNTER       PACKETS   MEANING\n\
                      no_endpoint   5         Refused: the service has no endpoint anywhere\n";
        assert_eq!(out, wanted);
        assert_eq!(svcctl(&path, "get counters --all").1.lines().count(), 1 + svc_common::reason::Reason::ALL.len());
        let (_, out, _) = svcctl(&path, "get devices");
        let wanted = "NAME    CLASS      XDP      TC    MTU    ADDRESSES      XDP-REASON\n\
                      eth0    uplink     native   tcx   1500   198.51.100.1   <none>\n\
                      veth1   workload   off      tcx   1500   198.51.100.1   XDP is for uplinks\n";
        assert_eq!(out, wanted);
        assert!(svcctl(&path, "get dev veth1 -o wide").1.contains("02:00:00:00:00:01"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_and_yaml_give_back_what_the_agent_said() {
    with(FakeView::default(), |path| {
        for list in ["frontends", "targets", "backends", "devices"] {
            let (_, json, _) = svcctl(&path, &format!("get {list} -o json"));
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(json["items"].as_array().unwrap().len(), 2, "{json}");
            let (_, yaml, _) = svcctl(&path, &format!("get {list} -o yaml"));
            assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap(), json, "{yaml}");
        }
        let (_, json, _) = svcctl(&path, "status -o json");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let (_, yaml, _) = svcctl(&path, "status -o yaml");
        assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap(), json, "{yaml}");
        for empty in ["-o json", "-o yaml"] {
            let (code, out, err) = svcctl(&path, &format!("get flows {empty}"));
            let out: serde_json::Value = serde_saphyr::from_str(&out).unwrap();
            assert_eq!((code, out, err.as_str()), (0, serde_json::json!({ "items": [] }), ""));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_shows_what_is_wrong() {
    with(FakeView::default(), |path| {
        let (code, out, _) = svcctl(&path, "status");
        assert_eq!(code, 0);
        for text in [
            "Agent:     0.1.0, pid 4242, up 3h12m\n",
            "Sync:      up to date, last success 3s ago, 1 refused, 1 problem\n",
            "\nSockets:   host, 2 hooks on /sys/fs/cgroup, this kernel lacks the others\n",
            "\nRoutes:    3 addresses in table 99\n",
            "\nAnswers:   for 1 of 3 addresses on eth0; node-2 does not tell: connection refused\n",
            "\nservices   41        LOST    1m35s ago    11m40s ago   https://192.0.2.1:6443   connection refused\n",
            "\nNAME    CLASS      XDP ",
            "\nFLOWS_V4     1.2M     2.4M       50%\n",
            "\nEMBRYOS_V4   <none>   65.5k      <none>\n",
            "\nno_endpoint   5\n",
            "\nRefused Services:\n  kube-system/dns: the map `FRONTENDS_V4` is full\n",
            "\nNotices:\n  web.yaml document 1",
            "\nProblems:\n  web.yaml document 3: spec.ports[0].port",
        ] {
            assert!(out.contains(text), "{text:?} in\n{out}");
        }
        let (code, out, _) = svcctl(&path, "version");
        assert_eq!((code, out.as_str()), (0, "svcctl      0.1.0\nsvc-agent   0.1.0\n"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_told_and_only_a_missing_name_is_a_failure() {
    with(FakeView::default(), |path| {
        assert_eq!(svcctl(&path, "get fe nothing"), (1, String::new(), "error: Service `nothing` not found\n".into()));
        let (code, _, err) = svcctl(&path, "get tg web -n other");
        assert_eq!((code, err.as_str()), (1, "error: Service `web` not found in the namespace `other`\n"));
        assert_eq!(svcctl(&path, "get dev eth9"), (1, String::new(), "error: device `eth9` not found\n".into()));
        assert_eq!(svcctl(&path, "get flows"), (0, String::new(), "No flows found.\n".into()));
        let (code, _, err) = svcctl(&path, "get fe -n other");
        assert_eq!((code, err.as_str()), (0, "No Services found in the namespace `other`.\n"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_of_the_agent_is_shown_after_what_came_before_it() {
    with(FakeView { broken: true, flows: 10, fail_after: Some(2), ..Default::default() }, |path| {
        let (code, out, err) = svcctl(&path, "status");
        assert_eq!((code, out.as_str()), (1, ""));
        assert_eq!(err, "error: the agent answered 500: cannot read the map `CONFIG`: gone\n");
        let (code, out, err) = svcctl(&path, "get flows --no-headers");
        assert_eq!((code, out.lines().count()), (1, 2));
        assert_eq!(err, "error: the agent answered 500: cannot read the map `FLOWS_V4`: gone\n");
    })
    .await;
}

#[test]
fn wrong_arguments_end_with_2_and_say_what_is_right() {
    let nowhere = Path::new("/nonexistent/control.sock");
    let check = |args: &str, texts: &[&str]| {
        let (code, out, err) = svcctl(nowhere, args);
        assert_eq!((code, out.as_str()), (2, ""), "{args}: {err}");
        for text in texts {
            assert!(err.contains(text), "{args}: {err}");
        }
    };
    check(
        "get jobs",
        &[
            "'jobs'",
            "services, endpointslices, pods, nodes, frontends, endpoints, targets, backends, flows, devices, counters",
        ],
    );
    check("get svc --all", &["for `svcctl get counters` only"]);
    check("describe service", &["svcctl describe service web"]);
    check("get flows -w", &["for objects only"]);
    check("get backends -o name", &["for objects only"]);
    check("status -o name", &["of objects only"]);
    check("get svc -l =web", &["found the selector `=web`"]);
    check("apply", &["--file"]);
    check("delete", &["svcctl delete service web"]);
    check("delete svc", &["name the objects, too"]);
    check("delete job x", &["found the kind `job`, expected one of Service"]);
    check("delete svc web -f x", &["either manifests with -f"]);
    check("get", &["RESOURCE"]);
    check("frobnicate", &["frobnicate"]);
    check("get svc -o xml", &["'xml'", "table, wide, json, yaml, name"]);
    check("get fe -A -n default", &["cannot be used with"]);
    check("get fe --client 10.0.0.1", &["for `svcctl get flows` only"]);
    check("get flows --client web", &["found `web`, expected an address"]);
    check("get flows --protocol icmp", &["expected TCP, UDP or SCTP"]);
}

#[test]
fn without_an_agent_the_error_names_the_socket_and_the_remedy() {
    let home = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
    let path = home.path().join("control.sock");
    let check = |cause: &str| {
        for args in ["status", "get svc", "get flows"] {
            let (code, out, err) = svcctl(&path, args);
            assert_eq!((code, out.as_str()), (1, ""), "{err}");
            assert!(
                err.contains(path.to_str().unwrap()) && err.contains(cause) && err.contains("svc-agent run"),
                "{err}"
            );
        }
    };
    check("there is no such socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    check("it has ended");
    let (code, out, _) = svcctl(&path, "version");
    assert!(code == 0 && out.contains("svc-agent   unknown: no agent at"), "{out}");
}

#[test]
fn help_version_and_completion_need_no_agent() {
    let nowhere = Path::new("/nonexistent/control.sock");
    for (args, text) in [
        ("--help", "SVC_AGENT_SOCKET"),
        ("get --help", "--no-headers"),
        ("--version", "svcctl 0.1.0"),
        ("completion bash", "complete -F _svcctl"),
        ("completion zsh", "#compdef svcctl"),
    ] {
        let (code, out, err) = svcctl(nowhere, args);
        assert!(code == 0 && out.contains(text) && err.is_empty(), "{args}: {out}{err}");
    }
}

/// A reader that goes away after the first piece, like `head`.
struct Head(bool);

impl io::Write for Head {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.0 = true;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_away_is_no_failure() {
    with(FakeView { flows: 50_000, ..Default::default() }, |path| {
        for args in
            [vec!["get", "flows"], vec!["get", "flows", "-o", "json"], vec!["--help"], vec!["completion", "zsh"]]
        {
            for gone in [false, true] {
                let start = ["svcctl".into(), "--socket".into(), path.clone().into_os_string()];
                let mut err = Vec::new();
                let code = run(start.into_iter().chain(args.iter().map(Into::into)), &mut Head(gone), &mut err);
                assert_eq!((code, err.as_slice()), (0, &[][..]), "{args:?}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_one_a_line() {
    with(FakeView::default(), |path| {
        let drop = "22:13:20.123 drop no_local_endpoint tc-ingress eth0 TCP 192.0.2.1:40000 -> 10.96.0.1:80 default/web 74 bytes\n";
        let begin = "22:13:20.123 begin TCP 192.0.2.1:40000 -> 10.96.0.1:80 -> 10.0.1.1:8080 as 198.51.100.1:1024 default/web\n";
        assert_eq!(svcctl(&path, "events"), (0, format!("{drop}{begin}"), String::new()));
        assert_eq!(svcctl(&path, "events --drops").1, drop);
        assert_eq!(svcctl(&path, "events --flows --sample 5").1, begin);
        let (_, out, _) = svcctl(&path, "events -o json --limit 1");
        let event: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&event["kind"], &event["reason"]), (&"drop".into(), &"no_local_endpoint".into()));
    })
    .await;
}
