//! `/v1/objects` over a real socket: who may change, how much, and what is answered.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::testing::{FakeView, Server};
use super::workshop::Workshop;

const WEB: &str =
    r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}"#;

fn server(workshop: &Workshop) -> Server {
    Server::start(FakeView { catalog: Some(workshop.catalog()), ..FakeView::default() })
}

/// Status and body.
async fn request(path: &Path, method: &str, target: &str, body: &str) -> (u16, Value) {
    let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    let text = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let mut stream = UnixStream::connect(path).await.unwrap();
    // A server that has seen enough hangs up before it has read all.
    drop(stream.write_all(text.as_bytes()).await);
    answer(stream).await
}

async fn answer(mut stream: UnixStream) -> (u16, Value) {
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_at_work_when_it_is_answered_and_faults_have_their_codes() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: changes, for want of root");
        return;
    }
    let workshop = Workshop::new();
    let server = server(&workshop);
    let path = &server.path;
    let (status, answer) = request(path, "POST", "/v1/objects", WEB).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer.to_string(),
        r#"{"dryRun":false,"items":[{"action":"created","kind":"Service","name":"web","namespace":"default"}]}"#
    );
    let (_, list) = request(path, "GET", "/v1/objects?kind=svc", "").await;
    assert_eq!((&list["kind"], &list["items"][0]["metadata"]["name"]), (&"List".into(), &"web".into()));
    assert_eq!(list["origins"][0], "applied/service/default_web.json document 1");
    let check = async |method: &str, target: &str, body: &str, wanted: u16, text: &str| {
        let (status, answer) = request(path, method, target, body).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(status == wanted && error.contains(text), "{method} {target}: {status} {answer}");
    };
    check("POST", "/v1/objects?create=true", WEB, 409, "Service `default/web` exists already").await;
    check("POST", "/v1/objects?source=x.yaml", "{", 422, "x.yaml document 1: ").await;
    check("POST", "/v1/objects?what=1", WEB, 400, "unknown field `what`").await;
    check("PUT", "/v1/objects", WEB, 405, "expected GET, POST or DELETE").await;
    check("GET", "/v1/objects?kind=job", "", 400, "found the kind `job`, expected one of Service").await;
    check("GET", "/v1/objects?labels=a%20b", "", 400, "found the selector `a b`").await;
    check("DELETE", "/v1/objects/svc/default/..%2F..%2Fweb", "", 400, "found `../../web`").await;
    check("DELETE", "/v1/objects/svc/default/gone", "", 404, "Service `default/gone` not found").await;
    check("GET", "/v1/objects/svc/default/web", "", 405, "expected DELETE").await;
    assert_eq!(request(path, "DELETE", "/v1/objects/svc/default/web", "").await.0, 200);
    assert_eq!(request(path, "GET", "/v1/objects", "").await.1["items"], Value::Array(Vec::new()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_have_a_limit_however_they_are_sent() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: changes, for want of root");
        return;
    }
    let workshop = Workshop::new();
    let server = server(&workshop);
    let padding = " ".repeat((1 << 20) - WEB.len());
    let fits = format!("{WEB}{padding}");
    assert_eq!(request(&server.path, "POST", "/v1/objects?dryRun=true", &fits).await.0, 200);
    let (status, answer) = request(&server.path, "POST", "/v1/objects", &format!("{fits} ")).await;
    assert!(status == 413 && answer["error"].as_str().unwrap().contains("at most 1048576 bytes"), "{answer}");

    let stream = UnixStream::connect(&server.path).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let head = "POST /v1/objects HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    writer.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(1 << 16));
    let flood = tokio::spawn(async move { while writer.write_all(chunk.as_bytes()).await.is_ok() {} });
    let mut answer = Vec::new();
    drop(reader.read_to_end(&mut answer).await);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    flood.await.unwrap();
    assert_eq!(request(&server.path, "GET", "/v1/objects", "").await.1["items"], Value::Array(Vec::new()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_root_changes_objects_and_members_of_the_group_see_them() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: other users, for want of root");
        return;
    }
    let workshop = Workshop::new();
    let server = server(&workshop);
    assert_eq!(request(&server.path, "POST", "/v1/objects", WEB).await.0, 200);
    let gid = format!("--groups={}", nix::unistd::getegid());
    let curl = |more: &[&str]| {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", &gid, "curl", "--silent", "--max-time", "5", "--unix-socket"])
            .arg(&server.path)
            .args(more)
            .output();
        output.map(|output| String::from_utf8(output.stdout).unwrap())
    };
    let Ok(list) = curl(&["http://localhost/v1/objects"]) else {
        eprintln!("SKIPPED: cannot run setpriv");
        return;
    };
    assert!(list.contains("\"name\":\"web\""), "{list}");
    for method in ["POST", "DELETE"] {
        for target in ["http://localhost/v1/objects", "http://localhost/v1/objects/svc/default/web"] {
            let answer = curl(&["-X", method, "--data", WEB, target]).unwrap();
            assert!(
                answer.contains("you may read here but not change anything: be root"),
                "{method} {target}: {answer}"
            );
        }
    }
    let (_, list) = request(&server.path, "GET", "/v1/objects", "").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_the_difference_to_what_was_told() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: changes, for want of root");
        return;
    }
    let workshop = Workshop::new();
    let server = server(&workshop);
    let labelled = WEB.replace("\"web\"", "\"web\", \"labels\": {\"a\": \"b\"}");
    assert_eq!(request(&server.path, "POST", "/v1/objects", &labelled).await.0, 200);
    let mut stream = UnixStream::connect(&server.path).await.unwrap();
    stream.write_all(b"GET /v1/objects?watch=true&labels=a%3Db HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut next = async || loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if let Ok(event @ Value::Object(_)) = serde_json::from_str::<Value>(&line) {
            return (event["type"].as_str().unwrap().to_owned(), event["object"]["spec"]["ports"][0]["port"].clone());
        }
    };
    assert_eq!(next().await, ("ADDED".to_owned(), 80.into()));
    request(&server.path, "POST", "/v1/objects", &labelled.replace("80", "81")).await;
    assert_eq!(next().await, ("MODIFIED".to_owned(), 81.into()));
    // Without the label it is none of those that were asked for.
    request(&server.path, "POST", "/v1/objects", &WEB.replace("80", "82")).await;
    assert_eq!(next().await, ("DELETED".to_owned(), 81.into()));
    request(&server.path, "POST", "/v1/objects", &labelled.replace("80", "83")).await;
    assert_eq!(next().await, ("ADDED".to_owned(), 83.into()));
    request(&server.path, "DELETE", "/v1/objects/svc/default/web", "").await;
    assert_eq!(next().await, ("DELETED".to_owned(), 83.into()));
    server.stop().await;
}
