//! OpenAI's API: chats, completions, embeddings, the list of models. Its newer `/v1/responses` is in `responses`.

pub(crate) mod chat;
mod chat_answer;
mod chat_stream;
mod completions;
mod completions_answer;
mod embeddings;
mod models;
mod usage;

use axum::Router;
use axum::routing::{get, post};
use utoipa::OpenApi;

use crate::api::common::openai_error::{OpenAiError, OpenAiErrorDetail};
use crate::generate::hub::Hub;

/// What every answer says of who made it.
const FINGERPRINT: &str = concat!("fp_ir_", env!("CARGO_PKG_VERSION"));

/// The routes.
pub(crate) fn routes() -> Router<Hub> {
    Router::new()
        .route("/v1/chat/completions", post(chat::chat_completions))
        .route("/v1/chat/completions/input_tokens", post(chat::chat_input_tokens))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/models", get(models::models))
        .route("/v1/models/{*id}", get(models::model))
}

/// The addresses, described.
#[derive(Debug, OpenApi)]
#[openapi(
    paths(chat::chat_completions, chat::chat_input_tokens, completions::completions, embeddings::embeddings, models::models, models::model),
    components(schemas(OpenAiError<'static>, OpenAiErrorDetail<'static>))
)]
pub(crate) struct Api;
