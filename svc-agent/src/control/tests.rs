//! The server over a real socket, as `curl` and less polite clients see it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::api::{Flow, NamesLine};
use super::server::Limits;
use super::testing::{FakeView, Server};
use crate::client::Client;
use crate::resolve::fixtures;
use crate::sorted::Sorted;

/// Sends the text as it is and reads all that comes until the server hangs up.
async fn raw(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server that hangs up before it has read all resets the connection: what came before counts.
    drop(stream.read_to_end(&mut answer).await);
    String::from_utf8(answer).unwrap()
}

async fn request(path: &Path, method: &str, target: &str) -> (u16, String) {
    let text = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = raw(path, &text).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
    (status, body)
}

async fn get(path: &Path, target: &str) -> (u16, String) {
    request(path, "GET", target).await
}

fn unchunk(mut body: &str) -> String {
    let mut all = String::new();
    loop {
        let (len, rest) = body.split_once("\r\n").unwrap();
        let len = usize::from_str_radix(len, 16).unwrap();
        if len == 0 {
            return all;
        }
        all.push_str(&rest[..len]);
        body = &rest[len + 2..];
    }
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Runs `curl`, or what it is given instead, as another user if one is named. `None` without the tool.
fn curl(wrapper: &[&str], path: &Path, target: &str) -> Option<(String, String)> {
    let words: Vec<_> = wrapper.iter().copied().chain(["curl"]).collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .args(["--silent", "--show-error", "--max-time", "5", "--write-out", "%{http_code}", "--unix-socket"])
        .arg(path)
        .arg(format!("http://localhost{target}"))
        .output();
    match output {
        Ok(output) => {
            let text = String::from_utf8(output.stdout).unwrap();
            let (body, code) = text.split_at(text.len() - 3);
            Some((code.to_owned(), body.to_owned()))
        }
        Err(error) => {
            eprintln!("SKIPPED: cannot run {words:?}: {error}");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_gets_the_status() {
    let server = Server::start(FakeView::default());
    if let Some((code, body)) = curl(&["env"], &server.path, "/v1/status") {
        assert_eq!(code, "200");
        let status = json(&body);
        assert_eq!((&status["nodeName"], &status["pid"]), (&"node-a".into(), &4242.into()));
        assert_eq!((&status["sync"]["complete"], &status["uptimeSeconds"]), (&true.into(), &11_525.into()));
        assert_eq!(status["devices"][1]["xdp"]["mode"], "off");
    }
    server.stop().await;
}

#[tokio::test]
async fn every_list_answers_and_obeys_its_filters() {
    let server = Server::start(FakeView::default());
    let count = async |target: &str, wanted: usize| {
        let (status, body) = get(&server.path, target).await;
        assert_eq!(status, 200, "{target}: {body}");
        assert_eq!(json(&body)["items"].as_array().unwrap().len(), wanted, "{target}: {body}");
    };
    count("/v1/services", 2).await;
    count("/v1/services?namespace=default", 1).await;
    count("/v1/services?namespace=default&service=dns", 0).await;
    count("/v1/services?limit=1", 1).await;
    count("/v1/endpoints", 2).await;
    count("/v1/endpoints?service=web", 1).await;
    count("/v1/backends", 2).await;
    count("/v1/backends?service=web", 1).await;
    count("/v1/backends?limit=0", 0).await;
    count("/v1/devices", 2).await;
    assert_eq!(get(&server.path, "/healthz").await, (200, r#"{"status":"ok"}"#.to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn flows_come_one_per_line_and_obey_their_filters() {
    let server = Server::start(FakeView { flows: 1000, ..Default::default() });
    let count = async |target: &str, wanted: usize| {
        let (status, body) = get(&server.path, target).await;
        assert_eq!(status, 200, "{target}: {body}");
        let flows: Vec<Flow> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(flows.len(), wanted, "{target}");
    };
    count("/v1/flows", 1000).await;
    count("/v1/flows?limit=7", 7).await;
    count("/v1/flows?limit=0", 0).await;
    count("/v1/flows?protocol=udp", 500).await;
    count("/v1/flows?client=192.0.2.1", 4).await;
    count("/v1/flows?client=192.0.2.1:40000&vip=10.96.0.1:80&backend=10.0.0.0/8", 1).await;
    count("/v1/flows?vip=10.96.0.1:81", 0).await;
    count("/v1/flows?backend=10.1.0.0/16", 0).await;
    count("/v1/flows?namespace=default&service=web&limit=3", 3).await;
    count("/v1/flows?namespace=other", 0).await;
    server.stop().await;
}

#[tokio::test]
async fn mistakes_are_answered_with_what_was_expected() {
    let server = Server::start(FakeView::default());
    let check = async |method: &str, target: &str, status: u16, texts: &[&str]| {
        let (found, body) = request(&server.path, method, target).await;
        let error = json(&body)["error"].as_str().unwrap().to_owned();
        assert_eq!(found, status, "{method} {target}: {error}");
        for text in texts {
            assert!(error.contains(text), "{method} {target}: {error}");
        }
    };
    check("GET", "/", 404, &["there is no `/`", "/v1/status", "/v1/flows"]).await;
    check("GET", "/v1/service", 404, &["`/v1/service`", "/v1/services"]).await;
    check("GET", "/v1/services?name=web", 400, &["unknown field `name`", "`namespace`", "`service`"]).await;
    check("GET", "/v1/services?limit=many", 400, &["limit"]).await;
    check("GET", "/v1/status?x=1", 400, &["unknown field `x`"]).await;
    check("GET", "/v1/flows?client=web", 400, &["found `web`", "expected an address"]).await;
    check("GET", "/v1/flows?protocol=icmp", 400, &["found the protocol `icmp`", "expected TCP, UDP or SCTP"]).await;
    if nix::unistd::geteuid().is_root() {
        check("DELETE", "/v1/services", 405, &["found the method DELETE", "expected GET"]).await;
    } else {
        check("DELETE", "/v1/services", 403, &["be root"]).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn an_agent_that_cannot_tell_answers_500_or_breaks_the_stream_off_with_the_reason() {
    let server = Server::start(FakeView { broken: true, flows: 10, fail_after: Some(0), ..Default::default() });
    let (status, body) = get(&server.path, "/v1/status").await;
    assert_eq!((status, json(&body)["error"].as_str()), (500, Some("cannot read the map `CONFIG`: gone")));
    let (status, body) = get(&server.path, "/v1/flows").await;
    assert_eq!((status, json(&body)["error"].as_str()), (500, Some("cannot read the map `FLOWS_V4`: gone")));
    server.stop().await;

    let server = Server::start(FakeView { flows: 1000, fail_after: Some(500), ..Default::default() });
    let (status, body) = get(&server.path, "/v1/flows").await;
    assert_eq!((status, body.lines().count()), (200, 501));
    assert_eq!(body.lines().last(), Some(r#"{"error":"cannot read the map `FLOWS_V4`: gone"}"#));
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_walk_and_is_hung_up_on() {
    let visited = Arc::new(AtomicUsize::new(0));
    let limits = Limits { patience: Duration::from_millis(200), ..Limits::USUAL };
    let view = FakeView { flows: 1_000_000, visited: visited.clone(), ..Default::default() };
    let server = Server::start_within(limits, view);
    let mut lazy = UnixStream::connect(&server.path).await.unwrap();
    lazy.write_all(b"GET /v1/flows HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    // Others are served meanwhile.
    assert_eq!(get(&server.path, "/healthz").await.0, 200);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let mut answer = Vec::new();
    drop(tokio::time::timeout(Duration::from_secs(5), lazy.read_to_end(&mut answer)).await.unwrap());
    assert!(!answer.ends_with(b"0\r\n\r\n"), "the stream must not look complete");
    assert!(visited.load(Ordering::Relaxed) < 20_000, "{visited:?} connections were visited for nobody");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_request_is_hung_up_on() {
    let limits = Limits { patience: Duration::from_millis(100), ..Limits::USUAL };
    let server = Server::start_within(limits, FakeView::default());
    for start in [
        "",
        "GET /v1/status HTTP/1.1\r\nHost:",
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc",
    ] {
        let answer = tokio::time::timeout(Duration::from_secs(5), raw(&server.path, start)).await;
        assert!(answer.is_ok(), "{start:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn bodies_and_heads_have_limits_and_nonsense_is_refused() {
    let server = Server::start(FakeView::default());
    let answer = raw(&server.path, "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("at most 1048576 bytes"), "{answer}");
    let long = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "a".repeat(64 << 10));
    let answer = raw(&server.path, &long).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(raw(&server.path, "\x16\x03\x01 nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    assert_eq!(get(&server.path, "/healthz").await.0, 200);
    server.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_the_others_stay() {
    let limits = Limits { connections: 2, refusals: 1, ..Limits::USUAL };
    let server = Server::start_within(limits, FakeView::default());
    let mut first = UnixStream::connect(&server.path).await.unwrap();
    let _second = UnixStream::connect(&server.path).await.unwrap();
    let (status, body) = get(&server.path, "/healthz").await;
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("too many connections"), "{body}");
    first.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    first.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_refused_even_if_the_mode_is_loosened_and_a_member_by_second_group_reads() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: other users, for want of root");
        return;
    }
    let server = Server::start(FakeView { flows: 1, ..Default::default() });
    let stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    // The mode alone keeps it out.
    let Some((code, _)) = curl(&stranger, &server.path, "/v1/status") else { return };
    assert_eq!(code, "000");

    std::fs::set_permissions(&server.path, std::fs::Permissions::from_mode(0o666)).unwrap();
    for target in ["/v1/status", "/v1/services", "/v1/flows", "/healthz", "/nothing"] {
        let (code, body) = curl(&stranger, &server.path, target).unwrap();
        assert_eq!(code, "403", "{target}: {body}");
        assert!(body.contains("be root or a member of the socket's group"), "{body}");
    }
    let gid = format!("--groups={}", nix::unistd::getegid());
    let member = ["setpriv", "--reuid=65534", "--regid=65534", &gid];
    assert_eq!(curl(&member, &server.path, "/v1/status").unwrap().0, "200");
    let changing: Vec<_> = member.into_iter().chain(["curl", "-X", "DELETE", "--unix-socket"]).collect();
    let output = Command::new(changing[0])
        .args(&changing[1..])
        .arg(&server.path)
        .args(["--silent", "http://localhost/v1/services"])
        .output()
        .unwrap();
    let body = String::from_utf8(output.stdout).unwrap();
    assert!(body.contains("you may read here but not change anything"), "{body}");
    server.stop().await;
}

#[tokio::test]
async fn a_shutdown_ends_open_connections_soon() {
    let server = Server::start(FakeView { flows: 10_000_000, ..Default::default() });
    let _idle = UnixStream::connect(&server.path).await.unwrap();
    let mut lazy = UnixStream::connect(&server.path).await.unwrap();
    lazy.write_all(b"GET /v1/flows HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), server.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_whose_file_somebody_removed_is_served_again() {
    let limits = Limits { look: Duration::from_millis(20), ..Limits::USUAL };
    let server = Server::start_within(limits, FakeView::default());
    std::fs::remove_file(&server.path).unwrap();
    let status = async {
        while !server.path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Client::new(&server.path).get::<serde_json::Value>("/v1/status", &()).await
    };
    tokio::time::timeout(Duration::from_secs(5), status).await.unwrap().unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_come_as_a_whole_first_and_then_as_they_change() {
    let mut web = fixtures::snapshot(vec![fixtures::service("web", &["10.96.0.1"])], Vec::new());
    let snapshots = watch::Sender::new(Arc::new(web.clone()));
    let server = Server::start(FakeView { snapshots: snapshots.clone(), ..FakeView::default() });
    let client = Client::new(&server.path);
    let mut lines = client.lines::<NamesLine>("/v1/names", &()).await.unwrap();
    let told = lines.next().await.unwrap();
    assert!(matches!(&told, Some(NamesLine::Service(web)) if web.name == "web"), "{told:?}");
    assert!(matches!(lines.next().await.unwrap(), Some(NamesLine::Synced(synced)) if synced.complete));

    web.objects.services = Sorted::new();
    snapshots.send_replace(Arc::new(web));
    let told = lines.next().await.unwrap();
    assert!(matches!(&told, Some(NamesLine::Removed(web)) if web.name == "web"), "{told:?}");
    drop(lines);
    let (code, body) = get(&server.path, "/v1/names?x=1").await;
    assert_eq!(code, 400, "{body}");
    server.stop().await;
}
