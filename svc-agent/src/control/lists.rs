//! The answers that are one document.

use std::sync::Arc;

use anyhow::Context;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::{Deserialize, IgnoredAny};

use super::View;
use super::api::{List, ObjectFilter, TraceRequest};
use super::routes::{Query, internal};

type Agent = State<Arc<dyn View>>;

/// `/v1/status`
pub async fn status(State(view): Agent, _: Query<Nothing>) -> Response {
    answer(move || view.status()).await
}

/// `/v1/services`
pub async fn services(State(view): Agent, Query(filter): Query<ObjectFilter>) -> Response {
    answer(move || {
        Ok(list(view.services(&filter)?, &filter, |service| filter.matches(&service.namespace, &service.name)))
    })
    .await
}

/// `/v1/endpoints`
pub async fn endpoints(State(view): Agent, Query(filter): Query<ObjectFilter>) -> Response {
    answer(move || {
        Ok(list(view.endpoints(&filter)?, &filter, |service| filter.matches(&service.namespace, &service.name)))
    })
    .await
}

/// `/v1/backends`
pub async fn backends(State(view): Agent, Query(filter): Query<ObjectFilter>) -> Response {
    answer(move || {
        let any = filter.namespace.is_none() && filter.service.is_none();
        Ok(list(view.backends(&filter)?, &filter, |backend| match &backend.service {
            Some(service) => filter.matches(&service.namespace, &service.name),
            None => any,
        }))
    })
    .await
}

/// `/v1/devices`
pub async fn devices(State(view): Agent, _: Query<Nothing>) -> Response {
    answer(move || Ok(List { items: view.devices()? })).await
}

/// `/v1/trace`. It changes nothing, but loads programs: for those who may change.
pub async fn trace(State(view): Agent, Query(request): Query<TraceRequest>) -> Response {
    answer(move || view.trace(&request)).await
}

/// No query parameters.
#[derive(Debug)]
pub struct Nothing;

impl<'de> Deserialize<'de> for Nothing {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = std::collections::BTreeMap::<String, IgnoredAny>::deserialize(deserializer)?;
        match found.keys().next() {
            None => Ok(Self),
            Some(key) => Err(serde::de::Error::custom(format!("unknown field `{key}`, there are none here"))),
        }
    }
}

fn list<T>(items: Vec<T>, filter: &ObjectFilter, wanted: impl Fn(&T) -> bool) -> List<T> {
    List { items: items.into_iter().filter(wanted).take(filter.limit.unwrap_or(usize::MAX)).collect() }
}

/// Asks the agent where blocking is allowed.
async fn answer<T: Serialize + Send + 'static>(ask: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> Response {
    let answer = tokio::task::spawn_blocking(ask).await.context("the agent could not answer").flatten();
    match answer {
        Ok(document) => Json(document).into_response(),
        Err(error) => internal(&error),
    }
}
