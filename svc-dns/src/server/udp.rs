//! Requests in datagrams.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{SockProtocol, SockType, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::datagram::{self, Path};
use super::respond::{Begun, Responder};
use super::socket;
use crate::message::Transport;

/// The largest request: longer ones are cut off, and then make no sense.
const MAX_REQUEST_BYTES: usize = 4096;
/// How long to wait after the socket failed.
const AGAIN: Duration = Duration::from_millis(100);

/// A UDP socket.
#[derive(Debug)]
pub struct Listener {
    socket: Arc<UdpSocket>,
}

impl Listener {
    /// Opens it.
    ///
    /// # Errors
    /// If it cannot be opened or bound.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let fd = socket::open(address, SockType::Datagram, SockProtocol::Udp)?;
        if address.is_ipv4() {
            setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        Ok(Self { socket: Arc::new(UdpSocket::from_std(std::net::UdpSocket::from(fd))?) })
    }

    /// Serves until `closing`; ends when everything is answered.
    pub async fn serve(self, responder: Arc<Responder>, mut closing: watch::Receiver<bool>) {
        let mut waiting = JoinSet::new();
        let mut buffer = vec![0; MAX_REQUEST_BYTES];
        loop {
            let received = tokio::select! {
                _ = closing.wait_for(|closing| *closing) => break,
                Some(_) = waiting.join_next() => continue,
                received = self.socket.async_io(Interest::READABLE, || datagram::receive(&*self.socket, &mut buffer)) => received,
            };
            let (len, path) = match received {
                Ok(received) => received,
                Err(error) => {
                    warn!(%error, "cannot receive; trying again");
                    sleep(AGAIN).await;
                    continue;
                }
            };
            match responder.begin(buffer.get(..len).unwrap_or_default(), Transport::Udp) {
                Begun::Nothing => {}
                Begun::Response(bytes) => reply(&self.socket, &bytes, &path).await,
                Begun::Waits(request) => {
                    let (socket, responder) = (self.socket.clone(), responder.clone());
                    waiting.spawn(async move { reply(&socket, &responder.wait(*request).await, &path).await });
                }
            }
        }
        while waiting.join_next().await.is_some() {}
    }
}

/// A client that cannot be reached asks again, or is gone.
async fn reply(socket: &UdpSocket, bytes: &[u8], path: &Path) {
    if let Err(error) = socket.async_io(Interest::WRITABLE, || datagram::reply(socket, bytes, path)).await {
        debug!(client = %path.client, %error, "cannot answer");
    }
}
