//! Addresses of llama-server that tools use: tokens, templates, properties, ranking. Its completions are OpenAI's.

use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use utoipa::{OpenApi, ToSchema};

use crate::error::{ApiError, Kind};
use crate::http::{self, Body, Client};
use crate::hub::Hub;
use crate::job::{Chat, ModelRef};
use crate::loaded::Lease;
use crate::openai::message::{OpenAiMessage, messages};
use crate::openai::tools::{FunctionTool, check_tools};
use crate::prompt;
use crate::registry::Place;
use crate::shape::chat_of;

/// Token ids of one request, at most.
const MAX_TOKENS: usize = 1 << 20;

#[derive(OpenApi)]
#[openapi(paths(tokenize, detokenize, apply_template, props, change_props, rerank))]
pub(crate) struct Api;

pub(crate) fn routes() -> Router<Hub> {
    let mut routes = Router::new()
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/apply-template", post(apply_template))
        .route("/props", get(props).post(change_props));
    for path in ["/rerank", "/reranking", "/v1/rerank", "/v1/reranking"] {
        routes = routes.route(path, post(rerank));
    }
    routes
}

/// The model that a client names, or the one that llama-server's clients, who have one only, must mean: the one used last,
/// or else the first of the list.
pub(crate) async fn lease(hub: &Hub, name: Option<String>, client: Client) -> Result<Lease, ApiError> {
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| hub.default_model());
    hub.open(&ModelRef { name, any_path: client.any_path, ..ModelRef::default() }).await
}

/// Text to cut into tokens.
#[derive(Debug, Deserialize, ToSchema)]
struct TokenizeRequest {
    /// The text.
    content: String,
    /// Puts BOS before it, where the model wants one.
    #[serde(default)]
    add_special: bool,
    /// Takes `<|im_end|>` and the like as the tokens they name.
    #[serde(default = "yes")]
    parse_special: bool,
    /// Gives each token's text too.
    #[serde(default)]
    with_pieces: bool,
    /// The model; without it the one used last.
    model: Option<String>,
}

fn yes() -> bool {
    true
}

/// Cuts a text into tokens
#[utoipa::path(post, path = "/tokenize", request_body = TokenizeRequest, responses(
    (status = 200, description = "The tokens", body = Object), (status = 400), (status = 404), (status = 503)))]
async fn tokenize(
    State(hub): State<Hub>,
    client: Client,
    Body(request): Body<TokenizeRequest>,
) -> Result<Response, ApiError> {
    let lease = lease(&hub, request.model, client).await?;
    let model = std::sync::Arc::clone(lease.model());
    let tokens = hub
        .prepared(move || {
            let tokenizer = model.tokenizer();
            let ids = tokenizer.encode(&request.content, request.add_special, request.parse_special);
            let piece = |id: u32| {
                let bytes = tokenizer.token_bytes(id);
                let piece = std::str::from_utf8(&bytes).map_or_else(|_| json!(bytes.as_ref()), |text| json!(text));
                json!({"id": id, "piece": piece})
            };
            Ok(if request.with_pieces { ids.into_iter().map(piece).collect() } else { json!(ids) })
        })
        .await?;
    Ok(http::json(&json!({"tokens": tokens})))
}

/// Tokens to make text of.
#[derive(Debug, Deserialize, ToSchema)]
struct DetokenizeRequest {
    /// Their ids.
    tokens: Vec<u32>,
    /// The model; without it the one used last.
    model: Option<String>,
}

/// Makes text of tokens
#[utoipa::path(post, path = "/detokenize", request_body = DetokenizeRequest, responses(
    (status = 200, description = "The text", body = Object), (status = 400), (status = 404), (status = 503)))]
async fn detokenize(
    State(hub): State<Hub>,
    client: Client,
    Body(request): Body<DetokenizeRequest>,
) -> Result<Response, ApiError> {
    if request.tokens.len() > MAX_TOKENS {
        return Err(ApiError::param("tokens", format!("tokens holds more than {MAX_TOKENS} ids: send fewer")));
    }
    let lease = lease(&hub, request.model, client).await?;
    let tokenizer = lease.model().tokenizer();
    if let Some(id) = request.tokens.iter().find(|id| **id >= tokenizer.n_vocab()) {
        let n = tokenizer.n_vocab();
        return Err(ApiError::param("tokens", format!("tokens holds id {id} of a vocabulary of {n}")));
    }
    Ok(http::json(&json!({"content": tokenizer.decode(&request.tokens, true)})))
}

/// A chat to lay out.
#[derive(Debug, Deserialize, ToSchema)]
struct TemplateRequest {
    /// The turns so far.
    #[schema(min_items = 1)]
    messages: Vec<OpenAiMessage>,
    /// Tools that the model may call.
    #[schema(value_type = Option<Vec<FunctionTool>>)]
    tools: Option<Vec<Json>>,
    /// More variables for the model's template.
    #[schema(value_type = Option<Object>)]
    chat_template_kwargs: Option<Map<String, Json>>,
    /// The model; without it the one used last.
    #[schema(example = "ir-tiny")]
    model: Option<String>,
}

/// Shows a chat as the model reads it
#[utoipa::path(post, path = "/apply-template", request_body = TemplateRequest, responses(
    (status = 200, description = "The prompt", body = Object), (status = 400), (status = 404), (status = 503)))]
async fn apply_template(
    State(hub): State<Hub>,
    client: Client,
    Body(request): Body<TemplateRequest>,
) -> Result<Response, ApiError> {
    let lease = lease(&hub, request.model, client).await?;
    let tools = check_tools(request.tools.unwrap_or_default())?;
    let kwargs = request.chat_template_kwargs.unwrap_or_default();
    let chat = Chat { tools, kwargs, ..chat_of(messages(&lease.name, request.messages)?) };
    let model = std::sync::Arc::clone(lease.model());
    let prompt = hub.prepared(move || prompt::rendered(&model, &chat)).await?;
    Ok(http::json(&json!({"prompt": prompt})))
}

/// Which model.
#[derive(Debug, Deserialize)]
struct OfModel {
    /// The model; without it the one used last.
    model: Option<String>,
}

/// Says what a model and its server are like
#[utoipa::path(get, path = "/props", params(
    ("model" = Option<String>, Query, description = "The model; without it the one used last")), responses(
    (status = 200, description = "The properties", body = Object), (status = 404), (status = 503)))]
async fn props(State(hub): State<Hub>, client: Client, Query(of): Query<OfModel>) -> Result<Response, ApiError> {
    let lease = lease(&hub, of.model, client).await?;
    let (model, defaults) = (lease.model(), ir_engine::run::Sampling::from_meta(lease.model().meta()));
    let tokenizer = model.tokenizer();
    let token = |id: Option<u32>| id.map(|id| tokenizer.piece(id).into_owned()).unwrap_or_default();
    let template = model.meta().opt_str("tokenizer.chat_template").ok().flatten().unwrap_or("");
    let path = match &lease.place {
        Place::Builtin => String::new(),
        // Programs elsewhere learn no paths of this machine.
        Place::File(path) if client.any_path => path.display().to_string(),
        Place::File(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    Ok(http::json(&json!({
        "default_generation_settings": {
            "n_ctx": lease.context,
            "params": {
                "temperature": defaults.temperature,
                "top_k": defaults.top_k,
                "top_p": defaults.top_p,
                "min_p": defaults.min_p,
                "typical_p": defaults.typical_p,
                "repeat_penalty": defaults.repeat_penalty,
                "presence_penalty": defaults.presence_penalty,
                "frequency_penalty": defaults.frequency_penalty,
                "repeat_last_n": defaults.repeat_last_n,
            },
        },
        "total_slots": hub.parallel(),
        "model_alias": lease.name,
        "model_path": path,
        "modalities": {"vision": false, "audio": false},
        "chat_template": template,
        "bos_token": token(tokenizer.bos()),
        "eos_token": token(tokenizer.eos()),
        "build_info": concat!("ir ", env!("CARGO_PKG_VERSION")),
    })))
}

/// Refused: properties are set when the server starts
#[utoipa::path(post, path = "/props", responses((status = 501, description = "Not here")))]
async fn change_props() -> ApiError {
    ApiError::new(Kind::NotImplemented, "properties cannot be changed while the server runs: start it with other flags")
}

/// Ranks documents by how well they answer a query; not possible yet
#[utoipa::path(post, path = "/v1/rerank", responses((status = 501, description = "No reranker can be loaded yet")))]
async fn rerank() -> ApiError {
    ApiError::new(
        Kind::NotImplemented,
        "no reranker is loaded, and this version cannot load one: compare the embeddings of /v1/embeddings instead",
    )
}
