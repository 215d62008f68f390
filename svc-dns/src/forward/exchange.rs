//! One question to one server: from a port of its own, with an id that nobody can guess.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::op::{Edns, Message, MessageType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::Asking;
use crate::message::MAX_UDP_BYTES;

/// Why a server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It said nothing.
    #[error("no answer in time")]
    Silent,
    /// It cannot be reached.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It said something that is no answer.
    #[error("what it answers is broken: {0}")]
    Broken(String),
}

/// Asks over UDP, and over TCP if the answer does not fit. Waits for as long as the caller does.
pub async fn ask(server: SocketAddr, asking: &Asking) -> Result<Message, Failure> {
    let query = query(asking);
    let bytes = query.to_vec().map_err(|error| Failure::Broken(error.to_string()))?;
    let answer = over_udp(server, &query, &bytes).await?;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    over_tcp(server, &query, &bytes).await
}

fn query(asking: &Asking) -> Message {
    // The id is random.
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.metadata.checking_disabled = asking.unchecked;
    // Asks whether the answer was validated (RFC 6840 section 5.7).
    query.metadata.authentic_data = true;
    query.add_query(asking.question.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP_BYTES as u16).set_version(0).set_dnssec_ok(asking.dnssec);
    query.set_edns(edns);
    query
}

async fn over_udp(server: SocketAddr, query: &Message, bytes: &[u8]) -> Result<Message, Failure> {
    // The kernel chooses a port at random, and lets in only what comes from the server.
    let any = if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let any: SocketAddr = any;
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let len = socket.recv(&mut buffer).await?;
        let received = buffer.get(..len).unwrap_or_default();
        // Somebody may be guessing: what is not an answer to this question is not looked at.
        if received.get(..2) != bytes.get(..2) {
            continue;
        }
        match Message::from_vec(received) {
            Ok(answer) if answers(query, &answer) => return Ok(answer),
            Ok(_) => {}
            Err(error) => return Err(Failure::Broken(error.to_string())),
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &Message, bytes: &[u8]) -> Result<Message, Failure> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(bytes.len()).map_err(|error| Failure::Broken(error.to_string()))?;
    stream.write_all(&[&len.to_be_bytes()[..], bytes].concat()).await?;
    let len = stream.read_u16().await?;
    let mut received = vec![0; usize::from(len)];
    stream.read_exact(&mut received).await?;
    let answer = Message::from_vec(&received).map_err(|error| Failure::Broken(error.to_string()))?;
    if !answers(query, &answer) {
        return Err(Failure::Broken("it is not for this question".to_owned()));
    }
    Ok(answer)
}

/// It is the answer to this very question. A server that refuses may leave the question out.
fn answers(query: &Message, answer: &Message) -> bool {
    let same_question = answer.queries == query.queries;
    let refused = answer.queries.is_empty() && answer.answers.is_empty();
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == query.metadata.id
        && (same_question || refused)
}
