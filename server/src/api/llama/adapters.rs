//! `/lora-adapters`: the adapters that a model was loaded with, and how much of each is used where a request says nothing.

use axum::extract::{Query, State};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::{LlamaErrors, OfModel, lease};
use crate::api::common::body::{self as http, Client, List};
use crate::api::common::fields::LoraScale;
use crate::engine::error::ApiError;
use crate::generate::hub::Hub;
use crate::models::loaded::Loaded;

/// An adapter of a loaded model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LoraAdapter {
    /// Its number, by which requests name it.
    id: usize,
    /// Its file; the name alone for programs elsewhere.
    path: String,
    /// How much of it is used where a request says nothing.
    scale: f32,
    /// What its file calls the task that it is for.
    task_name: String,
    /// What prompts of the task begin with.
    prompt_prefix: String,
}

/// Says that scales were set.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LoraSet {
    success: bool,
}

fn listed(loaded: &Loaded, any_path: bool) -> Vec<LoraAdapter> {
    let all = loaded.model().adapters().iter().zip(loaded.lora()).enumerate();
    all.map(|(id, (of, scale))| {
        let path = std::path::Path::new(&of.name);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        LoraAdapter {
            id,
            path: if any_path { of.name.clone() } else { name.into_owned() },
            scale,
            task_name: of.adapter.task_name().to_owned(),
            prompt_prefix: of.adapter.prompt_prefix().to_owned(),
        }
    })
    .collect()
}

/// Lists the LoRA adapters of a model
#[utoipa::path(get, path = "/lora-adapters", params(
    ("model" = Option<String>, Query, description = "The model; without it the one used last")), responses(
    (status = 200, description = "The adapters", body = Vec<LoraAdapter>), LlamaErrors))]
pub(super) async fn list(
    State(hub): State<Hub>,
    client: Client,
    Query(of): Query<OfModel>,
) -> Result<Response, ApiError> {
    let any_path = client.any_path;
    let lease = lease(&hub, of.model, client).await?;
    Ok(http::json(&listed(&lease, any_path)))
}

/// Sets how much of each adapter is used where a request says nothing; those that are not named are not used
#[utoipa::path(post, path = "/lora-adapters", request_body = Vec<LoraScale>, params(
    ("model" = Option<String>, Query, description = "The model; without it the one used last")), responses(
    (status = 200, description = "Set", body = LoraSet), LlamaErrors))]
pub(super) async fn set(
    State(hub): State<Hub>,
    client: Client,
    Query(of): Query<OfModel>,
    List(scales): List<LoraScale>,
) -> Result<Response, ApiError> {
    let lease = lease(&hub, of.model, client).await?;
    let scales: Vec<(usize, f32)> = scales.into_iter().map(LoraScale::pair).collect();
    lease.set_lora(&scales)?;
    Ok(http::json(&LoraSet { success: true }))
}
