//! Anthropic's API: `/v1/messages` and its count of tokens.

mod answer;
mod request;
mod teller;
mod turns;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use crate::api::common::http::{self, Bodies, Body, Client};
use crate::api::common::shape::check_chat;
use crate::api::common::sse;
use crate::api::common::wishes::start;
use crate::error::{ApiError, error_responses};
use crate::generate::hub::Hub;
use crate::generate::prompt;
use answer::AnthropicMessage;
use request::{CountRequest, MessagesRequest};
use teller::Teller;

/// The routes.
pub(crate) fn routes() -> Router<Hub> {
    Router::new().route("/v1/messages", post(create_message)).route("/v1/messages/count_tokens", post(count_tokens))
}

/// The addresses, described.
#[derive(Debug, OpenApi)]
#[openapi(paths(create_message, count_tokens), components(schemas(AnthropicError, AnthropicErrorDetail)))]
pub(crate) struct Api;

/// What went wrong, as Anthropic's clients read it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnthropicError {
    /// `error`.
    #[serde(rename = "type")]
    kind: String,
    error: AnthropicErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnthropicErrorDetail {
    /// The kind of error, such as `invalid_request_error`.
    #[serde(rename = "type")]
    kind: String,
    /// One sentence that says what to do.
    message: String,
}

error_responses! {
    /// The errors of every address under `/v1/messages`.
    AnthropicErrors: AnthropicError
}

/// How many tokens a prompt has.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenCount {
    input_tokens: usize,
}

/// The model's next message.
#[utoipa::path(
    post,
    path = "/v1/messages",
    tag = "Anthropic",
    request_body = MessagesRequest,
    responses(
        (status = 200, description = "The message, or its events", content(
            (AnthropicMessage = "application/json"),
            (String = "text/event-stream"),
        )),
        AnthropicErrors,
    )
)]
pub(crate) async fn create_message(
    State(hub): State<Hub>,
    client: Client,
    Bodies(prompt, request): MessagesRequest,
) -> Result<Response, ApiError> {
    let (name, stream) = (prompt.model().to_owned(), request.streams());
    let job = request.wishes(prompt, client)?.job()?;
    let stops = job.stop.clone();
    let running = start(&hub, job).await?;
    let message = AnthropicMessage::new(name, running.prompt_tokens());
    let teller = Teller::new(message, stops, running.model().model().clone());
    if stream {
        return Ok(sse::respond(sse::outputs(vec![running], 1), teller));
    }
    Ok(http::json(sse::whole(running, teller).await?.message()))
}

/// How many tokens a message's prompt would have.
#[utoipa::path(
    post,
    path = "/v1/messages/count_tokens",
    tag = "Anthropic",
    request_body = CountRequest,
    responses((status = 200, description = "The count", body = TokenCount), AnthropicErrors)
)]
pub(crate) async fn count_tokens(
    State(hub): State<Hub>,
    client: Client,
    Body(request): Body<CountRequest>,
) -> Result<Response, ApiError> {
    let job = request.wishes(client)?.job()?;
    let lease = hub.open(&job.model).await?;
    check_chat(&lease, &job)?;
    let model = lease.model().clone();
    let prepared = hub.prepared(move || prompt::prepare(&model, &job, usize::MAX, 0)).await?;
    Ok(http::json(&TokenCount { input_tokens: prepared.ids.len() }))
}
