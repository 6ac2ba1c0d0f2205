//! What Ollama's clients ask about models: `/api/tags`, `/api/ps`, `/api/show`, `/api/version`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::response::Response;
use ir_engine::meta::{Kind as ValueKind, Value};
use ir_store::{Details as FileDetails, Listed, Modelfile, Place, parameter_lines};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use utoipa::ToSchema;

use super::OllamaErrors;
use crate::api::common::body::{self as http, Body, Client};
use crate::api::common::util::timestamp;
use crate::engine::error::ApiError;
use crate::generate::hub::Hub;
use crate::models::capabilities::Capabilities;
use crate::models::loaded::Loaded;
use crate::models::model_ref::ModelRef;
use crate::models::registry::Entry;

/// Elements of an array that `/api/show` repeats where not asked for all.
const SHOWN: usize = 5;

/// The version of Ollama's API that is spoken here: programs compare it with Ollama's own, and some go no further below
/// 0.13.4, which brought `/v1/responses`.
const OLLAMA_API: &str = "0.14.0";

/// The version.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionAnswer {
    /// That of Ollama whose API is spoken.
    version: &'static str,
    /// This program's own.
    ir: &'static str,
}

/// Says the version
#[utoipa::path(get, path = "/api/version", responses(
    (status = 200, description = "The version", body = VersionAnswer)))]
pub(super) async fn version() -> Response {
    http::json(&VersionAnswer { version: OLLAMA_API, ir: env!("CARGO_PKG_VERSION") })
}

/// What a list of models says of each.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KnownModel {
    name: String,
    /// The same.
    model: String,
    /// When its file was written: RFC 3339, in UTC.
    modified_at: String,
    /// Bytes of its file.
    size: u64,
    /// 64 hexadecimal digits that tell versions of the file apart.
    digest: String,
    details: Details,
    /// What it can do: `completion`, `tools`, `insert`, `thinking`, `embedding`.
    #[schema(value_type = Vec<String>)]
    capabilities: Vec<&'static str>,
}

/// The models that are known.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KnownModels {
    models: Vec<KnownModel>,
}

/// What a model is made of.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Details {
    parent_model: String,
    format: &'static str,
    family: String,
    families: [String; 1],
    /// Such as `3.2B`.
    parameter_size: String,
    /// The storage type that most of its bytes have.
    quantization_level: String,
    /// Tokens that it was made for.
    context_length: u32,
    /// Numbers of an embedding.
    embedding_length: u32,
}

/// Lists the models that are known
#[utoipa::path(get, path = "/api/tags", responses((status = 200, description = "The models", body = KnownModels)))]
pub(super) async fn tags(State(hub): State<Hub>) -> Result<Response, ApiError> {
    let known = move || {
        let listed = hub.registry().named();
        let capabilities = hub.registry().capabilities(&listed);
        KnownModels { models: listed.iter().zip(capabilities).map(|(model, can)| known(model, can)).collect() }
    };
    Ok(http::json(&blocking(known).await?))
}

/// What is said of a loaded model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LoadedModel {
    name: String,
    /// The same.
    model: String,
    /// Bytes of its file and of its cache at its largest.
    size: u64,
    digest: String,
    details: Details,
    /// When it is unloaded if nobody asks it: RFC 3339, in UTC.
    expires_at: String,
    /// Bytes in a GPU's memory.
    size_vram: u64,
    /// Tokens of a sequence at most.
    context_length: usize,
    /// What it runs on.
    device: String,
}

/// The models that are loaded.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LoadedModels {
    models: Vec<LoadedModel>,
}

/// Lists the models that are loaded
#[utoipa::path(get, path = "/api/ps", responses((status = 200, description = "The models", body = LoadedModels)))]
pub(super) async fn ps(State(hub): State<Hub>) -> Response {
    let far = SystemTime::now() + Duration::from_secs(100 * 365 * 86_400);
    let mut loaded = hub.loaded();
    loaded.sort_by_key(|l| std::cmp::Reverse(l.expires_at().unwrap_or(far)));
    let one = |l: &Arc<Loaded>| LoadedModel {
        name: l.name.clone(),
        model: l.name.clone(),
        size: l.size,
        digest: digest_of(&l.place),
        details: Details::new(FileDetails::of_file(l.model().file())),
        expires_at: timestamp(l.expires_at().unwrap_or(far)),
        size_vram: l.device_bytes.iter().map(|(_, bytes)| bytes).sum(),
        context_length: l.context,
        device: l.device.clone(),
    };
    http::json(&LoadedModels { models: loaded.iter().map(one).collect() })
}

/// `POST /api/show`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct ShowRequest {
    /// The model's name.
    #[schema(example = "ir-tiny")]
    model: Option<String>,
    /// The same, as older clients write it.
    name: Option<String>,
    /// Whether long arrays and the tensors are shown too.
    verbose: Option<bool>,
}

/// Shows what is known of a model
#[utoipa::path(post, path = "/api/show", request_body = ShowRequest, responses(
    (status = 200, description = "The model", body = ShownModel),
    OllamaErrors))]
pub(super) async fn show(
    State(hub): State<Hub>,
    client: Client,
    Body(request): Body<ShowRequest>,
) -> Result<Response, ApiError> {
    let name = request.model.filter(|m| !m.is_empty()).or(request.name).unwrap_or_default();
    let verbose = request.verbose.unwrap_or(false);
    if name.is_empty() {
        return Err(ApiError::invalid("model is required"));
    }
    let wanted = ModelRef { name, any_path: client.any_path, ..ModelRef::default() };
    let entry = hub.registry().find(&wanted)?;
    let shown = blocking(move || shown(&entry, verbose)).await?;
    Ok(http::json(&shown?))
}

/// What is known of a model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShownModel {
    license: String,
    modelfile: String,
    parameters: String,
    /// The system prompt, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    /// Its chat template: in Jinja where the file has one, else as its Modelfile says.
    template: String,
    details: Details,
    /// Its file's metadata; long arrays are empty unless `verbose`.
    #[schema(value_type = Object)]
    model_info: Map<String, Json>,
    /// Its tensors, where `verbose`.
    tensors: Vec<TensorInfo>,
    /// What it can do: `completion`, `tools`, `insert`, `thinking`, `embedding`.
    #[schema(value_type = Vec<String>)]
    capabilities: Vec<&'static str>,
    /// When its file was written: RFC 3339, in UTC.
    modified_at: String,
}

/// A tensor.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TensorInfo {
    name: String,
    /// How it is stored.
    #[serde(rename = "type")]
    kind: String,
    shape: Vec<u64>,
}

fn shown(entry: &Entry, verbose: bool) -> Result<ShownModel, ApiError> {
    let (file, recipe) = (entry.place.file(false)?, &entry.recipe);
    let text = |key: &str| file.meta().opt_str(key).ok().flatten().unwrap_or("").to_owned();
    let mut model_info = Map::new();
    for (key, value) in file.meta().iter() {
        if key != "general.name" && !key.starts_with("tokenizer.chat_template") {
            model_info.insert(key.into_owned(), value_json(&value, verbose));
        }
    }
    let tensor = |t: &ir_engine::file::Tensor| TensorInfo {
        name: t.name().to_owned(),
        kind: t.dtype().map_or_else(|_| t.type_id().to_string(), |d| d.name().to_owned()),
        shape: t.dims().to_vec(),
    };
    let parameters = parameter_lines(&recipe.parameters).into_iter().map(|(name, value)| format!("{name:30} {value}"));
    let own = text("tokenizer.chat_template");
    let template = if own.is_empty() { recipe.template.clone().unwrap_or_default() } else { own };
    Ok(ShownModel {
        license: if recipe.licenses.is_empty() { text("general.license") } else { recipe.licenses.join("\n\n") },
        // Programs elsewhere learn no paths of this machine.
        modelfile: Modelfile { from: entry.name.clone(), ..recipe.modelfile(&entry.place) }.to_string(),
        parameters: parameters.collect::<Vec<_>>().join("\n"),
        system: recipe.system.clone(),
        template,
        details: Details::new(FileDetails::of_file(&file)),
        model_info,
        tensors: if verbose { file.tensors().iter().map(tensor).collect() } else { Vec::new() },
        capabilities: Capabilities::of_file(file.meta()).names(),
        modified_at: timestamp(entry.place.modified()),
    })
}

fn value_json(value: &Value, verbose: bool) -> Json {
    match value.kind() {
        ValueKind::Bool => value.as_bool().into(),
        ValueKind::Str => value.as_str().into(),
        ValueKind::F32 | ValueKind::F64 => value.as_f64().into(),
        ValueKind::Array => {
            let Some(array) = value.as_array() else { return Json::Null };
            if array.len() > SHOWN && !verbose {
                return Json::Array(Vec::new());
            }
            array.iter().map(|v| value_json(&v, verbose)).collect()
        }
        _ => value.as_u64().map(Json::from).or_else(|| value.as_i64().map(Json::from)).unwrap_or(Json::Null),
    }
}

/// A model of the list.
fn known(model: &Listed, can: Capabilities) -> KnownModel {
    let digest = model.digest.clone();
    KnownModel {
        name: model.name.clone(),
        model: model.name.clone(),
        modified_at: timestamp(model.modified),
        size: model.size,
        digest: digest.unwrap_or_else(|| stand_in(model.path.as_deref(), model.size, model.modified)),
        capabilities: can.names(),
        details: Details::new(model.details.clone()),
    }
}

impl Details {
    fn new(file: FileDetails) -> Details {
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Details {
            parent_model: String::new(),
            format: "gguf",
            parameter_size: human(file.parameters),
            quantization_level: file.type_name,
            context_length: number(file.context),
            embedding_length: number(file.embedding),
            families: [file.family.clone()],
            family: file.family,
        }
    }
}

fn human(n: u64) -> String {
    match n {
        0..1_000_000 => format!("{:.1}K", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}M", n as f64 / 1e6),
        _ => format!("{:.1}B", n as f64 / 1e9),
    }
}

/// The digest of a model's manifest, or what stands for it.
fn digest_of(place: &Place) -> String {
    let stored = if let Place::Stored(found) = place { found.digest } else { None };
    stored.map_or_else(|| stand_in(place.path(), place.bytes(), place.modified()), |digest| digest.hex())
}

/// 64 hexadecimal digits that tell versions of files apart by path, size and time: no hash of what is in them, which
/// would take minutes.
fn stand_in(path: Option<&Path>, size: u64, modified: SystemTime) -> String {
    let word = |i: u64| {
        let mut hasher = DefaultHasher::new();
        (i, path, size, modified).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    };
    (0..4).map(word).collect()
}

/// Does what reads files.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ApiError::new(crate::engine::error::Kind::Internal, "the server failed within: its log says more"))
}
