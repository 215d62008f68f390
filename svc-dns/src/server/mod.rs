//! Sockets: takes requests, and sees that each gets its answer.

mod datagram;
mod respond;
mod socket;
mod tcp;
mod udp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use respond::{Begun, Responder};

/// For requests that are being answered at the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Sockets that are open, and not yet read from.
#[derive(Debug)]
pub struct Listeners {
    udp: Vec<udp::Listener>,
    tcp: Vec<tcp::Listener>,
}

impl Listeners {
    /// Opens a UDP and a TCP socket at each address.
    ///
    /// # Errors
    /// If one is taken, is not an address of this machine, or needs a right that is missing.
    pub fn bind(addresses: &[SocketAddr]) -> anyhow::Result<Self> {
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for address in addresses {
            let advice = || {
                let port = address.port();
                let right = if port < 1024 { "; ports below 1024 need CAP_NET_BIND_SERVICE" } else { "" };
                format!(
                    "cannot listen at `{address}`: is another name server there, or is it another machine's address?{right}"
                )
            };
            udp.push(udp::Listener::bind(*address).with_context(advice)?);
            tcp.push(tcp::Listener::bind(*address).with_context(advice)?);
        }
        Ok(Self { udp, tcp })
    }

    /// Serves until `closing` says true or is gone, then answers what was asked before.
    pub async fn serve(self, responder: Arc<Responder>, closing: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        for listener in self.udp {
            tasks.spawn(listener.serve(responder.clone(), closing.clone()));
        }
        let door = Arc::new(tcp::Door::default());
        for listener in self.tcp {
            tasks.spawn(listener.serve(responder.clone(), door.clone(), closing.clone()));
        }
        let mut closing = closing;
        drop(closing.wait_for(|closing| *closing).await);
        let _answered = timeout(FAREWELL, async { while tasks.join_next().await.is_some() {} }).await;
    }
}
