//! A server for one question at one address. Whoever asks strangely, slowly or too often harms nobody.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::Reply;
use crate::model::ServiceName;

/// Connections at one address; others wait.
const CONNECTIONS: usize = 64;
/// A connection's whole life.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const MAX_HEAD_BYTES: usize = 8 << 10;

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Listener {
    /// Where.
    pub address: SocketAddr,
    /// For which Service.
    pub service: ServiceName,
    task: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    /// Listens, and answers every question with what `reply` says of its path.
    ///
    /// # Errors
    /// If the address is taken or not there.
    pub fn start(
        address: SocketAddr,
        service: &ServiceName,
        reply: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let socket = StdListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let listener = TcpListener::from_std(socket)?;
        let task = tokio::spawn(serve(listener, Arc::new(reply))).abort_handle();
        Ok(Self { address, service: service.clone(), task })
    }
}

/// Whether this kernel has IPv6.
pub fn has_v6() -> bool {
    StdListener::bind("[::1]:0").is_ok()
}

type Replies = dyn Fn(&str) -> Reply + Send + Sync;

async fn serve(listener: TcpListener, reply: Arc<Replies>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    // They end with this task.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let reply = reply.clone();
                connections.spawn(async move {
                    let _slow = timeout(PATIENCE, connection(stream, reply)).await;
                    drop(permit);
                });
            }
            // Too many descriptors, most likely: they come back.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn connection(stream: TcpStream, reply: Arc<Replies>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&request, reply.as_ref());
        async move { Ok::<_, Infallible>(answer) }
    });
    let _closed = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer(request: &Request<Incoming>, reply: &Replies) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return with_status(Response::new(Body::empty()), 405);
    }
    let reply = reply(request.uri().path());
    let mut answer = with_status(Response::new(Body::from(reply.body)), reply.status);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    answer.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

fn with_status(mut answer: Response<Body>, status: u16) -> Response<Body> {
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}
