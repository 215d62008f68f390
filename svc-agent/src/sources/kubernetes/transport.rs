//! How requests reach an API server: a trait, so that tests need neither network nor time.

use std::io;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hyper::body::Bytes;

use super::servers::Server;

/// What is done to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads it, lists it or watches it.
    Get,
    /// Makes it.
    Post,
    /// Changes it.
    Patch,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is done.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Type and content of the body, if there is one.
    pub body: Option<(&'static str, Vec<u8>)>,
}

impl Request {
    /// Reads what is at a path.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::Get, path: path.into(), body: None }
    }
}

/// An answer whose body is still coming.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, piece by piece.
    pub body: BoxStream<'static, io::Result<Bytes>>,
}

/// Sends requests.
pub trait Transport: Send + Sync + 'static {
    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// If there is none. The text holds no secret.
    fn send<'a>(&'a self, server: &'a Server, request: Request) -> BoxFuture<'a, anyhow::Result<Answer>>;
}
