//! OpenAI's API: chats, completions, embeddings, the list of models. Its newer `/v1/responses` is in `responses`.

pub(crate) mod chat;
mod chat_answer;
mod chat_stream;
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
use utoipa::{OpenApi, ToSchema};

use crate::error::error_responses;
use crate::generate::hub::Hub;

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

error_responses! {
    /// The errors of every address under `/v1`.
    OpenAiErrors: OpenAiError
}
