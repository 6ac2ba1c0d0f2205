//! What Ollama's clients do with the models of the store: pull, push, copy, delete, send files.

use std::io::{Error as IoError, ErrorKind, Read};
use std::sync::Arc;

use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::{iter, once};
use ir_store::{Digest, Kind as StoreKind, ModelName, Place, Store};
use serde::Deserialize;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use utoipa::ToSchema;

use super::OllamaErrors;
use super::models::blocking;
use super::steps::{self, Step, Steps, answer, said, watched};
use crate::api::common::body::{Body, Client};
use crate::engine::error::{ApiError, Kind};
use crate::generate::hub::Hub;
use crate::models::events::What;
use crate::models::model_ref::ModelRef;

/// How long a file that is sent may make no progress.
const SENDING: std::time::Duration = std::time::Duration::from_secs(60);

/// Which model, and how the answer comes.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct StoreRequest {
    /// The model's name.
    #[schema(example = "ir-tiny")]
    model: Option<String>,
    /// The same, as older clients write it.
    name: Option<String>,
    /// Whether the steps come one to a line; true if not given.
    stream: Option<bool>,
    /// Passed over: plain http is for registries of this machine, and no other way is insecure.
    #[serde(rename = "insecure")]
    _insecure: Option<bool>,
}

impl StoreRequest {
    fn name(&self) -> Result<&str, ApiError> {
        named(&self.model, &self.name)
    }
}

/// The model that a request names in one of two fields.
pub(super) fn named<'a>(model: &'a Option<String>, name: &'a Option<String>) -> Result<&'a str, ApiError> {
    let given = [model, name].into_iter().flatten().find(|name| !name.is_empty());
    given.map(String::as_str).ok_or_else(|| ApiError::param("model", "model is required"))
}

/// The store that the server has.
pub(super) fn store(hub: &Hub) -> Result<Arc<Store>, ApiError> {
    let none =
        || ApiError::new(Kind::NotImplemented, "this server has no models folder: start it with --models FOLDER");
    hub.registry().store.clone().ok_or_else(none)
}

pub(super) fn parsed(name: &str) -> Result<ModelName, ApiError> {
    ModelName::parse(name).map_err(steps::error)
}

/// Fetches a model
///
/// Clients that ask for the same model at once share a download. One that leaves ends it, unless others wait for it; what has
/// arrived is kept, and the next pull goes on from there. A model that is on this machine and cannot be fetched, as those that
/// were made here, is left as it is.
#[utoipa::path(post, path = "/api/pull", request_body = StoreRequest, responses(
    (status = 200, description = "The steps, or the last", content(
        (Step = "application/json"), (String = "application/x-ndjson"))),
    OllamaErrors))]
pub(super) async fn pull(
    State(hub): State<Hub>,
    client: Client,
    Body(request): Body<StoreRequest>,
) -> Result<Response, ApiError> {
    let name = request.name()?.to_owned();
    let wanted = ModelRef { name: name.clone(), any_path: client.any_path, ..ModelRef::default() };
    let known = hub.registry().find(&wanted).ok();
    let fetched = known.as_ref().is_none_or(|entry| matches!(entry.place, Place::Stored(_)));
    if !fetched {
        let there = iter(["pulling manifest", "success"].map(|status| Ok(said(status))));
        return answer(there.boxed(), request.stream.unwrap_or(true)).await;
    }
    let (store, model) = (store(&hub)?, parsed(&name)?);
    if !model.is_remote() {
        return Err(ApiError::param("model", format!("{name:?} is a file: there is nothing to pull")));
    }
    let begin = async move { pulled(store, model, known.is_some()).await };
    let first = once(async { Ok(said("pulling manifest")) });
    let steps = first.chain(once(begin).flatten()).boxed();
    answer(steps, request.stream.unwrap_or(true)).await
}

/// The steps of a pull behind its first.
async fn pulled(store: Arc<Store>, name: ModelName, known: bool) -> Steps {
    let planned = {
        let (store, name) = (Arc::clone(&store), name.clone());
        blocking(move || store.plan(&name)).await
    };
    let fails = |error: ApiError| once(async move { Err(error) }).boxed();
    let watcher = match planned {
        Ok(Ok(plan)) => store.pull_planned(plan),
        Ok(Err(e)) if known && matches!(e.kind, StoreKind::NotFound | StoreKind::Network | StoreKind::Denied) => {
            let status = format!("it is here, and cannot be fetched anew: {}", e.what);
            return iter([Ok(said(status)), Ok(said("success"))]).boxed();
        }
        Ok(Err(e)) => Err(e),
        Err(e) => return fails(e),
    };
    match watcher {
        // Its first step has been told.
        Ok(watcher) => {
            let told = |event: &Result<_, _>| !event.as_ref().is_ok_and(|e| *e == said("pulling manifest"));
            watched(watcher).filter(move |event| std::future::ready(told(event))).boxed()
        }
        Err(e) => fails(steps::error(e)),
    }
}

/// Sends a model to a registry
#[utoipa::path(post, path = "/api/push", request_body = StoreRequest, responses(
    (status = 200, description = "The steps, or the last", content(
        (Step = "application/json"), (String = "application/x-ndjson"))),
    OllamaErrors))]
pub(super) async fn push(State(hub): State<Hub>, Body(request): Body<StoreRequest>) -> Result<Response, ApiError> {
    let (store, name) = (store(&hub)?, parsed(request.name()?)?);
    let watcher = blocking(move || store.push(&name)).await?.map_err(steps::error)?;
    answer(watched(watcher), request.stream.unwrap_or(true)).await
}

/// `POST /api/copy`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct CopyRequest {
    /// The model.
    #[schema(example = "ir-tiny")]
    source: Option<String>,
    /// The name that it is to have too.
    destination: Option<String>,
}

/// Gives a model another name
#[utoipa::path(post, path = "/api/copy", request_body = CopyRequest, responses(
    (status = 200, description = "It has it"), OllamaErrors))]
pub(super) async fn copy(State(hub): State<Hub>, Body(request): Body<CopyRequest>) -> Result<Response, ApiError> {
    let name = |field: &str, value: Option<String>| {
        let text = value.filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| ApiError::param(field, format!("{field} is required")))?;
        ModelName::parse(&text).map_err(|e| ApiError::param(field, format!("{field} {text:?} is invalid: {}", e.what)))
    };
    let (source, destination) = (name("source", request.source)?, name("destination", request.destination)?);
    let store = store(&hub)?;
    blocking(move || store.copy(&source, &destination)).await?.map_err(steps::error)?;
    Ok(StatusCode::OK.into_response())
}

/// Removes a model
///
/// What is loaded of it is unloaded when nobody uses it any more.
#[utoipa::path(delete, path = "/api/delete", request_body = StoreRequest, responses(
    (status = 200, description = "It is gone"), OllamaErrors))]
pub(super) async fn delete(State(hub): State<Hub>, Body(request): Body<StoreRequest>) -> Result<Response, ApiError> {
    let (store, name) = (store(&hub)?, request.name()?.to_owned());
    let parsed = parsed(&name)?;
    let entry = hub.registry().find(&ModelRef { name, ..ModelRef::default() }).ok();
    let removed = {
        let parsed = parsed.clone();
        blocking(move || store.remove(&parsed)).await?
    };
    removed.map_err(steps::error)?;
    if let Some(entry) = entry {
        // One that is pinned stays until the server ends: its file is open.
        let _ = hub.unload(&entry);
    }
    hub.models().events().tell(&parsed.short(), What::Removed);
    Ok(StatusCode::OK.into_response())
}

fn digest(text: &str) -> Result<Digest, ApiError> {
    let wrong = || ApiError::invalid("give a digest as sha256: and 64 digits");
    text.strip_prefix("sha256:").and_then(|_| Digest::parse(text).ok()).ok_or_else(wrong)
}

/// Says whether a file is here
#[utoipa::path(head, path = "/api/blobs/{digest}",
    params(("digest" = String, Path, description = "`sha256:` and 64 digits")), responses(
    (status = 200, description = "It is"), OllamaErrors))]
pub(super) async fn has_blob(State(hub): State<Hub>, Path(text): Path<String>) -> Result<Response, ApiError> {
    let (store, digest) = (store(&hub)?, digest(&text)?);
    let path = store.blob_path(&digest).map_err(steps::error)?;
    path.map(|_| StatusCode::OK.into_response())
        .ok_or_else(|| ApiError::not_found(format!("there is no blob {digest}")))
}

/// Takes a file to make a model of
#[utoipa::path(post, path = "/api/blobs/{digest}",
    params(("digest" = String, Path, description = "`sha256:` and 64 digits")),
    request_body(content = String, content_type = "application/octet-stream"), responses(
    (status = 200, description = "It was here"), (status = 201, description = "It is here now"), OllamaErrors))]
pub(super) async fn blob(
    State(hub): State<Hub>,
    Path(text): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (store, digest) = (store(&hub)?, digest(&text)?);
    if store.blob_path(&digest).map_err(steps::error)?.is_some() {
        return Ok(StatusCode::OK.into_response());
    }
    let (pieces, from) = channel(4);
    let feeding = feed(request.into_body(), pieces);
    let keeping = blocking(move || store.put_blob(&digest, &mut Pieces { from, piece: Bytes::new() }));
    let ((), kept) = tokio::join!(feeding, keeping);
    kept?.map_err(|e| match e.kind {
        StoreKind::Corrupt => ApiError::invalid(e.what),
        _ => steps::error(e),
    })?;
    Ok(StatusCode::CREATED.into_response())
}

/// Hands a body on, piece by piece, as far as it comes.
async fn feed(body: HttpBody, pieces: Sender<std::io::Result<Bytes>>) {
    let mut body = body.into_data_stream();
    loop {
        let piece = match tokio::time::timeout(SENDING, body.next()).await {
            Ok(Some(piece)) => piece.map_err(IoError::other),
            Ok(None) => return,
            Err(_) => Err(IoError::new(ErrorKind::TimedOut, "the client sends nothing more")),
        };
        let failed = piece.is_err();
        if pieces.send(piece).await.is_err() || failed {
            return;
        }
    }
}

/// A body, read on a thread that may block.
struct Pieces {
    from: Receiver<std::io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.piece.is_empty() {
            match self.from.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.piece.len());
        buffer[..n].copy_from_slice(&self.piece.split_to(n));
        Ok(n)
    }
}
