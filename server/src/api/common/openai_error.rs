//! Errors as OpenAI's clients read them, of all addresses under `/v1` but Anthropic's.

use serde::Serialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::dialect::{Dialect, error_responses};
use crate::engine::error::{ApiError, Kind};

/// The dialect.
pub(crate) const OPENAI: Dialect = Dialect {
    // Those without /v1 are what clients ask whose base URL lacks it.
    paths: &["/v1", "/chat/completions", "/completions", "/embeddings", "/models", "/responses"],
    body: openai_error,
};

/// What went wrong, as OpenAI's clients read it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiError<'a> {
    error: OpenAiErrorDetail<'a>,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiErrorDetail<'a> {
    /// One sentence that says what to do.
    message: String,
    /// The kind of error, such as `invalid_request_error`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field in question.
    #[schema(required = true)]
    param: Option<&'a str>,
    /// A word for programs, such as `model_not_found`.
    #[schema(required = true)]
    code: Option<&'static str>,
    /// Of a prompt that does not fit: its tokens. (llama-server's.)
    #[serde(skip_serializing_if = "Option::is_none")]
    n_prompt_tokens: Option<usize>,
    /// And those that fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    n_ctx: Option<usize>,
}

error_responses! {
    /// The errors of every address under `/v1`.
    OpenAiErrors: OpenAiError<'static>
}

/// An error's sentence: of a prompt that does not fit OpenAI's own, by which clients know it.
pub(crate) fn openai_error_message(error: &ApiError) -> String {
    match error.kind {
        Kind::ContextLength { tokens, context } => format!(
            "This model's maximum context length is {context} tokens. However, your messages resulted in {tokens} tokens. \
             Please reduce the length of the messages. ({})",
            error.message
        ),
        _ => error.message.clone(),
    }
}

/// An error's JSON.
pub(crate) fn openai_error(error: &ApiError) -> Json {
    let (kind, code) = match error.kind {
        Kind::ContextLength { .. } => ("invalid_request_error", Some("context_length_exceeded")),
        Kind::Invalid | Kind::TooLarge | Kind::Method | Kind::Slow => ("invalid_request_error", None),
        Kind::Unauthorized => ("invalid_request_error", Some("invalid_api_key")),
        Kind::Forbidden => ("permission_error", None),
        Kind::NotFound => ("not_found_error", error.is_model().then_some("model_not_found")),
        Kind::Busy => ("server_error", Some("server_busy")),
        _ => ("api_error", None),
    };
    let (n_prompt_tokens, n_ctx) = match error.kind {
        Kind::ContextLength { tokens, context } => (Some(tokens), Some(context)),
        _ => (None, None),
    };
    let (message, param) = (openai_error_message(error), error.param.as_deref());
    super::body::to_json(&OpenAiError {
        error: OpenAiErrorDetail { message, kind, param, code, n_prompt_tokens, n_ctx },
    })
}
