//! `/v1/objects`: see, follow and change the objects of the sources.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures::stream::unfold;
use tokio::time::timeout;

use super::View;
use super::api::{ChangeQuery, ObjectQuery};
use super::catalog::{Catalog, Change, changes};
use super::routes::{MAX_BODY_BYTES, Query, failure, internal};
use crate::model::text::{dns_label, dns_subdomain};
use crate::model::{ObjectKey, ObjectKind};
use crate::sources::applied::{Options, Refusal};

/// For the body of a request to come.
const PATIENCE: Duration = Duration::from_secs(10);

type Agent = State<Arc<dyn View>>;

/// `GET /v1/objects`
pub async fn show(State(view): Agent, Query(query): Query<ObjectQuery>) -> Response {
    let catalog = view.catalog();
    if !query.watch {
        // Ten thousand objects are more than a moment's work.
        let listed = tokio::task::spawn_blocking(move || catalog.list(&query)).await;
        return match listed {
            Ok(Ok(list)) => Json(list).into_response(),
            Ok(Err(text)) => failure(StatusCode::BAD_REQUEST, text).into_response(),
            Err(error) => internal(&error.into()),
        };
    }
    let follower = match catalog.follow(query) {
        Ok(follower) => follower,
        Err(text) => return failure(StatusCode::BAD_REQUEST, text).into_response(),
    };
    let lines = unfold(follower, |mut follower| async {
        let mut lines = Vec::new();
        for event in follower.next().await? {
            lines.append(&mut serde_json::to_vec(&event).unwrap_or_default());
            lines.push(b'\n');
        }
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(lines)), follower))
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// `POST /v1/objects`
pub async fn apply(State(view): Agent, Query(query): Query<ChangeQuery>, request: Request) -> Response {
    match body(request).await {
        Ok(text) => change(view.catalog(), Change::Apply(text), query).await,
        Err(refused) => refused,
    }
}

/// `DELETE /v1/objects`, with a body that names the objects
pub async fn delete_named(State(view): Agent, Query(query): Query<ChangeQuery>, request: Request) -> Response {
    match body(request).await {
        Ok(text) => change(view.catalog(), Change::DeleteNamed(text), query).await,
        Err(refused) => refused,
    }
}

/// `DELETE /v1/objects/KIND/NAMESPACE/NAME`
pub async fn delete(
    State(view): Agent,
    Path((kind, namespace, name)): Path<(String, String, String)>,
    Query(query): Query<ChangeQuery>,
) -> Response {
    let key = ObjectKind::named(&kind).and_then(|kind| {
        dns_label(&namespace)?;
        dns_subdomain(&name)?;
        let namespace = if kind.is_namespaced() { namespace } else { String::new() };
        Ok(ObjectKey { kind, namespace, name })
    });
    match key {
        Ok(key) => change(view.catalog(), Change::Delete(key), query).await,
        Err(text) => failure(StatusCode::BAD_REQUEST, text).into_response(),
    }
}

async fn body(request: Request) -> Result<Vec<u8>, Response> {
    let max = usize::try_from(MAX_BODY_BYTES).unwrap_or(usize::MAX);
    match timeout(PATIENCE, to_bytes(request.into_body(), max)).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(error)) => {
            let text = format!("cannot read the body, which may have at most {MAX_BODY_BYTES} bytes: {error}");
            Err(failure(StatusCode::PAYLOAD_TOO_LARGE, text).into_response())
        }
        Err(_) => {
            let text = format!("the body did not come within {} s", PATIENCE.as_secs());
            Err(failure(StatusCode::REQUEST_TIMEOUT, text).into_response())
        }
    }
}

async fn change(catalog: Catalog, change: Change, query: ChangeQuery) -> Response {
    let options = Options {
        namespace: query.namespace,
        source: query.source,
        dry_run: query.dry_run,
        create: query.create,
        ignore_missing: query.ignore_not_found,
    };
    let dry_run = options.dry_run;
    // Files are written and synchronised. Whoever hangs up meanwhile does not stop it half way.
    let worker = catalog.clone();
    let done = tokio::task::spawn_blocking(move || worker.change(&change, &options)).await;
    match done {
        Ok(Ok(outcomes)) => {
            if !dry_run {
                catalog.settle(&outcomes).await;
            }
            Json(changes(outcomes, dry_run)).into_response()
        }
        Ok(Err(Err(elsewhere))) => {
            let (status, answer) = failure(StatusCode::METHOD_NOT_ALLOWED, elsewhere);
            (status, [(ALLOW, "GET, HEAD")], answer).into_response()
        }
        Ok(Err(Ok(refusal))) => {
            let status = match &refusal {
                Refusal::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
                Refusal::Conflict(_) => StatusCode::CONFLICT,
                Refusal::NotFound(_) => StatusCode::NOT_FOUND,
                Refusal::Failed(error) => return internal(error),
            };
            failure(status, refusal.to_string()).into_response()
        }
        Err(error) => internal(&error.into()),
    }
}
