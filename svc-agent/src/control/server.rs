//! Accepts connections, within limits: whoever misbehaves here does not disturb the agent.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use super::access::{Access, Rights};
use super::patient::Patient;
use super::peer::Peer;
use super::routes::{busy, routes};
use super::{Socket, View};

/// Limits, as constants of their own so that tests need not wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections that are served.
    pub connections: usize,
    /// Connections beyond that, or of peers without rights, that get an answer saying so.
    pub refusals: usize,
    /// For the head of a request, also the next one; and for a reader to take something.
    pub patience: Duration,
    /// For a refused connection as a whole.
    pub refusal: Duration,
    /// How often is looked whether the socket's file is there.
    pub look: Duration,
    /// For open connections after the shutdown.
    pub farewell: Duration,
}

impl Limits {
    pub(super) const USUAL: Self = Self {
        connections: 64,
        refusals: 8,
        patience: Duration::from_secs(10),
        refusal: Duration::from_secs(2),
        look: Duration::from_secs(5),
        farewell: Duration::from_secs(1),
    };
}

/// Bytes of a request's head.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Serves until `shutdown` ends; the socket's file goes away with it.
///
/// # Errors
/// If the runtime does not take the socket.
pub async fn serve(socket: Socket, view: Arc<dyn View>, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    serve_within(Limits::USUAL, socket, view, shutdown).await
}

pub(super) async fn serve_within(
    limits: Limits,
    socket: Socket,
    view: Arc<dyn View>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut socket = socket;
    let mut listener = UnixListener::from_std(socket.listener.try_clone()?)?;
    let mut look = interval(limits.look);
    let (closing, closed) = watch::channel(false);
    let door = Door {
        access: socket.access,
        served: Arc::new(Semaphore::new(limits.connections)),
        refused: Arc::new(Semaphore::new(limits.refusals)),
    };
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            _ = look.tick() => {
                match socket.restore() {
                    Ok(false) => {}
                    Ok(true) => {
                        tracing::warn!(path = %socket.path().display(), "somebody removed the control socket; made it again");
                        listener = UnixListener::from_std(socket.listener.try_clone()?)?;
                    }
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "cannot make the control socket again; trying again");
                    }
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Some(admission) = door.admit(&stream, &view) {
                    connections.spawn(converse(stream, admission, limits, closed.clone()));
                }
            }
            Err(error) => {
                // Usually: no file descriptor left. The pause keeps the loop from spinning until there is one.
                tracing::warn!(%error, "cannot accept a connection on the control socket");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    closing.send_replace(true);
    let farewell = async { while connections.join_next().await.is_some() {} };
    drop(timeout(limits.farewell, farewell).await);
    connections.shutdown().await;
    drop(socket);
    Ok(())
}

/// Decides about each connection at once, before a byte is read from it.
struct Door {
    access: Access,
    served: Arc<Semaphore>,
    refused: Arc<Semaphore>,
}

/// How a connection is treated.
struct Admission {
    routes: Router,
    /// One request, little time.
    brief: bool,
    permit: OwnedSemaphorePermit,
}

impl Door {
    /// `None` hangs up: so many are waiting to be told off that nobody listens.
    fn admit(&self, stream: &UnixStream, view: &Arc<dyn View>) -> Option<Admission> {
        let rights = match Peer::of(stream) {
            Ok(peer) => self.access.rights(&peer),
            Err(error) => {
                tracing::warn!(%error, "cannot tell who is at the other end of a control connection");
                return None;
            }
        };
        if rights > Rights::None
            && let Ok(permit) = self.served.clone().try_acquire_owned()
        {
            return Some(Admission { routes: routes(view.clone(), rights), brief: false, permit });
        }
        let permit = self.refused.clone().try_acquire_owned().ok()?;
        let routes = if rights > Rights::None { busy() } else { routes(view.clone(), rights) };
        Some(Admission { routes, brief: true, permit })
    }
}

async fn converse(stream: UnixStream, admission: Admission, limits: Limits, mut closed: watch::Receiver<bool>) {
    let Admission { routes, brief, permit } = admission;
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.patience)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(!brief)
        .serve_connection(TokioIo::new(Patient::new(stream, limits.patience)), TowerToHyperService::new(routes));
    tokio::pin!(connection);
    let conversation = async {
        tokio::select! {
            ended = &mut connection => return ended,
            _ = closed.wait_for(|closing| *closing) => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    let ended = if brief { timeout(limits.refusal, conversation).await.unwrap_or(Ok(())) } else { conversation.await };
    if let Err(error) = ended {
        tracing::debug!(%error, "a control connection broke off");
    }
    drop(permit);
}
