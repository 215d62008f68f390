//! The stream of names on the control socket: HTTP/1.1, one JSON document per line.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::lines::Line;

/// The longest line that is accepted: a headless Service with all its endpoints.
const MAX_LINE_BYTES: usize = 64 << 20;

/// The lines that the agent sends.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    /// Where the next line begins in `buffer`.
    start: usize,
}

/// What the agent says instead of a line.
#[derive(Debug, Deserialize)]
struct Failure {
    error: String,
}

impl Lines {
    /// Asks for them.
    pub async fn open(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).await.with_context(|| {
            format!(
                "cannot connect to `{}`; is the agent there, and this user in the socket's group?",
                socket.display()
            )
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the answer's body; what goes wrong with it is told there.
        tokio::spawn(connection);
        let request = Request::get("/v1/names").header(HOST, "localhost").body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await.context("the agent does not answer")?;
        let status = answer.status();
        let mut lines = Self { body: answer.into_body(), buffer: Vec::new(), start: 0 };
        if status.is_success() {
            return Ok(lines);
        }
        while lines.read().await? {}
        let reason = serde_json::from_slice::<Failure>(&lines.buffer).map(|failure| failure.error);
        bail!("the agent answers {status}: {}", reason.unwrap_or_default())
    }

    /// The next one.
    ///
    /// # Errors
    /// If there is none any more, or it makes no sense.
    pub async fn next(&mut self) -> anyhow::Result<Line> {
        let mut searched = self.start;
        loop {
            let fresh = self.buffer.get(searched..).unwrap_or_default();
            if let Some(len) = fresh.iter().position(|byte| *byte == b'\n') {
                let end = searched + len;
                let line = parse(self.buffer.get(self.start..end).unwrap_or_default());
                self.start = end + 1;
                return line;
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            searched = self.buffer.len();
            ensure!(searched <= MAX_LINE_BYTES, "the agent sends a line of more than {MAX_LINE_BYTES} bytes");
            ensure!(self.read().await?, "the agent has ended the connection");
        }
    }

    /// Reads a piece; false at the end.
    async fn read(&mut self) -> anyhow::Result<bool> {
        let Some(frame) = self.body.frame().await else { return Ok(false) };
        self.buffer
            .extend_from_slice(frame.context("the connection to the agent broke")?.data_ref().map_or(&[], |data| data));
        Ok(true)
    }
}

fn parse(line: &[u8]) -> anyhow::Result<Line> {
    serde_json::from_slice(line)
        .with_context(|| format!("cannot understand the agent: `{}`", String::from_utf8_lossy(line)))
}
