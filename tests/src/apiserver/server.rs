//! One API server: answers lists and watches from the store, and writes from it and to it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream;
use serde_json::{Value, json};
use svc_agent::sources::kubernetes::kinds::Watched;
use svc_agent::sources::kubernetes::servers;
use svc_agent::sources::kubernetes::transport::{Answer, Method, Request, Transport};
use tokio::time::{Instant, sleep_until};

use super::Store;
use super::faults::{BOOKMARK, Fault};
use super::store::Change;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Received {
    /// The server.
    pub server: String,
    /// The request.
    pub request: Request,
}

/// Version and objects of what is left of a list.
type Rest = (u64, Vec<Arc<Value>>);

type Choose = dyn FnMut(&Received) -> Fault + Send;

/// Answers requests. Clones are the same server.
#[derive(Clone)]
pub struct Server {
    store: Store,
    /// Decides what goes wrong.
    faults: Arc<Mutex<Box<Choose>>>,
    received: Arc<Mutex<Vec<Received>>>,
    made: Arc<Mutex<Vec<Value>>>,
    /// The rest of lists whose first pages were told.
    rests: Arc<Mutex<HashMap<String, Rest>>>,
}

impl Server {
    /// Does everything right.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            faults: Arc::new(Mutex::new(Box::new(|_| Fault::None))),
            received: Arc::default(),
            made: Arc::default(),
            rests: Arc::default(),
        }
    }

    /// Decides for each request from now on what goes wrong.
    pub fn fail(&self, choose: impl FnMut(&Received) -> Fault + Send + 'static) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(choose);
    }

    /// What was asked so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers.
    ///
    /// # Errors
    /// If nobody listens.
    pub async fn answer(&self, server: &str, request: Request) -> anyhow::Result<Answer> {
        let received = Received { server: server.to_owned(), request };
        let fault = self.faults.lock().unwrap_or_else(PoisonError::into_inner)(&received);
        let (method, path) = (received.request.method, received.request.path.clone());
        let body = received.request.body.as_ref().and_then(|(_, body)| serde_json::from_slice(body).ok());
        let body: Value = body.unwrap_or_default();
        self.received.lock().unwrap_or_else(PoisonError::into_inner).push(received);
        match fault {
            Fault::Refuse => anyhow::bail!("connection refused"),
            Fault::Hang => std::future::pending().await,
            Fault::Html(status) => return Ok(text(status, "<html>\n<body>sorry</body></html>".to_owned())),
            Fault::HtmlOk => return Ok(text(200, "<html>\n<body>sign in</body></html>".to_owned())),
            _ => {}
        }
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let query: HashMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), unescape(value)))
            .collect();
        match method {
            Method::Get => {}
            Method::Post => return Ok(self.make(path, &body)),
            Method::Patch => return Ok(self.change_status(path, &body)),
        }
        let Some(watched) = Watched::ALL.into_iter().find(|kind| kind.path(None).split('?').next() == Some(path))
        else {
            return Ok(status(404, "the server could not find the requested resource"));
        };
        let lag = if let Fault::Behind(lag) = fault { lag } else { 0 };
        let visible = self.store.version().saturating_sub(lag);
        Ok(if query.contains_key("watch") {
            self.watch(watched, &query, fault, lag)
        } else {
            cut(self.list(watched, &query, visible, fault), fault)
        })
    }

    /// What was made so far: Events.
    pub fn made(&self) -> Vec<Value> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn make(&self, path: &str, object: &Value) -> Answer {
        if !path.ends_with("/events") {
            return status(404, "the server could not find the requested resource");
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.iter().any(|other| other["metadata"] == object["metadata"]) {
            return status(409, "already exists");
        }
        made.push(object.clone());
        text(201, object.to_string())
    }

    /// Takes a merge patch of a Service's status for the version that it names.
    fn change_status(&self, path: &str, patch: &Value) -> Answer {
        let parts: Vec<&str> = path.split('/').collect();
        let ["", "api", "v1", "namespaces", namespace, "services", name, "status"] = parts[..] else {
            return status(404, "the server could not find the requested resource");
        };
        let Some(mut object) = self.store.get(Watched::Services, namespace, name) else {
            return status(404, "not found");
        };
        if patch["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
            return status(409, "the object has been modified");
        }
        object["status"] = patch["status"].clone();
        self.store.put(Watched::Services, object.clone());
        text(200, object.to_string())
    }

    fn list(&self, watched: Watched, query: &HashMap<String, String>, visible: u64, fault: Fault) -> Answer {
        let (version, mut items) = if let Some(token) = query.get("continue") {
            let rest = self.rests.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
            match rest {
                Some(rest) => rest,
                None => return status(410, "The provided continue parameter is too old"),
            }
        } else {
            let asked: u64 = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
            if asked > visible && !matches!(fault, Fault::Behind(_)) {
                return status(504, "Too large resource version");
            }
            (visible, self.store.list(watched, visible))
        };
        if let Some(name) = query.get("fieldSelector").and_then(|selector| selector.strip_prefix("metadata.name=")) {
            items.retain(|item| item["metadata"]["name"] == *name);
        }
        if fault == Fault::Empty {
            items.clear();
        }
        let limit: usize = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
        let mut meta = json!({"resourceVersion": version.to_string()});
        if items.len() > limit {
            let rest = items.split_off(limit);
            let token = format!("{version}:{}+/=", rest.len());
            meta["continue"] = json!(token);
            self.rests.lock().unwrap_or_else(PoisonError::into_inner).insert(token, (version, rest));
        }
        let (kind, version) = (watched.list_kind(), watched.api_version());
        let items: Vec<String> = items.iter().map(|item| item.to_string()).collect();
        let items = items.join(",");
        text(200, format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{meta},"items":[{items}]}}"#))
    }

    fn watch(&self, watched: Watched, query: &HashMap<String, String>, fault: Fault, lag: u64) -> Answer {
        let from: u64 = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
        let lasts = query.get("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(1800);
        if fault == Fault::Gone {
            return status(410, "too old resource version");
        }
        if from < self.store.compacted() || fault == Fault::GoneLater {
            let gone = json!({"type": "ERROR", "object": status_object(410, "too old resource version")});
            return text(200, format!("{gone}\n"));
        }
        let stream = Stream {
            store: self.store.clone(),
            watched,
            name: query
                .get("fieldSelector")
                .and_then(|selector| selector.strip_prefix("metadata.name="))
                .map(str::to_owned),
            position: from,
            lag,
            fault,
            ready: VecDeque::new(),
            told: Vec::new(),
            end: Instant::now() + Duration::from_secs(lasts),
            bookmark: Instant::now() + BOOKMARK,
        };
        let body = stream::unfold(stream, |mut stream| async move { stream.next().await.map(|piece| (piece, stream)) });
        cut(Answer { status: 200, body: body.boxed() }, fault)
    }
}

impl Transport for Server {
    fn send<'a>(&'a self, server: &'a servers::Server, request: Request) -> BoxFuture<'a, anyhow::Result<Answer>> {
        Box::pin(self.answer(&server.url, request))
    }
}

/// A watch that is under way.
struct Stream {
    store: Store,
    watched: Watched,
    name: Option<String>,
    position: u64,
    lag: u64,
    fault: Fault,
    ready: VecDeque<Change>,
    told: Vec<Change>,
    end: Instant,
    bookmark: Instant,
}

impl Stream {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let mut newest = self.store.newest();
        loop {
            match self.fault {
                Fault::Silent => std::future::pending().await,
                Fault::Brief => return None,
                _ => {}
            }
            self.gather();
            if let Some(change) = self.ready.pop_front() {
                return Some(Ok(self.line(change)));
            }
            tokio::select! {
                biased;
                _ = newest.changed() => {}
                () = sleep_until(self.end) => return None,
                () = sleep_until(self.bookmark) => {
                    self.bookmark = Instant::now() + BOOKMARK;
                    let version = self.position.min(self.store.version());
                    let object = json!({"kind": "X", "metadata": {"resourceVersion": version.to_string()}});
                    return Some(Ok(line(&json!({"type": "BOOKMARK", "object": object}))));
                }
            }
        }
    }

    fn gather(&mut self) {
        let until = self.store.version().saturating_sub(self.lag);
        if until <= self.position {
            return;
        }
        let mut changes = self.store.changes(self.watched, self.position, until);
        changes.retain(|change| self.name.as_ref().is_none_or(|name| change.key.2 == *name));
        self.position = until;
        match self.fault {
            Fault::Twice => changes = changes.into_iter().flat_map(|change| [change.clone(), change]).collect(),
            Fault::Swap => changes.chunks_mut(2).for_each(<[Change]>::reverse),
            Fault::Skip(n) => changes.retain(|change| change.version % n != 0),
            Fault::Again => {
                let again = self.told.iter().rev().nth(2).cloned();
                self.told.extend(changes.iter().cloned());
                changes.extend(again);
            }
            _ => {}
        }
        self.ready.extend(changes);
    }

    fn line(&self, change: Change) -> Bytes {
        if self.fault == Fault::Garbage {
            return Bytes::from_static(b"{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":7}}}\n");
        }
        let mut object = Value::clone(&change.object);
        let kind = self.watched.list_kind();
        object["kind"] = json!(kind.strip_suffix("List").unwrap_or(kind));
        object["apiVersion"] = json!(self.watched.api_version());
        line(&json!({"type": change.kind, "object": object}))
    }
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}

fn status_object(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message})
}

fn status(code: u16, message: &str) -> Answer {
    text(code, status_object(code, message).to_string())
}

fn text(status: u16, text: String) -> Answer {
    Answer { status, body: stream::once(async { Ok(Bytes::from(text)) }).boxed() }
}

/// Breaks an answer off, if that is the fault.
fn cut(answer: Answer, fault: Fault) -> Answer {
    let (Fault::Cut(limit) | Fault::End(limit)) = fault else { return answer };
    let broken = matches!(fault, Fault::Cut(_));
    let mut room = limit;
    let pieces = answer.body.flat_map(move |piece| {
        let mut out = Vec::new();
        match piece {
            Ok(bytes) if bytes.len() <= room => {
                room -= bytes.len();
                out.push(Some(Ok(bytes)));
            }
            Ok(bytes) => {
                out.push(Some(Ok(bytes.slice(..room))));
                out.extend(broken.then(|| Some(Err(io::Error::from(io::ErrorKind::ConnectionReset)))));
                // The end, without waiting for the next piece.
                out.push(None);
            }
            Err(error) => out.push(Some(Err(error))),
        }
        stream::iter(out)
    });
    let body = pieces.take_while(|piece| std::future::ready(piece.is_some())).filter_map(std::future::ready);
    Answer { status: answer.status, body: body.boxed() }
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex.filter(|_| byte == b'%') {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
