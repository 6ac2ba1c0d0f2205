//! `GET /v1/models`: which models are known, with what llama-server adds of those that are loaded.

use std::time::SystemTime;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::common::body::{self as http, Client};
use crate::api::common::openai_error::OpenAiErrors;
use crate::api::common::util::{timestamp, unix_seconds};
use crate::engine::error::ApiError;
use crate::generate::hub::Hub;
use crate::generate::job::ModelRef;
use crate::models::loaded::Loaded;
use ir_store::{Details, Listed};

/// The known models.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList {
    object: &'static str,
    data: Vec<ModelEntry>,
    /// All are in this list. (Anthropic's.)
    has_more: bool,
    #[schema(required = true)]
    first_id: Option<String>,
    #[schema(required = true)]
    last_id: Option<String>,
    /// The same in short, as llama-server has it. Empty for Codex, which looks here for more than is known.
    models: Vec<ShortEntry>,
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
    /// `model`. (Anthropic's.)
    #[serde(rename = "type")]
    kind: &'static str,
    /// Its name again.
    display_name: String,
    /// When its file was written: RFC 3339, in UTC.
    created_at: String,
    /// Tokens of a sequence at most: as it is loaded, or else as it was trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<usize>,
    /// The same: prompt and answer share them.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_input_tokens: Option<usize>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<usize>,
    /// Of a loaded model.
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<ModelMeta>,
}

/// A model in short.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShortEntry {
    name: String,
    /// The same.
    model: String,
    #[serde(rename = "type")]
    kind: &'static str,
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
    /// Of a model whose file says that it was made for `made_for` tokens.
    fn new(id: &str, name: &str, modified: SystemTime, made_for: u64, hub: &Hub) -> ModelEntry {
        let loaded = hub.loaded().into_iter().find(|l| l.name == name);
        let made_for = usize::try_from(made_for).ok().filter(|n| *n > 0);
        let context = loaded.as_ref().map(|l| l.context).or(made_for);
        ModelEntry {
            id: id.to_owned(),
            object: "model",
            created: unix_seconds(modified),
            owned_by: "library",
            kind: "model",
            display_name: id.to_owned(),
            created_at: timestamp(modified),
            context_length: context,
            max_input_tokens: context,
            max_tokens: context,
            meta: loaded.map(|l| ModelMeta::new(&l)),
        }
    }
}

impl ModelList {
    fn new(data: Vec<ModelEntry>, short: bool) -> ModelList {
        let one = |entry: &ModelEntry| ShortEntry { name: entry.id.clone(), model: entry.id.clone(), kind: "model" };
        ModelList {
            object: "list",
            has_more: false,
            first_id: data.first().map(|e| e.id.clone()),
            last_id: data.last().map(|e| e.id.clone()),
            models: if short { data.iter().map(one).collect() } else { Vec::new() },
            data,
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
pub(crate) async fn models(State(hub): State<Hub>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let codex = query.is_some_and(|q| q.contains("client_version="));
    let of = hub.clone();
    let listed = hub.prepared(move || Ok(of.registry().named())).await?;
    let entry = |m: &Listed| ModelEntry::new(&m.name, &m.name, m.modified, m.details.context, &hub);
    Ok(http::json(&ModelList::new(listed.iter().map(entry).collect(), !codex)))
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
    let of = hub.clone();
    let found = move || {
        let entry = of.registry().find(&wanted)?;
        let made_for = match entry.place.path() {
            Some(path) => Details::of(path).context,
            None => Listed::builtin().details.context,
        };
        Ok((entry, made_for))
    };
    let (entry, made_for) = hub.prepared(found).await?;
    // Known by the name it was asked by, which may be an alias.
    Ok(http::json(&ModelEntry::new(&id, &entry.name, entry.place.modified(), made_for, &hub)))
}
