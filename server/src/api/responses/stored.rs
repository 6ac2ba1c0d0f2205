//! Responses that were kept: asked for again, and forgotten.

use std::sync::Arc;

use axum::extract::{Extension, Path};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::output::ResponseObject;
use super::store::ResponseStore;
use crate::api::common::body::{json, parse};
use crate::api::common::openai_error::OpenAiErrors;
use crate::engine::error::ApiError;

/// A response that was forgotten.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeletedResponse {
    id: String,
    object: &'static str,
    deleted: bool,
}

/// What a response was asked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InputItemList {
    object: &'static str,
    #[schema(value_type = Vec<Object>)]
    data: Vec<Json>,
    has_more: bool,
}

/// A response that was kept.
#[utoipa::path(
    get,
    path = "/v1/responses/{id}",
    tag = "OpenAI",
    params(("id" = String, Path, description = "A response's id")),
    responses((status = 200, description = "The response", body = ResponseObject), OpenAiErrors)
)]
pub(crate) async fn response(
    Extension(store): Extension<Arc<ResponseStore>>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    Ok(([(header::CONTENT_TYPE, "application/json; charset=utf-8")], store.get(&id)?).into_response())
}

/// Forgets a response.
#[utoipa::path(
    delete,
    path = "/v1/responses/{id}",
    tag = "OpenAI",
    params(("id" = String, Path, description = "A response's id")),
    responses((status = 200, description = "It is forgotten", body = DeletedResponse), OpenAiErrors)
)]
pub(crate) async fn delete_response(
    Extension(store): Extension<Arc<ResponseStore>>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    store.delete(&id)?;
    Ok(json(&DeletedResponse { id, object: "response.deleted", deleted: true }))
}

/// What a response was asked, without what it went on from.
#[utoipa::path(
    get,
    path = "/v1/responses/{id}/input_items",
    tag = "OpenAI",
    params(("id" = String, Path, description = "A response's id")),
    responses((status = 200, description = "The items", body = InputItemList), OpenAiErrors)
)]
pub(crate) async fn input_items(
    Extension(store): Extension<Arc<ResponseStore>>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let data = parse(store.input(&id)?.as_bytes())?;
    Ok(json(&InputItemList { object: "list", data, has_more: false }))
}
