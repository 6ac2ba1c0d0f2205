//! Ollama's embeddings: `/api/embed`, and the older `/api/embeddings`.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::OllamaErrors;
use super::answer::nanos;
use crate::api::common::body::{self as http, Body, Client};
use crate::api::common::params::GenerationParams;
use crate::engine::error::ApiError;
use crate::generate::hub::Hub;
use crate::generate::job::{EmbedInput, EmbedJob, ModelRef};

/// `POST /api/embed`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct EmbedRequest {
    /// The model's name.
    #[schema(example = "ir-tiny")]
    model: Option<String>,
    /// A text, or several.
    #[schema(value_type = Option<Value>)]
    input: Option<Json>,
    /// Whether texts that are too long are cut; true if not given.
    truncate: Option<bool>,
    /// Keeps so many numbers of each vector.
    dimensions: Option<i64>,
    /// `num_ctx`, `num_gpu`, `device`.
    #[schema(value_type = Option<Object>)]
    options: Option<Json>,
    /// How long the model stays loaded.
    #[schema(value_type = Option<Value>)]
    keep_alive: Option<Json>,
}

/// `POST /api/embeddings`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct EmbeddingsRequest {
    /// The model's name.
    #[schema(example = "ir-tiny")]
    model: Option<String>,
    /// The text.
    prompt: Option<String>,
    /// `num_ctx`, `num_gpu`, `device`.
    #[schema(value_type = Option<Object>)]
    options: Option<Json>,
    /// How long the model stays loaded.
    #[schema(value_type = Option<Value>)]
    keep_alive: Option<Json>,
}

/// Vectors of texts.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct EmbedAnswer {
    model: String,
    /// One for each text.
    embeddings: Vec<Vec<f32>>,
    /// Nanoseconds from the request to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_duration: Option<u64>,
    /// Nanoseconds of loading the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    load_duration: Option<u64>,
    /// Tokens of all texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_count: Option<usize>,
}

/// The vector of a text.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct EmbeddingAnswer {
    /// Empty where the text is.
    embedding: Vec<f32>,
}

/// Turns texts into vectors of length one
#[utoipa::path(post, path = "/api/embed", request_body = EmbedRequest, responses(
    (status = 200, description = "A vector for each text", body = EmbedAnswer),
    OllamaErrors))]
pub(super) async fn embed(
    State(hub): State<Hub>,
    client: Client,
    Body(request): Body<EmbedRequest>,
) -> Result<Response, ApiError> {
    let model = model(client, request.model, request.options, request.keep_alive)?;
    let inputs = match request.input {
        None | Some(Json::Null) => Vec::new(),
        Some(Json::String(text)) if text.is_empty() => Vec::new(),
        Some(Json::String(text)) => vec![EmbedInput::Text(text)],
        Some(Json::Array(all)) => all.into_iter().map(text).collect::<Result<Vec<_>, _>>()?,
        Some(_) => return Err(invalid_input()),
    };
    let dimensions =
        match request.dimensions {
            None | Some(0) => None,
            Some(n) => Some(usize::try_from(n).map_err(|_| {
                ApiError::param("dimensions", format!("dimensions is {n}: it must be a positive number"))
            })?),
        };
    let name = model.name.clone();
    if inputs.is_empty() {
        hub.open(&model).await?;
        return Ok(http::json(&EmbedAnswer { model: name, ..EmbedAnswer::default() }));
    }
    let truncate = request.truncate.unwrap_or(true);
    let done = hub.embed(EmbedJob { model, inputs, truncate, dimensions, normalize: true }).await?;
    Ok(http::json(&EmbedAnswer {
        model: name,
        embeddings: done.vectors,
        total_duration: Some(nanos(done.total)),
        load_duration: Some(nanos(done.load)),
        prompt_eval_count: Some(done.prompt_tokens),
    }))
}

/// Turns a text into a vector
#[utoipa::path(post, path = "/api/embeddings", request_body = EmbeddingsRequest, responses(
    (status = 200, description = "The vector", body = EmbeddingAnswer),
    OllamaErrors))]
pub(super) async fn embeddings(
    State(hub): State<Hub>,
    client: Client,
    Body(request): Body<EmbeddingsRequest>,
) -> Result<Response, ApiError> {
    let model = model(client, request.model, request.options, request.keep_alive)?;
    let prompt = request.prompt.unwrap_or_default();
    if prompt.is_empty() {
        hub.open(&model).await?;
        return Ok(http::json(&EmbeddingAnswer::default()));
    }
    let inputs = vec![EmbedInput::Text(prompt)];
    let job = EmbedJob { model, inputs, truncate: true, dimensions: None, normalize: false };
    let embedding = hub.embed(job).await?.vectors.into_iter().next().unwrap_or_default();
    Ok(http::json(&EmbeddingAnswer { embedding }))
}

/// The model as these fields want it.
fn model(
    client: Client,
    name: Option<String>,
    options: Option<Json>,
    keep_alive: Option<Json>,
) -> Result<ModelRef, ApiError> {
    let params = GenerationParams {
        client,
        model: name.unwrap_or_default(),
        options,
        keep_alive,
        ..GenerationParams::default()
    };
    Ok(params.job()?.model)
}

fn text(value: Json) -> Result<EmbedInput, ApiError> {
    match value {
        Json::String(text) => Ok(EmbedInput::Text(text)),
        _ => Err(invalid_input()),
    }
}

fn invalid_input() -> ApiError {
    ApiError::param("input", "invalid input type")
}
