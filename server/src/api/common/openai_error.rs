//! Errors as OpenAI's clients read them, of all addresses under `/v1` but Anthropic's.

use serde::Serialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::dialect::{Dialect, error_responses};
use crate::engine::error::{ApiError, Kind};

/// The dialect.
pub(crate) const OPENAI: Dialect = Dialect { paths: &["/v1"], body: openai_error };

/// What went wrong, as OpenAI's clients read it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiError<'a> {
    error: OpenAiErrorDetail<'a>,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiErrorDetail<'a> {
    /// One sentence that says what to do.
    message: &'a str,
    /// The kind of error, such as `invalid_request_error`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field in question.
    #[schema(required = true)]
    param: Option<&'a str>,
    /// A word for programs, such as `model_not_found`.
    #[schema(required = true)]
    code: Option<&'static str>,
}

error_responses! {
    /// The errors of every address under `/v1`.
    OpenAiErrors: OpenAiError<'static>
}

/// An error's JSON.
pub(crate) fn openai_error(error: &ApiError) -> Json {
    let (kind, code) = match error.kind {
        Kind::Invalid | Kind::TooLarge | Kind::Method | Kind::Slow => ("invalid_request_error", None),
        Kind::Unauthorized => ("invalid_request_error", Some("invalid_api_key")),
        Kind::Forbidden => ("permission_error", None),
        Kind::NotFound => ("not_found_error", Some("model_not_found")),
        Kind::Busy => ("server_error", Some("server_busy")),
        _ => ("api_error", None),
    };
    let detail = OpenAiErrorDetail { message: &error.message, kind, param: error.param.as_deref(), code };
    super::body::to_json(&OpenAiError { error: detail })
}
