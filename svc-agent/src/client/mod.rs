//! Speaks to the control socket of a running agent.

mod error;
mod lines;
mod query;

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::control::api::Failure;

pub use error::ClientError;
pub use lines::Lines;

/// For the agent to begin its answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest document that is accepted as one.
const MAX_DOCUMENT_BYTES: usize = 1 << 30;

/// A client of one control socket; each request has its own connection.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// For the socket at this path.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Gets one document, such as `/v1/status`; `filter` becomes the query.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str, filter: &impl Serialize) -> Result<T, ClientError> {
        Self::document(self.send(Method::GET, path, filter, Vec::new()).await?).await
    }

    async fn document<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T, ClientError> {
        let body = Limited::new(answer.into_body(), MAX_DOCUMENT_BYTES).collect().await;
        let body = body.map_err(ClientError::broken)?.to_bytes();
        serde_json::from_slice(&body).map_err(ClientError::broken)
    }

    /// Asks for one document that a change makes, such as `/v1/trace`; `parameters` becomes the query.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, parameters: &impl Serialize) -> Result<T, ClientError> {
        Self::document(self.send(Method::POST, path, parameters, Vec::new()).await?).await
    }

    /// Has the agent change something, such as `/v1/objects`: by POST or DELETE, with a body.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        parameters: &impl Serialize,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        Self::document(self.send(method, path, parameters, body).await?).await
    }

    /// Gets a stream of documents, one per line, such as `/v1/flows`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lines<T: DeserializeOwned>(
        &self,
        path: &str,
        filter: &impl Serialize,
    ) -> Result<Lines<T>, ClientError> {
        Ok(Lines::new(self.send(Method::GET, path, filter, Vec::new()).await?.into_body()))
    }

    /// Sends a request and waits for the head of a successful answer.
    async fn send(
        &self,
        method: Method,
        path: &str,
        filter: &impl Serialize,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let changes = method != Method::GET;
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|error| ClientError::connect(&self.socket, error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::broken)?;
        // Ends with the answer's body; what goes wrong with it is told there.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(query::target(path, filter)?)
            .header(HOST, "localhost")
            .body(Full::new(Bytes::from(body)))
            .map_err(ClientError::broken)?;
        let answer = timeout(PATIENCE, sender.send_request(request))
            .await
            .map_err(|_| ClientError::Broken(format!("no answer within {} s", PATIENCE.as_secs())))?
            .map_err(ClientError::broken)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.into_body().collect().await.map_err(ClientError::broken)?.to_bytes();
        let error = serde_json::from_slice::<Failure>(&body)
            .map_or_else(|_| String::from_utf8_lossy(&body).into_owned(), |failure| failure.error);
        if status == hyper::StatusCode::FORBIDDEN {
            return Err(ClientError::denied(&self.socket, changes));
        }
        Err(ClientError::Refused { status: status.as_u16(), error })
    }
}
