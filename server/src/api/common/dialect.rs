//! [`Dialect`]: how an API writes errors, and which addresses are its own. Each API has one beside its routes.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value as Json;

use crate::engine::error::{ApiError, Kind};

/// How an API writes errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    /// Addresses whose errors are written so, those below them included; of several that fit the longest counts.
    pub(crate) paths: &'static [&'static str],
    /// The JSON of an error.
    pub(crate) body: fn(&ApiError) -> Json,
}

impl Dialect {
    /// Bytes of the longest of its addresses that `path` is, or lies below.
    pub(crate) fn fits(&self, path: &str) -> Option<usize> {
        let below = |own: &str| path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.paths.iter().filter(|own| below(own)).map(|own| own.len()).max()
    }

    /// The whole response to a request that failed.
    pub(crate) fn response(&self, error: &ApiError) -> Response {
        let json = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (status(error.kind), json, (self.body)(error).to_string()).into_response();
        if error.kind == Kind::Busy {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

/// The status that an error is sent with.
pub(crate) fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid | Kind::ContextLength { .. } => StatusCode::BAD_REQUEST,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Method => StatusCode::METHOD_NOT_ALLOWED,
        Kind::Slow => StatusCode::REQUEST_TIMEOUT,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Busy | Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        Kind::Deadline => StatusCode::GATEWAY_TIMEOUT,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The response carries the error; the router's outermost layer writes the body in the dialect of the address.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = status(self.kind).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The errors of an API's addresses for its OpenAPI file, all of one form: the statuses that [`status`] gives.
macro_rules! error_responses {
    ($(#[$doc:meta])* $name:ident: $body:ty) => {
        $(#[$doc])*
        #[derive(Debug, utoipa::IntoResponses)]
        #[expect(dead_code, reason = "describes what the router writes")]
        pub(crate) enum $name {
            /// The request is wrong.
            #[response(status = 400)]
            Invalid(#[to_schema] $body),
            /// A key is needed.
            #[response(status = 401)]
            Unauthorized(#[to_schema] $body),
            /// There is no such model.
            #[response(status = 404)]
            NotFound(#[to_schema] $body),
            /// The body is too large.
            #[response(status = 413)]
            TooLarge(#[to_schema] $body),
            /// The server failed.
            #[response(status = 500)]
            Internal(#[to_schema] $body),
            /// Known, and not built.
            #[response(status = 501)]
            NotImplemented(#[to_schema] $body),
            /// The queue is full: ask again later.
            #[response(status = 503)]
            Busy(#[to_schema] $body),
            /// The request took longer than its deadline.
            #[response(status = 504)]
            Deadline(#[to_schema] $body),
        }
    };
}
pub(crate) use error_responses;
