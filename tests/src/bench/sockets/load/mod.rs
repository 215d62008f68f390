//! The load: a server and a client that do the same for every contender, and as little as they can.
//!
//! Both are processes of `svc-testload`, in the namespace of their pod and in a control group of their own, so that the
//! socket hooks see them and their CPU time can be told from that of everything else. Both stay on one CPU: there is no
//! waiting for another CPU to wake up, so what a question takes is what it costs, on both sides and in between.

mod ask;
mod process;
mod serve;

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};
use serde::{Deserialize, Serialize};

pub use ask::answer_questions;
pub use process::{Client, Server};
pub use serve::serve;

/// Port of the server, TCP and UDP.
pub const PORT: u16 = 8080;
/// Bytes of a question and of an answer.
const MESSAGE: usize = 64;
/// Datagrams that are sent before one is answered.
const BURST: u64 = 64;
/// First byte of a datagram that is answered; others are only counted.
const ANSWER_ME: u8 = b'a';
/// First byte of a connection that ends with its first answer.
const ONCE: u8 = b'o';
/// First byte of a connection on which each message is answered.
const ECHO: u8 = b'e';
/// First byte of a connection that is only read, and answered with the number of bytes at its end.
const SINK: u8 = b's';

/// What a client does until its time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Connect, ask, read the answer, close.
    Connections,
    /// Ask and read the answer, again and again on one connection.
    TcpRequests,
    /// The same from one UDP socket.
    UdpRequests,
    /// Send as much as goes through one connection.
    Stream,
    /// Send datagrams, of which only the last one of a burst is answered.
    Datagrams,
}

impl Task {
    /// Every one, in the order in which they are measured.
    pub const ALL: [Self; 5] = [Self::Connections, Self::TcpRequests, Self::UdpRequests, Self::Stream, Self::Datagrams];

    /// Whether it goes over UDP.
    pub fn is_udp(self) -> bool {
        matches!(self, Self::UdpRequests | Self::Datagrams)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connections => "connections",
            Self::TcpRequests => "tcp",
            Self::UdpRequests => "udp",
            Self::Stream => "stream",
            Self::Datagrams => "datagrams",
        })
    }
}

impl FromStr for Task {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|task| task.to_string() == text);
        found.with_context(|| format!("found the task `{text}`, expected connections, tcp, udp, stream or datagrams"))
    }
}

/// What came of a task.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Connections, questions, datagrams, or bytes of a stream.
    pub count: u64,
    /// How many there were in a second.
    pub rate: f64,
    /// The time that half of the questions took at most, where each was timed.
    pub p50_us: f64,
    /// The time that 99 of 100 questions took at most.
    pub p99_us: f64,
}

/// What a process of the load says on its standard output for each line that it reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Answer {
    Done(Outcome),
    Failed(String),
}

impl Answer {
    fn into_result(self) -> Result<Outcome> {
        match self {
            Self::Done(outcome) => Ok(outcome),
            Self::Failed(why) => bail!(why),
        }
    }
}
