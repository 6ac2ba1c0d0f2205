//! `GET /v1/models`: which models are known, with what llama-server adds of those that are loaded.

use std::time::SystemTime;

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::common::body::{self as http, Client};
use crate::api::common::openai_error::OpenAiErrors;
use crate::api::common::util::unix_seconds;
use crate::engine::error::ApiError;
use crate::generate::hub::Hub;
use crate::generate::job::ModelRef;
use crate::models::loaded::Loaded;
use ir_store::Listed;

/// The known models.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList {
    object: &'static str,
    data: Vec<ModelEntry>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelEntry {
    /// Its name.
    id: String,
    object: &'static str,
    /// When its file was written, in seconds since 1970.
    created: u64,
    owned_by: &'static str,
    /// Of a loaded model.
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<ModelMeta>,
}

/// What is known of a loaded model. (llama-server's.)
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelMeta {
    /// Tokens that it knows.
    n_vocab: u32,
    /// Tokens of a sequence at most, as it was trained.
    n_ctx_train: usize,
    /// Tokens of a sequence at most, as it is loaded.
    n_ctx: usize,
    /// Numbers of a token's vector.
    n_embd: usize,
    /// Numbers of the whole model.
    n_params: u64,
    /// Bytes of its file.
    size: u64,
}

impl ModelEntry {
    fn new(model: &Listed, hub: &Hub) -> ModelEntry {
        ModelEntry::of(&model.name, model.modified, hub)
    }

    fn of(name: &str, modified: SystemTime, hub: &Hub) -> ModelEntry {
        let loaded = hub.loaded().into_iter().find(|l| l.name == name);
        ModelEntry {
            id: name.to_owned(),
            object: "model",
            created: unix_seconds(modified),
            owned_by: "library",
            meta: loaded.map(|l| ModelMeta::new(&l)),
        }
    }
}

impl ModelMeta {
    fn new(loaded: &Loaded) -> ModelMeta {
        let (model, file) = (loaded.model(), loaded.model().file());
        ModelMeta {
            n_vocab: model.tokenizer().n_vocab(),
            n_ctx_train: model.spec().n_context,
            n_ctx: loaded.context,
            n_embd: model.spec().width,
            n_params: file.tensors().iter().fold(0, |sum: u64, t| sum.saturating_add(t.n_elements())),
            size: file.byte_len(),
        }
    }
}

/// The known models.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "OpenAI",
    responses((status = 200, description = "The models", body = ModelList), OpenAiErrors)
)]
pub(crate) async fn models(State(hub): State<Hub>) -> Result<Response, ApiError> {
    let of = hub.clone();
    let listed = hub.prepared(move || Ok(of.registry().list())).await?;
    let data = listed.iter().map(|model| ModelEntry::new(model, &hub)).collect();
    Ok(http::json(&ModelList { object: "list", data }))
}

/// One model.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    tag = "OpenAI",
    params(("id" = String, Path, description = "A model's name", example = "ir-tiny")),
    responses((status = 200, description = "The model", body = ModelEntry), OpenAiErrors)
)]
pub(crate) async fn model(
    State(hub): State<Hub>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let wanted = ModelRef { name: id.clone(), any_path: client.any_path, ..ModelRef::default() };
    let entry = hub.registry().find(&wanted)?;
    // Known by the name it was asked by, which may be an alias.
    Ok(http::json(&ModelEntry { id, ..ModelEntry::of(&entry.name, entry.place.modified(), &hub) }))
}
