//! OpenAI's API: chats, completions, embeddings, the list of models. Its newer `/v1/responses` is in `responses`.

pub(crate) mod chat;
mod chat_answer;
mod completions;
mod completions_answer;
mod embeddings;
pub(crate) mod fields;
pub(crate) mod message;
mod models;
pub(crate) mod tools;
mod usage;

use axum::Router;
use axum::routing::{get, post};
use serde::Serialize;
use utoipa::{IntoResponses, OpenApi, ToSchema};

use crate::hub::Hub;

/// What every answer says of who made it.
const FINGERPRINT: &str = concat!("fp_ir_", env!("CARGO_PKG_VERSION"));

/// The routes.
pub(crate) fn routes() -> Router<Hub> {
    Router::new()
        .route("/v1/chat/completions", post(chat::chat_completions))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/models", get(models::models))
        .route("/v1/models/{*id}", get(models::model))
}

/// The addresses, described.
#[derive(Debug, OpenApi)]
#[openapi(
    paths(chat::chat_completions, completions::completions, embeddings::embeddings, models::models, models::model),
    components(schemas(OpenAiError, OpenAiErrorDetail))
)]
pub(crate) struct Api;

/// What went wrong, as OpenAI's clients read it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiError {
    error: OpenAiErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiErrorDetail {
    /// One sentence that says what to do.
    message: String,
    /// The kind of error, such as `invalid_request_error`.
    #[serde(rename = "type")]
    kind: String,
    /// The field in question.
    #[schema(required = true)]
    param: Option<String>,
    /// A word for programs, such as `model_not_found`.
    #[schema(required = true)]
    code: Option<String>,
}

/// The errors of every address under `/v1`.
#[derive(Debug, IntoResponses)]
#[expect(dead_code, reason = "describes what ApiError::body writes")]
pub(crate) enum OpenAiErrors {
    /// The request is wrong.
    #[response(status = 400)]
    Invalid(#[to_schema] OpenAiError),
    /// A key is needed.
    #[response(status = 401)]
    Unauthorized(#[to_schema] OpenAiError),
    /// There is no such model.
    #[response(status = 404)]
    NotFound(#[to_schema] OpenAiError),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(#[to_schema] OpenAiError),
    /// The server failed.
    #[response(status = 500)]
    Internal(#[to_schema] OpenAiError),
    /// Known, and not built.
    #[response(status = 501)]
    NotImplemented(#[to_schema] OpenAiError),
    /// The queue is full: ask again later.
    #[response(status = 503)]
    Busy(#[to_schema] OpenAiError),
    /// The request took longer than its deadline.
    #[response(status = 504)]
    Deadline(#[to_schema] OpenAiError),
}
