//! How something goes on that takes its time: the lines of `/api/pull`, `/api/push` and `/api/create`, or one object at the
//! end.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use ir_store::{Error, Event, Kind as StoreKind, Watcher};
use serde::Serialize;
use utoipa::ToSchema;

use super::OllamaError;
use crate::api::common::body as http;
use crate::api::common::stream::Frames;
use crate::engine::error::{ApiError, Kind};
use crate::models::PROGRESS_STEP;

/// A step, or how far one has come.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Step {
    /// Such as `pulling manifest`, `pulling 0123456789ab`, `success`.
    status: String,
    /// The file's digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// Its bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    /// Bytes of it that are here.
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<u64>,
}

impl From<Event> for Step {
    fn from(event: Event) -> Step {
        let Event { status, digest, total, completed } = event;
        Step { status, digest, total, completed }
    }
}

/// What happens, in its order; an error ends it.
pub(super) type Steps = BoxStream<'static, Result<Event, ApiError>>;

/// A step without figures.
pub(super) fn said(status: impl Into<String>) -> Event {
    Event { status: status.into(), ..Event::default() }
}

/// What a client is told of an error of the store.
pub(super) fn error(error: Error) -> ApiError {
    let kind = match error.kind {
        StoreKind::Name | StoreKind::Unsupported => Kind::Invalid,
        StoreKind::NotFound => Kind::NotFound,
        StoreKind::Denied => Kind::Unauthorized,
        StoreKind::Network => Kind::Unavailable,
        _ => Kind::Internal,
    };
    ApiError::new(kind, error.what)
}

/// The steps of what is watched. Figures that come quickly after each other are told in one.
pub(super) fn watched(watcher: Watcher) -> Steps {
    let next = |(mut watcher, wait): (Watcher, Duration)| async move {
        tokio::time::sleep(wait).await;
        let event = watcher.next().await?;
        let moving = event.as_ref().is_ok_and(|e| e.completed.is_some() && e.completed != e.total);
        Some((event.map_err(error), (watcher, if moving { PROGRESS_STEP } else { Duration::ZERO })))
    };
    unfold((watcher, Duration::ZERO), next).boxed()
}

/// Steps as lines, or their end as one object. Dropping the answer ends what it watches.
///
/// # Errors
/// What the steps end with, unless they are streamed.
pub(super) async fn answer(mut steps: Steps, stream: bool) -> Result<Response, ApiError> {
    if stream {
        let line = |event: Result<Event, ApiError>| {
            let mut out = Frames::default();
            match event {
                Ok(event) => out.line(&Step::from(event)),
                Err(error) => out.line(&OllamaError { error: &error.message }),
            }
            Ok::<_, Infallible>(out.into_text())
        };
        let body = Body::from_stream(steps.map(line));
        return Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response());
    }
    let mut last = said("success");
    while let Some(event) = steps.next().await {
        last = event?;
    }
    Ok(http::json(&Step::from(said(last.status))))
}
