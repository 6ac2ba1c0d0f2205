//! [`ApiError`]: what a client did wrong or the server cannot do, as one sentence, and how each API writes it.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};

/// What kind of trouble it is; APIs name it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong: 400.
    Invalid,
    /// No key or a wrong one: 401.
    Unauthorized,
    /// Refused for where it comes from or what it names: 403.
    Forbidden,
    /// There is no such model or address: 404.
    NotFound,
    /// The address knows other methods: 405.
    Method,
    /// The body did not come in time: 408.
    Slow,
    /// The body is too large: 413.
    TooLarge,
    /// The queue is full: 503 with `Retry-After`.
    Busy,
    /// Shutting down, or a model is not ready: 503.
    Unavailable,
    /// Known, and not built yet: 501.
    NotImplemented,
    /// The request's deadline passed: 504.
    Deadline,
    /// A device or the server itself failed: 500.
    Internal,
}

/// An error for a client. A handler returns it as it is: the router writes it in the form of the API that was asked.
/// In the middle of a stream the handler writes [`ApiError::body`] itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind.
    pub kind: Kind,
    /// One sentence that says what to do.
    pub message: String,
    /// The request's field in question, where there is one: OpenAI's `param`.
    pub param: Option<String>,
}

/// Whose form an error is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// `{"error": "..."}`
    Ollama,
    /// `{"error": {"message", "type", "param", "code"}}`
    OpenAi,
    /// `{"type": "error", "error": {"type", "message"}}`
    Anthropic,
    /// `{"error": {"code", "message", "type"}}`
    LlamaServer,
}

impl Flavour {
    /// The API that an address belongs to.
    pub fn of_path(path: &str) -> Flavour {
        const LLAMA: [&str; 9] = [
            "/tokenize",
            "/detokenize",
            "/apply-template",
            "/props",
            "/health",
            "/v1/health",
            "/completion",
            "/slots",
            "/rerank",
        ];
        if path == "/v1/messages" || path.starts_with("/v1/messages/") {
            Flavour::Anthropic
        } else if LLAMA.contains(&path) {
            Flavour::LlamaServer
        } else if path.starts_with("/v1/") {
            Flavour::OpenAi
        } else {
            Flavour::Ollama
        }
    }
}

impl ApiError {
    /// An error of this kind with this sentence.
    pub fn new(kind: Kind, message: impl Into<String>) -> ApiError {
        ApiError { kind, message: message.into(), param: None }
    }

    /// A wrong request.
    pub fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(Kind::Invalid, message)
    }

    /// A wrong request, with the field that is wrong.
    pub fn param(name: &str, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(name.to_owned()), ..ApiError::invalid(message) }
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(Kind::NotFound, message)
    }

    /// No model of this name is known, as Ollama says it.
    pub fn no_model(name: &str) -> ApiError {
        ApiError::not_found(format!("model '{}' not found", cut(name, 200)))
    }

    /// The status it is sent with.
    pub fn status(&self) -> StatusCode {
        match self.kind {
            Kind::Invalid => StatusCode::BAD_REQUEST,
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

    /// Its JSON in the form of an API.
    pub fn body(&self, flavour: Flavour) -> Json {
        match flavour {
            Flavour::Ollama => json!({"error": self.message}),
            Flavour::OpenAi => {
                let (kind, code) = self.openai_type();
                json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": code}})
            }
            Flavour::Anthropic => {
                json!({"type": "error", "error": {"type": self.anthropic_type(), "message": self.message}})
            }
            Flavour::LlamaServer => {
                let code = self.status().as_u16();
                json!({"error": {"code": code, "message": self.message, "type": self.llama_type()}})
            }
        }
    }

    fn openai_type(&self) -> (&'static str, Option<&'static str>) {
        match self.kind {
            Kind::Invalid | Kind::TooLarge | Kind::Method | Kind::Slow => ("invalid_request_error", None),
            Kind::Unauthorized => ("invalid_request_error", Some("invalid_api_key")),
            Kind::Forbidden => ("permission_error", None),
            Kind::NotFound => ("not_found_error", Some("model_not_found")),
            Kind::Busy => ("server_error", Some("server_busy")),
            _ => ("api_error", None),
        }
    }

    fn anthropic_type(&self) -> &'static str {
        match self.kind {
            Kind::Unauthorized => "authentication_error",
            Kind::Forbidden => "permission_error",
            Kind::NotFound => "not_found_error",
            Kind::TooLarge => "request_too_large",
            Kind::Busy | Kind::Unavailable => "overloaded_error",
            Kind::Deadline => "timeout_error",
            Kind::Internal | Kind::NotImplemented => "api_error",
            Kind::Invalid | Kind::Method | Kind::Slow => "invalid_request_error",
        }
    }

    fn llama_type(&self) -> &'static str {
        match self.kind {
            Kind::Unauthorized => "authentication_error",
            Kind::Forbidden => "permission_error",
            Kind::NotFound => "not_found_error",
            Kind::Busy | Kind::Unavailable => "unavailable_error",
            Kind::NotImplemented => "not_supported_error",
            Kind::Internal | Kind::Deadline => "server_error",
            Kind::Invalid | Kind::Method | Kind::Slow | Kind::TooLarge => "invalid_request_error",
        }
    }

    /// The whole response, in the form of an API.
    pub fn response(&self, flavour: Flavour) -> Response {
        let mut response = (self.status(), [("content-type", "application/json")], self.body(flavour).to_string());
        if self.kind == Kind::Busy {
            return (response.0, [("content-type", "application/json"), ("retry-after", "1")], response.2)
                .into_response();
        }
        response.2.shrink_to_fit();
        response.into_response()
    }
}

/// The response carries the error; the router's outermost layer writes the body when it knows the address.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<ir_engine::error::Error> for ApiError {
    fn from(error: ir_engine::error::Error) -> ApiError {
        use ir_engine::error::Error;
        let kind = match &error {
            Error::Request(_) | Error::Template(_) | Error::Limit(_) | Error::Unsupported(_) => Kind::Invalid,
            _ => Kind::Internal,
        };
        ApiError::new(kind, error.to_string())
    }
}

/// The errors of an API's addresses for its OpenAPI file, all of one form: what [`ApiError::body`] writes.
macro_rules! error_responses {
    ($(#[$doc:meta])* $name:ident: $body:ident) => {
        $(#[$doc])*
        #[derive(Debug, utoipa::IntoResponses)]
        #[expect(dead_code, reason = "describes what ApiError::body writes")]
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

/// A text's first `n` characters, with an ellipsis where there were more: for sentences that quote a client.
pub(crate) fn cut(text: &str, n: usize) -> String {
    match text.char_indices().nth(n) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}
