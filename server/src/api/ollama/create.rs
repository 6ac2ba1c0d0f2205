//! `POST /api/create`: a model of another one, or of files that were sent.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use ir_store::{Error as StoreError, Kind as StoreKind, Modelfile};
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use utoipa::ToSchema;

use super::OllamaErrors;
use super::steps::{self, Step, answer, said};
use super::store::{named, parsed, store};
use crate::api::common::body::Body;
use crate::engine::error::{ApiError, Kind};
use crate::generate::hub::Hub;

/// `POST /api/create`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct CreateRequest {
    /// The name of the new model.
    model: Option<String>,
    /// The same, as older clients write it.
    name: Option<String>,
    /// The model that it is made from.
    from: Option<String>,
    /// Files that were sent to `/api/blobs`, by name: their digests.
    files: Option<BTreeMap<String, String>>,
    /// Refused: adapters cannot be put on models yet.
    adapters: Option<BTreeMap<String, String>>,
    /// A chat template in Go's language: kept, not run.
    template: Option<String>,
    /// Licences: a text or several.
    #[schema(value_type = Option<Value>)]
    license: Option<Json>,
    /// The system prompt.
    system: Option<String>,
    /// Sampling and limits, as `options` has them.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Map<String, Json>>,
    /// Turns that come before every chat.
    messages: Option<Vec<CreateMessage>>,
    /// The type that the weights are quantised to, as in `q4_K_M`.
    quantize: Option<String>,
    /// The version of Ollama that it is said to need: kept.
    requires: Option<String>,
    /// A whole Modelfile, as older clients send it.
    modelfile: Option<String>,
    /// Whether the steps come one to a line; true if not given.
    stream: Option<bool>,
}

/// A turn.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct CreateMessage {
    /// `system`, `user` or `assistant`.
    role: String,
    /// Its text.
    #[serde(default)]
    content: String,
}

impl CreateRequest {
    /// What is asked as a Modelfile.
    fn modelfile(self) -> Result<Modelfile, ApiError> {
        let mut file = match self.modelfile.filter(|text| !text.trim().is_empty()) {
            Some(text) => Modelfile::parse(&text).map_err(steps::error)?,
            None => Modelfile::default(),
        };
        file.from = self.from.filter(|from| !from.is_empty()).unwrap_or(file.from);
        file.blobs = self.files.unwrap_or_default().into_iter().collect();
        if file.from.is_empty() && file.blobs.is_empty() {
            return Err(ApiError::param("from", "neither 'from' or 'files' was specified"));
        }
        file.adapters.extend(self.adapters.unwrap_or_default().into_keys());
        file.quantize = self.quantize.filter(|kind| !kind.is_empty());
        file.template = self.template.or(file.template);
        file.system = self.system.or(file.system);
        file.requires = self.requires.or(file.requires);
        file.licenses.extend(licenses(self.license)?);
        file.parameters.extend(self.parameters.unwrap_or_default().into_iter().filter(|(_, value)| !value.is_null()));
        file.messages.extend(self.messages.unwrap_or_default().into_iter().map(|m| (m.role, m.content)));
        Ok(file)
    }
}

fn licenses(value: Option<Json>) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::param("license", "license must be a text or a list of texts");
    match value {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::String(text)) => Ok(vec![text]),
        Some(Json::Array(all)) => all.into_iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(wrong)).collect(),
        Some(_) => Err(wrong()),
    }
}

/// Makes a model
///
/// Of a model of the store, of the built-in one, or of GGUF files that were sent to `/api/blobs`. Weights are shared.
#[utoipa::path(post, path = "/api/create", request_body = CreateRequest, responses(
    (status = 200, description = "The steps, or the last", content(
        (Step = "application/json"), (String = "application/x-ndjson"))),
    OllamaErrors))]
pub(super) async fn create(State(hub): State<Hub>, Body(request): Body<CreateRequest>) -> Result<Response, ApiError> {
    let name = parsed(named(&request.model, &request.name)?)?;
    let (store, stream) = (store(&hub)?, request.stream.unwrap_or(true));
    let file = request.modelfile()?;
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let work = move || {
        for remark in &file.remarks {
            let _ = tell.send(Ok(said(remark)));
        }
        // The steps go on when nobody listens: what was begun is made.
        let made = store.create(&name, &file, None, &mut |step| drop(tell.send(Ok(said(step)))));
        if let Err(error) = made {
            // What cannot be read is what the client named.
            let kind = if error.kind == StoreKind::Corrupt { StoreKind::Unsupported } else { error.kind };
            let _ = tell.send(Err(steps::error(StoreError { kind, ..error })));
        }
    };
    let working = tokio::task::spawn_blocking(work);
    let next = |(mut told, working): (tokio::sync::mpsc::UnboundedReceiver<_>, Option<tokio::task::JoinHandle<()>>)| {
        Box::pin(async move {
            if let Some(step) = told.recv().await {
                return Some((step, (told, working)));
            }
            // All is told; a thread that panicked has not told why.
            let failed = working?.await.is_err();
            let error = ApiError::new(Kind::Internal, "the server failed within: its log says more");
            failed.then_some((Err(error), (told, None)))
        })
    };
    answer(unfold((told, Some(working)), next).boxed(), stream).await
}
