//! What handlers share: the body of a request as JSON, who the client is, streams of JSON as responses.

use std::time::Duration;

use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::error::{ApiError, Kind};

/// Bytes of a body, at most.
pub const MAX_BODY: usize = 32 << 20;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);

/// A request's JSON, whatever its `Content-Type` says.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read(request.into_body()).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(ApiError::invalid("missing request body"));
        }
        serde_json::from_slice(&bytes).map(Body).map_err(|e| ApiError::invalid(format!("the body is wrong: {e}")))
    }
}

async fn read(body: HttpBody) -> Result<Bytes, ApiError> {
    let reading = axum::body::to_bytes(body, MAX_BODY);
    match tokio::time::timeout(BODY_TIME, reading).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(ApiError::new(
            Kind::TooLarge,
            format!("the body ended early or is larger than {} MiB: send less", MAX_BODY >> 20),
        )),
        Err(_) => Err(ApiError::new(Kind::Slow, "the body did not arrive within a minute")),
    }
}

/// Whether a request came over loopback or a Unix socket; the server puts it among the request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Near(pub(crate) bool);

/// Who asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Client {
    /// A program on this machine that is no browser: it may name models by path.
    pub any_path: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let near = parts.extensions.get::<Near>().is_some_and(|n| n.0);
        // Browsers send at least one of these with every request that a page makes.
        let browser = [header::ORIGIN.as_str(), header::REFERER.as_str(), "sec-fetch-site", "sec-fetch-mode"];
        Ok(Client { any_path: near && !browser.iter().any(|name| parts.headers.contains_key(*name)) })
    }
}

/// One JSON object.
pub(crate) fn json(value: &Json) -> Response {
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], value.to_string()).into_response()
}

/// One JSON object to a line, as they come.
pub(crate) fn ndjson(stream: impl Stream<Item = Json> + Send + 'static) -> Response {
    let lines = stream.map(|value| Ok::<_, std::convert::Infallible>(format!("{value}\n")));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], HttpBody::from_stream(lines)).into_response()
}
