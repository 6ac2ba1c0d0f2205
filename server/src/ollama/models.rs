//! What Ollama's clients ask about models: `/api/tags`, `/api/ps`, `/api/show`, `/api/version`.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::response::Response;
use ir_engine::builtin;
use ir_engine::dtype::DType;
use ir_engine::file::ModelFile;
use ir_engine::meta::{Kind as ValueKind, Value};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use utoipa::ToSchema;

use super::answer::timestamp;
use crate::error::ApiError;
use crate::http::{self, Body, Client};
use crate::hub::Hub;
use crate::job::ModelRef;
use crate::registry::{Entry, Place};

/// Elements of an array that `/api/show` repeats where not asked for all.
const SHOWN: usize = 5;

/// Says the version
#[utoipa::path(get, path = "/api/version", responses((status = 200, description = "The version", body = Object)))]
pub(super) async fn version() -> Response {
    http::json(&json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// Lists the models that are known
#[utoipa::path(get, path = "/api/tags", responses((status = 200, description = "The models", body = Object)))]
pub(super) async fn tags(State(hub): State<Hub>) -> Result<Response, ApiError> {
    let entries = hub.registry().list();
    let models = blocking(move || entries.iter().filter_map(described).collect::<Vec<Json>>()).await?;
    Ok(http::json(&json!({"models": models})))
}

/// Lists the models that are loaded
#[utoipa::path(get, path = "/api/ps", responses((status = 200, description = "The models", body = Object)))]
pub(super) async fn ps(State(hub): State<Hub>) -> Response {
    let far = SystemTime::now() + Duration::from_secs(100 * 365 * 86_400);
    let mut loaded = hub.loaded();
    loaded.sort_by_key(|l| std::cmp::Reverse(l.expires_at().unwrap_or(far)));
    let models = loaded.iter().map(|l| {
        json!({
            "name": l.name,
            "model": l.name,
            "size": l.size,
            "digest": digest(&l.place),
            "details": details(l.model().file()),
            "expires_at": timestamp(l.expires_at().unwrap_or(far)),
            "size_vram": if l.on_gpu { l.size } else { 0 },
            "context_length": l.context,
            "device": l.device,
        })
    });
    http::json(&json!({"models": models.collect::<Vec<Json>>()}))
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
    (status = 200, description = "The model", body = Object),
    (status = 400),
    (status = 404),
    (status = 503)))]
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
    // What a model can do is found by opening it: it is about to be used anyway.
    let capabilities = hub.open(&wanted).await?.capabilities.names();
    let shown = blocking(move || shown(&entry, verbose, &capabilities)).await?;
    Ok(http::json(&shown?))
}

fn shown(entry: &Entry, verbose: bool, capabilities: &[&str]) -> Result<Json, ApiError> {
    let file = open(&entry.place)?;
    let text = |key: &str| file.meta().opt_str(key).ok().flatten().unwrap_or("").to_owned();
    let mut info = Map::new();
    for (key, value) in file.meta().iter() {
        if key != "general.name" && !key.starts_with("tokenizer.chat_template") {
            info.insert(key.into_owned(), value_json(&value, verbose));
        }
    }
    let tensor = |t: &ir_engine::file::Tensor| {
        let kind = DType::from_id(t.type_id()).map_or_else(|_| t.type_id().to_string(), |d| d.name().to_owned());
        json!({"name": t.name(), "type": kind, "shape": t.dims()})
    };
    let tensors: Vec<Json> = if verbose { file.tensors().iter().map(tensor).collect() } else { Vec::new() };
    Ok(json!({
        "license": text("general.license"),
        "modelfile": format!("FROM {}\n", entry.name),
        "parameters": "",
        "template": text("tokenizer.chat_template"),
        "details": details(&file),
        "model_info": info,
        "tensors": tensors,
        "capabilities": capabilities,
        "modified_at": timestamp(entry.place.modified()),
    }))
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

/// A model as `/api/tags` lists it; `None` where its file does not open.
fn described(entry: &Entry) -> Option<Json> {
    let file = open(&entry.place).ok()?;
    Some(json!({
        "name": entry.name,
        "model": entry.name,
        "modified_at": timestamp(entry.place.modified()),
        "size": file.byte_len(),
        "digest": digest(&entry.place),
        "details": details(&file),
    }))
}

fn details(file: &ModelFile) -> Json {
    let meta = file.meta();
    let family = meta.arch().unwrap_or("").to_owned();
    let mut bytes_by_type: BTreeMap<&str, u64> = BTreeMap::new();
    for tensor in file.tensors() {
        if let Ok(dtype) = tensor.dtype() {
            *bytes_by_type.entry(dtype.name()).or_default() += tensor.byte_len();
        }
    }
    let level = bytes_by_type.iter().max_by_key(|(_, bytes)| **bytes).map_or("", |(name, _)| name);
    let parameters = file.tensors().iter().fold(0u64, |sum, t| sum.saturating_add(t.n_elements()));
    let number = |key: &str| meta.opt_u32(&format!("{family}.{key}")).ok().flatten().unwrap_or(0);
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": human(parameters),
        "quantization_level": level,
        "context_length": number("context_length"),
        "embedding_length": number("embedding_length"),
    })
}

fn human(n: u64) -> String {
    match n {
        0..1_000_000 => format!("{:.1}K", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}M", n as f64 / 1e6),
        _ => format!("{:.1}B", n as f64 / 1e9),
    }
}

fn open(place: &Place) -> Result<ModelFile, ApiError> {
    Ok(match place {
        Place::Builtin => ModelFile::from_bytes(builtin::bytes())?,
        Place::File(path) => ModelFile::open(path)?,
    })
}

/// 64 hexadecimal digits that tell versions of files apart by path, size and time: no hash of what is in them, which
/// would take minutes.
fn digest(place: &Place) -> String {
    let size = match place {
        Place::Builtin => builtin::bytes().len() as u64,
        Place::File(path) => std::fs::metadata(path).map_or(0, |m| m.len()),
    };
    let word = |i: u64| {
        let mut hasher = DefaultHasher::new();
        (i, format!("{place:?}"), size, place.modified()).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    };
    (0..4).map(word).collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ApiError::new(crate::Kind::Internal, "the server failed within: its log says more"))
}
