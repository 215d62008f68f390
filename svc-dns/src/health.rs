//! Tells whether this server is of use: `/healthz`, `/readyz` over HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::source::State;
use crate::zone::Zone;

/// Connections at a time; each may last so long.
const MAX_CONNECTIONS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(5);

/// What there is to tell.
#[derive(Clone, Debug)]
pub struct Health {
    /// The names.
    pub zone: Arc<RwLock<Zone>>,
    /// Whether the agent is there.
    pub state: watch::Receiver<State>,
}

impl Health {
    /// One line, and whether names of Services are answered.
    pub fn summary(&self) -> (bool, String) {
        let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner);
        let (loaded, services) = (zone.is_loaded(), zone.len());
        drop(zone);
        let text = match &*self.state.borrow() {
            State::Following if loaded => format!("{services} Services, following the agent"),
            State::Following => "some manifests cannot be read: names of Services are not answered yet".to_owned(),
            State::Lost { since, why } => {
                format!("{services} Services as of {} s ago: {why}", since.elapsed().as_secs())
            }
            State::Waiting(why) => format!("waiting for the agent: {why}"),
        };
        (loaded, text)
    }

    fn answer(&self, path: &str) -> (StatusCode, String) {
        let (ready, text) = self.summary();
        match path {
            "/healthz" | "/livez" => (StatusCode::OK, text),
            "/readyz" if ready => (StatusCode::OK, text),
            "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, text),
            _ => (StatusCode::NOT_FOUND, format!("there is no `{path}`, expected /healthz, /livez or /readyz")),
        }
    }
}

/// A listener for it.
///
/// # Errors
/// If the address is taken.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("--health: cannot listen at `{address}`"))
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, health: Health) -> Infallible {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let health = health.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (status, text) = health.answer(request.uri().path());
                let mut response = Response::new(format!("{text}\n"));
                *response.status_mut() = status;
                async { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            if !matches!(timeout(PATIENCE, connection).await, Ok(Ok(()))) {
                debug!("a health check broke off");
            }
            drop(place);
        });
    }
}
