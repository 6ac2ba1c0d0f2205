//! What handlers share: the body of a request as JSON, who the client is, one JSON object as a response.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use crate::engine::error::{ApiError, Kind};

/// Bytes of a body, at most.
pub const MAX_BODY: usize = 32 << 20;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);

/// A request's JSON, whatever its `Content-Type` says.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        parse(&read_object(request.into_body()).await?).map(Body)
    }
}

/// One object whose fields two structs describe: what several requests have in common, and the rest. Serde's `flatten`
/// would do the same, but its errors no longer know in which field they happened.
#[derive(Debug)]
pub(crate) struct Bodies<A, B>(pub(crate) A, pub(crate) B);

impl<S: Send + Sync, A: DeserializeOwned, B: DeserializeOwned> FromRequest<S> for Bodies<A, B> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read_object(request.into_body()).await?;
        Ok(Bodies(parse(&bytes)?, parse(&bytes)?))
    }
}

/// JSON as a type; errors name the field.
///
/// # Errors
/// What is no JSON, or of the wrong type.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::invalid("missing request body"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let (mut path, what) = (error.path().to_string(), error.inner().to_string());
        if ["", ".", "?"].contains(&path.as_str()) {
            path.clear();
        }
        // A missing field's place is that of the object which lacks it.
        let missing = what.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        let field = match (missing, path.as_str()) {
            (None, path) => path.to_owned(),
            (Some(name), "") => name.to_owned(),
            (Some(name), path) => format!("{path}.{name}"),
        };
        match field.as_str() {
            "" => ApiError::invalid(format!("the body is wrong: {what}")),
            field => ApiError::param(field, format!("{field}: {what}")),
        }
    })?;
    reader.end().map_err(|e| ApiError::invalid(format!("the body is wrong: {e}")))?;
    Ok(value)
}

/// A body that may be an object. A list would be read as an object's fields in their order, without their names.
async fn read_object(body: HttpBody) -> Result<Bytes, ApiError> {
    let bytes = read(body).await?;
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(ApiError::invalid("the body is wrong: invalid type: a list, expected an object"));
    }
    Ok(bytes)
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
pub(crate) struct Loopback(pub(crate) bool);

/// Who asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Client {
    /// A program on this machine that is no browser: it may name models by path.
    pub any_path: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let near = parts.extensions.get::<Loopback>().is_some_and(|n| n.0);
        // Browsers send at least one of these with every request that a page makes.
        let browser = [header::ORIGIN.as_str(), header::REFERER.as_str(), "sec-fetch-site", "sec-fetch-mode"];
        Ok(Client { any_path: near && !browser.iter().any(|name| parts.headers.contains_key(*name)) })
    }
}

/// One JSON object.
pub(crate) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], text).into_response(),
        Err(error) => ApiError::new(Kind::Internal, format!("the answer has no JSON form: {error}")).into_response(),
    }
}

/// The JSON of plain data, which always has one.
pub(crate) fn to_json(value: &impl Serialize) -> Json {
    serde_json::to_value(value).unwrap_or_default()
}

/// Both structs' fields, as one object.
impl<A: ToSchema, B: ToSchema> PartialSchema for Bodies<A, B> {
    fn schema() -> RefOr<Schema> {
        let (RefOr::T(Schema::Object(mut all)), RefOr::T(Schema::Object(more))) = (A::schema(), B::schema()) else {
            return A::schema();
        };
        all.properties.extend(more.properties);
        all.required.extend(more.required);
        all.description = more.description;
        all.into()
    }
}

impl<A: ToSchema, B: ToSchema> ToSchema for Bodies<A, B> {
    fn name() -> Cow<'static, str> {
        format!("{}With{}", B::name(), A::name()).into()
    }

    fn schemas(all: &mut Vec<(String, RefOr<Schema>)>) {
        A::schemas(all);
        B::schemas(all);
    }
}
