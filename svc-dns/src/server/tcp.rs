//! Requests over connections, within limits: whoever holds connections holds up nobody else (RFC 7766).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{Backlog, SockProtocol, SockType, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::respond::{Begun, Responder};
use super::socket;
use crate::message::Transport;

/// Connections at a time, of all clients and of one.
const MAX_CONNECTIONS: (usize, usize) = (512, 64);
/// For the next request, and for the client to take a response.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be accepted, usually for want of file descriptors.
const AGAIN: Duration = Duration::from_millis(100);

/// A TCP socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
}

/// How many connections each client has.
#[derive(Debug, Default)]
pub struct Door(Mutex<HashMap<IpAddr, usize>>);

/// A connection that was let in.
struct Admission {
    door: Arc<Door>,
    client: IpAddr,
}

impl Door {
    fn admit(self: &Arc<Self>, client: IpAddr) -> Option<Admission> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = clients.values().sum();
        let own = clients.get(&client).copied().unwrap_or(0);
        if all >= MAX_CONNECTIONS.0 || own >= MAX_CONNECTIONS.1 {
            return None;
        }
        clients.insert(client, own + 1);
        Some(Admission { door: self.clone(), client })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut clients = self.door.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = clients.get(&self.client).copied().unwrap_or(0);
        if own > 1 {
            clients.insert(self.client, own - 1);
        } else {
            clients.remove(&self.client);
        }
    }
}

impl Listener {
    /// Opens it.
    ///
    /// # Errors
    /// If it cannot be opened or bound.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let fd: OwnedFd = socket::open(address, SockType::Stream, SockProtocol::Tcp)?;
        listen(&fd, Backlog::new(128)?)?;
        Ok(Self { socket: TcpListener::from_std(fd.into())? })
    }

    /// Serves until `closing`; ends when everything is answered.
    pub async fn serve(self, responder: Arc<Responder>, door: Arc<Door>, mut closing: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                _ = closing.wait_for(|closing| *closing) => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, client)) => match door.admit(client.ip()) {
                    Some(admission) => {
                        connections.spawn(converse(stream, admission, responder.clone(), closing.clone()));
                    }
                    None => debug!(%client, "has too many connections, or all have"),
                },
                Err(error) => {
                    warn!(%error, "cannot accept a connection; trying again");
                    sleep(AGAIN).await;
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }
}

async fn converse(
    mut stream: TcpStream,
    admission: Admission,
    responder: Arc<Responder>,
    mut closing: watch::Receiver<bool>,
) {
    loop {
        let request = tokio::select! {
            _ = closing.wait_for(|closing| *closing) => break,
            request = timeout(PATIENCE, read(&mut stream)) => request,
        };
        let Ok(Ok(request)) = request else { break };
        let response = match responder.begin(&request, Transport::Tcp) {
            Begun::Nothing => break,
            Begun::Response(response) => response,
            Begun::Waits(request) => responder.wait(*request).await,
        };
        if !matches!(timeout(PATIENCE, write(&mut stream, &response)).await, Ok(Ok(()))) {
            break;
        }
    }
    drop(admission);
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut request = vec![0; usize::from(len)];
    stream.read_exact(&mut request).await?;
    Ok(request)
}

async fn write(stream: &mut TcpStream, response: &[u8]) -> io::Result<()> {
    let len = u16::try_from(response.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes()[..], response].concat()).await
}
