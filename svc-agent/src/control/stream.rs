//! `/v1/flows`, `/v1/events` and `/v1/names`: one JSON document per line, as many as there are, in constant memory.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::stream::poll_fn;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::api::{EventFilter, Failure, Flow, FlowFilter, NamesLine};
use super::lists::Nothing;
use super::routes::{Query, internal};
use super::{View, named};
use crate::sources::Snapshot;

/// Lines are sent in pieces of about this size.
const CHUNK_BYTES: usize = 32 << 10;
/// So many pieces may wait for a slow client; then the walk through the table waits too.
const CHUNKS: usize = 4;
/// How often a client of `/v1/names` hears that nothing happens: it can tell a silent agent from a quiet one.
const BEAT: Duration = Duration::from_secs(5);

/// Answers with every connection that the filter wants. A walk that breaks off ends with a [`Failure`].
pub async fn flows(State(view): State<Arc<dyn View>>, Query(filter): Query<FlowFilter>) -> Response {
    let (sender, mut chunks) = mpsc::channel(CHUNKS);
    tokio::task::spawn_blocking(move || walk(&*view, &filter, &sender));
    // A walk that fails at its very start still gets its status code.
    let mut first = match chunks.recv().await {
        Some(Err(error)) => return internal(&error),
        Some(Ok(chunk)) => Some(chunk),
        None => None,
    };
    let body = Body::from_stream(poll_fn(move |cx| match first.take() {
        Some(chunk) => std::task::Poll::Ready(Some(Ok::<_, std::convert::Infallible>(chunk))),
        None => {
            chunks.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(chunk.unwrap_or_else(|error| last_line(&error)))))
        }
    }));
    ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Answers with one event after the other as they happen, for as long as the client stays.
pub async fn events(State(view): State<Arc<dyn View>>, Query(filter): Query<EventFilter>) -> Response {
    let mut events = match view.events(filter) {
        Ok(events) => events,
        Err(error) => return internal(&error),
    };
    let body = Body::from_stream(poll_fn(move |cx| {
        events.poll_recv(cx).map(|event| {
            let mut line = serde_json::to_vec(&*event?).unwrap_or_default();
            line.push(b'\n');
            Some(Ok::<_, std::convert::Infallible>(Bytes::from(line)))
        })
    }));
    ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Answers with every Service, then with what changes, for as long as the client stays.
pub async fn names(State(view): State<Arc<dyn View>>, _: Query<Nothing>) -> Response {
    let (sender, mut chunks) = mpsc::channel(CHUNKS);
    tokio::spawn(follow_names(view.snapshots(), sender));
    let body = Body::from_stream(poll_fn(move |cx| {
        chunks.poll_recv(cx).map(|chunk| chunk.map(Ok::<_, std::convert::Infallible>))
    }));
    ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

async fn follow_names(mut snapshots: watch::Receiver<Arc<Snapshot>>, sender: mpsc::Sender<Bytes>) {
    let mut known = Arc::default();
    loop {
        let now = snapshots.borrow_and_update().clone();
        let (before, out) = (std::mem::replace(&mut known, now.clone()), sender.clone());
        // Takes as long as the client does.
        let told = tokio::task::spawn_blocking(move || tell_names(&before, &now, &out)).await;
        if told.is_err() {
            return;
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            () = sleep(BEAT) => {}
            () = sender.closed() => return,
        }
    }
}

fn tell_names(before: &Snapshot, now: &Snapshot, sender: &mpsc::Sender<Bytes>) {
    let mut lines = Vec::new();
    named::changes(before, now, |line| {
        let last = matches!(line, NamesLine::Synced(_));
        // Such a line has nothing that JSON does not.
        lines.extend(serde_json::to_vec(&line).unwrap_or_default());
        lines.push(b'\n');
        let send = last || lines.len() >= CHUNK_BYTES;
        !send || sender.blocking_send(std::mem::take(&mut lines).into()).is_ok()
    });
}

fn walk(view: &dyn View, filter: &FlowFilter, sender: &mpsc::Sender<anyhow::Result<Bytes>>) {
    let mut left = filter.limit.unwrap_or(usize::MAX);
    let mut lines = Vec::with_capacity(CHUNK_BYTES);
    let mut failed = None;
    let mut visit = |flow: Flow| {
        if left == 0 {
            return ControlFlow::Break(());
        }
        if !filter.matches(&flow) {
            return ControlFlow::Continue(());
        }
        left -= 1;
        if let Err(error) = serde_json::to_writer(&mut lines, &flow) {
            failed = Some(anyhow::Error::from(error));
            return ControlFlow::Break(());
        }
        lines.push(b'\n');
        if lines.len() >= CHUNK_BYTES && sender.blocking_send(Ok(std::mem::take(&mut lines).into())).is_err() {
            // The client is gone.
            return ControlFlow::Break(());
        }
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let walked = view.flows(filter, &mut visit);
    let outcome = failed.map_or(walked, Err);
    // Sending fails only when the client is gone.
    if !lines.is_empty() && sender.blocking_send(Ok(lines.into())).is_err() {
        return;
    }
    if let Err(error) = outcome {
        drop(sender.blocking_send(Err(error)));
    }
}

fn last_line(error: &anyhow::Error) -> Bytes {
    let failure = Failure { error: format!("{error:#}") };
    serde_json::to_vec(&failure)
        .map(|mut line| {
            line.push(b'\n');
            line.into()
        })
        .unwrap_or_default()
}
