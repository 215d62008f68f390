//! Paths, their parameters, and the answers to wrong ones.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Request};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{StatusCode, Uri, request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;

use super::access::{self, Rights};
use super::api::Failure;
use super::{View, lists, objects, stream};

const PATHS: &str = "/v1/status, /v1/objects, /v1/services, /v1/endpoints, /v1/backends, /v1/flows, /v1/devices, /v1/events, /v1/names, /v1/trace or /healthz";

/// The largest request body that is looked at.
pub const MAX_BODY_BYTES: u64 = 1 << 20;

/// The routes as one peer sees them.
pub fn routes(view: Arc<dyn View>, rights: Rights) -> Router {
    Router::new()
        .route("/healthz", get(healthy))
        .route("/v1/status", get(lists::status))
        .route("/v1/services", get(lists::services))
        .route("/v1/endpoints", get(lists::endpoints))
        .route("/v1/backends", get(lists::backends))
        .route("/v1/flows", get(stream::flows))
        .route("/v1/devices", get(lists::devices))
        .route("/v1/events", get(stream::events))
        .route("/v1/names", get(stream::names))
        .route("/v1/trace", post(lists::trace))
        .route("/v1/objects", get(objects::show).post(objects::apply).delete(objects::delete_named))
        .route("/v1/objects/{kind}/{namespace}/{name}", delete(objects::delete))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn(limit_body))
        .layer(middleware::from_fn(move |request: Request, next: Next| access::check(rights, request, next)))
        .with_state(view)
}

/// The only answer while all connections are in use.
pub fn busy() -> Router {
    Router::new().fallback(|| async {
        let text = "too many connections to the agent are open (svcctl events and svcctl get -w hold one each): end some, or \
                    try again later";
        failure(StatusCode::SERVICE_UNAVAILABLE, text)
    })
}

/// An answer that is not a success.
pub fn failure(status: StatusCode, error: impl Into<String>) -> (StatusCode, Json<Failure>) {
    (status, Json(Failure { error: error.into() }))
}

/// The answer when the agent cannot tell what was asked for.
pub fn internal(error: &anyhow::Error) -> Response {
    failure(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response()
}

/// The query parameters as `T`, 400 with a JSON body otherwise.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Response> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(QueryRejection::FailedToDeserializeQueryString(error)) => {
                let text = format!("cannot read the query `{}`: {error}", parts.uri.query().unwrap_or_default());
                Err(failure(StatusCode::BAD_REQUEST, text).into_response())
            }
            Err(other) => Err(failure(StatusCode::BAD_REQUEST, other.body_text()).into_response()),
        }
    }
}

async fn healthy() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "status": "ok" }))
}

async fn unknown_path(uri: Uri) -> impl IntoResponse {
    failure(StatusCode::NOT_FOUND, format!("there is no `{}`, expected {PATHS}", uri.path()))
}

async fn unknown_method(request: Request) -> impl IntoResponse {
    let expected = match request.uri().path() {
        "/v1/trace" => "POST",
        "/v1/objects" => "GET, POST or DELETE",
        path if path.starts_with("/v1/objects/") => "DELETE",
        _ => "GET",
    };
    let text = format!("found the method {} on `{}`, expected {expected}", request.method(), request.uri().path());
    failure(StatusCode::METHOD_NOT_ALLOWED, text)
}

async fn limit_body(request: Request, next: Next) -> Response {
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > MAX_BODY_BYTES) {
        let text = format!("the body may have at most {MAX_BODY_BYTES} bytes");
        return failure(StatusCode::PAYLOAD_TOO_LARGE, text).into_response();
    }
    next.run(request).await
}
