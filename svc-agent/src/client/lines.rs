//! A stream of documents, one per line.

use std::marker::PhantomData;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::ClientError;
use crate::control::api::Failure;

/// The documents of an answer, in constant memory.
#[derive(Debug)]
pub struct Lines<T> {
    body: Incoming,
    /// What has come, without the lines that were taken.
    buffer: Vec<u8>,
    /// Where the next line begins in `buffer`.
    start: usize,
    /// Up to where `buffer` is known to have no line end.
    searched: usize,
    documents: PhantomData<T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, buffer: Vec::new(), start: 0, searched: 0, documents: PhantomData }
    }

    /// The next document; `None` after the last one.
    ///
    /// # Errors
    /// If the stream breaks off, or the agent says that it could not go on.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            let fresh = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(len) = fresh.iter().position(|byte| *byte == b'\n') {
                let end = self.searched + len;
                let line = self.buffer.get(self.start..end).unwrap_or_default();
                let document = parse(line);
                self.start = end + 1;
                self.searched = self.start;
                return document.map(Some);
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            self.searched = self.buffer.len();
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(error)) => return Err(ClientError::broken(error)),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(ClientError::Broken("the last line is cut short".into())),
            }
        }
    }
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(line).map_err(|error| match serde_json::from_slice::<Failure>(line) {
        Ok(failure) => ClientError::Refused { status: 500, error: failure.error },
        Err(_) => ClientError::broken(error),
    })
}
