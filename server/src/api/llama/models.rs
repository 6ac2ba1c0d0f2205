//! llama-server's list of models with how each stands, loading and unloading by name, fetching, and events.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::unfold;
use ir_store::{Listed, ModelName};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use utoipa::ToSchema;

use super::{LlamaError, LlamaErrors};
use crate::api::common::body::{self as http, Body, Client};
use crate::api::common::stream::{Frames, IDLE};
use crate::api::common::util::unix_seconds;
use crate::engine::error::{ApiError, Kind};
use crate::generate::hub::{Hub, ending};
use crate::generate::job::ModelRef;
use crate::models::downloads::Progress;
use crate::models::events::{ModelEvent, Status, What};

/// The models.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Models {
    object: &'static str,
    data: Vec<ListedModel>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListedModel {
    /// Its name.
    id: String,
    object: &'static str,
    /// When its file was written, in seconds since 1970.
    created: u64,
    owned_by: &'static str,
    /// Its file; for programs on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    status: ModelStatus,
    architecture: Architecture,
}

/// How a model stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelStatus {
    /// `loaded`, `loading`, `unloaded`, `sleeping` (unloaded because nobody asked it), `downloading`.
    value: &'static str,
    /// Of one that is being fetched: bytes by the files' digests.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<BTreeMap<String, Done>>,
}

/// How much of a file is here.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(super) struct Done {
    done: u64,
    total: u64,
}

/// What a model takes and gives.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Architecture {
    input_modalities: [&'static str; 1],
    output_modalities: [&'static str; 1],
}

fn done(progress: &Progress) -> BTreeMap<String, Done> {
    progress.iter().map(|(file, (done, total))| (file.clone(), Done { done: *done, total: *total })).collect()
}

impl ListedModel {
    fn new(id: String, created: u64, path: Option<String>, status: ModelStatus) -> ListedModel {
        let architecture = Architecture { input_modalities: ["text"], output_modalities: ["text"] };
        ListedModel { id, object: "model", created, owned_by: "library", path, status, architecture }
    }
}

/// Lists the models and how each stands
#[utoipa::path(get, path = "/models", responses((status = 200, description = "The models", body = Models), LlamaErrors))]
pub(super) async fn router_models(State(hub): State<Hub>, client: Client) -> Result<Response, ApiError> {
    let of = hub.clone();
    let listed = hub.prepared(move || Ok(of.registry().list())).await?;
    let one = |model: Listed| {
        let status = ModelStatus { value: hub.models().status(&model.path).name(), progress: None };
        // Programs elsewhere learn no paths of this machine.
        let path = model.path.filter(|_| client.any_path).map(|p| p.display().to_string());
        ListedModel::new(model.name, unix_seconds(model.modified), path, status)
    };
    let mut data: Vec<ListedModel> = listed.into_iter().map(one).collect();
    for (name, progress) in hub.models().downloads().all() {
        data.retain(|model| model.id != name);
        let status = ModelStatus { value: Status::Downloading.name(), progress: Some(done(&progress)) };
        data.push(ListedModel::new(name, 0, None, status));
    }
    Ok(http::json(&Models { object: "list", data }))
}

/// Which model.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct ModelRequest {
    /// The model's name.
    #[schema(example = "ir-tiny")]
    model: String,
}

/// It was done, or begun.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Success {
    success: bool,
}

fn success() -> Response {
    http::json(&Success { success: true })
}

/// Begins to fetch a model
///
/// It goes on by itself; `/models/sse` and `/models` say how far it is, and `/models/unload` ends it.
#[utoipa::path(post, path = "/models", request_body = ModelRequest, responses(
    (status = 200, description = "It has begun", body = Success), LlamaErrors))]
pub(super) async fn fetch(State(hub): State<Hub>, Body(request): Body<ModelRequest>) -> Result<Response, ApiError> {
    let none =
        || ApiError::new(Kind::NotImplemented, "this server has no models folder: start it with --models FOLDER");
    let store = hub.registry().store.clone().ok_or_else(none)?;
    let refused = |e: ir_store::Error| ApiError::param("model", e.what);
    let name = ModelName::parse(&request.model).map_err(refused)?;
    hub.models().downloads().begin(&store, &name, hub.models().events()).map_err(refused)?;
    Ok(success())
}

/// Loads a model
///
/// Answers when it is loaded.
#[utoipa::path(post, path = "/models/load", request_body = ModelRequest, responses(
    (status = 200, description = "It is loaded", body = Success), LlamaErrors))]
pub(super) async fn load(
    State(hub): State<Hub>,
    client: Client,
    Body(request): Body<ModelRequest>,
) -> Result<Response, ApiError> {
    hub.open(&ModelRef { name: request.model, any_path: client.any_path, ..ModelRef::default() }).await?;
    Ok(success())
}

/// Unloads a model, or ends its download
///
/// Requests that run are finished first.
#[utoipa::path(post, path = "/models/unload", request_body = ModelRequest, responses(
    (status = 200, description = "It is unloaded, or will be as soon as nobody uses it", body = Success),
    (status = 400, description = "It is not loaded", body = LlamaError<'static>), LlamaErrors))]
pub(super) async fn unload(
    State(hub): State<Hub>,
    client: Client,
    Body(request): Body<ModelRequest>,
) -> Result<Response, ApiError> {
    let fetched = ModelName::parse(&request.model).map(|name| name.short());
    if fetched.is_ok_and(|name| hub.models().downloads().stop(&name)) {
        return Ok(success());
    }
    let wanted = ModelRef { name: request.model, any_path: client.any_path, ..ModelRef::default() };
    let entry = hub.registry().find(&wanted)?;
    if !hub.unload(&entry)? {
        return Err(ApiError::param("model", format!("{} is not loaded", entry.name)));
    }
    Ok(success())
}

/// Something that happened to a model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventForm {
    model: String,
    /// `model_status`, `download_progress`, `download_finished`, `download_failed`, `model_remove`.
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<EventData>,
}

/// What is new.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum EventData {
    Status {
        status: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        failed: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    Progress(BTreeMap<String, Done>),
    Failure {
        error: String,
    },
}

impl From<ModelEvent> for EventForm {
    fn from(happened: ModelEvent) -> EventForm {
        let status = |status: Status, error: Option<String>| {
            let failed = error.is_some().then_some(true);
            ("model_status", Some(EventData::Status { status: status.name(), failed, error }))
        };
        let (event, data) = match happened.what {
            What::Status(now) => status(now, None),
            What::LoadFailed(error) => status(Status::Unloaded, Some(error)),
            What::Progress(progress) => ("download_progress", Some(EventData::Progress(done(&progress)))),
            What::Fetched => ("download_finished", None),
            What::FetchFailed(error) => ("download_failed", Some(EventData::Failure { error })),
            What::Removed => ("model_remove", None),
        };
        EventForm { model: happened.model, event, data }
    }
}

/// Tells what happens to models, as it happens
#[utoipa::path(get, path = "/models/sse", responses(
    (status = 200, description = "Events", content((EventForm = "text/event-stream")))))]
pub(super) async fn events(State(hub): State<Hub>) -> Response {
    let (watch, phase) = (hub.models().events().watch(), hub.phase());
    let next = |(mut watch, mut phase): (tokio::sync::broadcast::Receiver<ModelEvent>, _)| {
        Box::pin(async move {
            let mut out = Frames::default();
            tokio::select! {
                event = watch.recv() => match event {
                    Ok(event) => out.data(&EventForm::from(event)),
                    // Who reads slowly misses some; the list says how things stand.
                    Err(RecvError::Lagged(_)) => out.data(&EventForm { model: "*".into(), event: "models_reload", data: None }),
                    Err(RecvError::Closed) => return None,
                },
                () = tokio::time::sleep(IDLE) => out.comment(),
                () = ending(&mut phase) => return None,
            }
            Some((Ok::<_, Infallible>(out.into_text()), (watch, phase)))
        })
    };
    let body = HttpBody::from_stream(unfold((watch, phase), next).boxed());
    ([(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")], body).into_response()
}
