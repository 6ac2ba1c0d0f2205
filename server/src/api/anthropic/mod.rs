//! Anthropic's API: `/v1/messages` and its count of tokens.

mod answer;
mod builder;
mod request;
mod turns;

use axum::Router;
use axum::routing::post;
use serde::Serialize;
use serde_json::Value as Json;
use utoipa::{OpenApi, ToSchema};

use crate::api::common::body::{Bodies, Body, to_json};
use crate::api::common::dialect::{Dialect, error_responses};
use crate::api::common::generation::{counting, generate, generating};
use crate::engine::error::{ApiError, Kind};
use crate::generate::hub::Hub;
use crate::generate::running::Running;
use answer::AnthropicMessage;
use builder::MessageBuilder;
use request::{CountRequest, MessagesRequest};

/// The routes.
pub(crate) fn routes() -> Router<Hub> {
    Router::new().route("/v1/messages", post(create_message)).route("/v1/messages/count_tokens", post(count_tokens))
}

/// The addresses, described.
#[derive(Debug, OpenApi)]
#[openapi(paths(create_message, count_tokens), components(schemas(AnthropicError, AnthropicErrorDetail)))]
pub(crate) struct Api;

/// The form of errors of every address under `/v1/messages`.
pub(crate) const DIALECT: Dialect = Dialect { paths: &["/v1/messages", "/messages"], body: error_json };

/// What went wrong, as Anthropic's clients read it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnthropicError {
    /// `error`.
    #[serde(rename = "type")]
    kind: &'static str,
    error: AnthropicErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnthropicErrorDetail {
    /// The kind of error, such as `invalid_request_error`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// One sentence that says what to do.
    message: String,
}

error_responses! {
    /// The errors of every address under `/v1/messages`.
    AnthropicErrors: AnthropicError
}

fn error_json(error: &ApiError) -> Json {
    let message = match error.kind {
        // Clients look for these words and the two numbers.
        Kind::ContextLength { tokens, context } => format!("prompt is too long: {tokens} tokens > {context} maximum"),
        _ => error.message.clone(),
    };
    let kind = match error.kind {
        Kind::Unauthorized => "authentication_error",
        Kind::Forbidden => "permission_error",
        Kind::NotFound => "not_found_error",
        Kind::TooLarge => "request_too_large",
        Kind::Busy | Kind::Unavailable => "overloaded_error",
        Kind::Deadline => "timeout_error",
        Kind::Internal | Kind::NotImplemented => "api_error",
        Kind::Invalid | Kind::ContextLength { .. } | Kind::Method | Kind::Slow => "invalid_request_error",
    };
    to_json(&AnthropicError { kind: "error", error: AnthropicErrorDetail { kind, message } })
}

/// How many tokens a prompt has.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageTokens {
    input_tokens: usize,
}

impl MessageTokens {
    fn new(input_tokens: usize) -> MessageTokens {
        MessageTokens { input_tokens }
    }
}

/// A prompt, of which the tokens are counted.
type CountBody = Body<CountRequest>;

generating! {
    /// The model's next message.
    create_message: "/v1/messages" "Anthropic" AnthropicErrors MessagesRequest => AnthropicMessage;
    (hub, client, Bodies(prompt, request)) {
        let (name, stream) = (prompt.model().to_owned(), request.streams());
        let params = request.params(prompt, client)?;
        let builder = |running: &Running| MessageBuilder::new(AnthropicMessage::new(name, running.prompt_tokens()));
        generate(&hub, params, stream, builder).await
    }
}

counting! {
    /// How many tokens a message's prompt would have.
    count_tokens: "/v1/messages/count_tokens" "Anthropic" AnthropicErrors CountBody => MessageTokens;
    (client, Body(request)) request.params(client)?
}
