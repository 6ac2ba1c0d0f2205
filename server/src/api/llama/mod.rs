//! Addresses of llama-server that tools use: tokens, templates, properties, ranking; the list of models in `models`. Its
//! completions are OpenAI's.

mod adapters;
mod models;
mod rerank;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use utoipa::{OpenApi, ToSchema};

use crate::api::common::body::{self as http, Body, Client};
use crate::api::common::dialect::{Dialect, error_responses, status};
use crate::api::common::known::Known;
use crate::api::common::message::{OpenAiMessage, messages};
use crate::api::common::tools::{Tool, check_tools};
use crate::api::common::util::chat_of;
use crate::engine::error::{ApiError, Kind};
use crate::generate::hub::Hub;
use crate::generate::job::{Chat, ModelRef};
use crate::generate::{prompt, recipe};
use crate::models::loaded::Lease;

/// Token ids of one request, at most.
const MAX_TOKENS: usize = 1 << 20;

#[derive(OpenApi)]
#[openapi(paths(
    tokenize,
    detokenize,
    apply_template,
    props,
    change_props,
    adapters::list,
    adapters::set,
    rerank::rerank,
    models::router_models,
    models::fetch,
    models::load,
    models::unload,
    models::events
))]
pub(crate) struct Api;

/// The form of errors of these addresses, and of those of llama-server that are not here.
pub(crate) const DIALECT: Dialect = Dialect {
    paths: &[
        "/tokenize",
        "/detokenize",
        "/apply-template",
        "/props",
        "/lora-adapters",
        "/health",
        "/v1/health",
        "/completion",
        "/models",
        "/slots",
        "/rerank",
        "/reranking",
    ],
    body: error_json,
};

/// What went wrong, as llama-server's clients read it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LlamaError<'a> {
    error: LlamaErrorDetail<'a>,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LlamaErrorDetail<'a> {
    /// The status.
    code: u16,
    /// One sentence that says what to do.
    message: &'a str,
    /// The kind of error, such as `invalid_request_error`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Of a prompt that does not fit: its tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    n_prompt_tokens: Option<usize>,
    /// And those that fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    n_ctx: Option<usize>,
}

error_responses! {
    /// The errors of llama-server's addresses.
    LlamaErrors: LlamaError<'static>
}

fn error_json(error: &ApiError) -> Json {
    let kind = match error.kind {
        Kind::Unauthorized => "authentication_error",
        Kind::Forbidden => "permission_error",
        Kind::NotFound => "not_found_error",
        Kind::Busy | Kind::Unavailable => "unavailable_error",
        Kind::NotImplemented => "not_supported_error",
        Kind::Internal | Kind::Deadline => "server_error",
        Kind::ContextLength { .. } => "exceed_context_size_error",
        Kind::Invalid | Kind::Method | Kind::Slow | Kind::TooLarge => "invalid_request_error",
    };
    let (n_prompt_tokens, n_ctx) = match error.kind {
        Kind::ContextLength { tokens, context } => (Some(tokens), Some(context)),
        _ => (None, None),
    };
    let code = status(error.kind).as_u16();
    let detail = LlamaErrorDetail { code, message: &error.message, kind, n_prompt_tokens, n_ctx };
    http::to_json(&LlamaError { error: detail })
}

pub(crate) fn routes() -> Router<Hub> {
    let mut routes = Router::new()
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/apply-template", post(apply_template))
        .route("/props", get(props).post(change_props))
        .route("/lora-adapters", get(adapters::list).post(adapters::set))
        .route("/models", get(models::router_models).post(models::fetch))
        .route("/models/load", post(models::load))
        .route("/models/unload", post(models::unload))
        .route("/models/sse", get(models::events));
    for path in ["/rerank", "/reranking", "/v1/rerank", "/v1/reranking"] {
        routes = routes.route(path, post(rerank::rerank));
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

/// The tokens of a text.
#[derive(Debug, Serialize, ToSchema)]
struct TokensAnswer {
    tokens: Vec<TokenForm>,
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum TokenForm {
    /// Its id.
    Id(u32),
    /// Its id and its text.
    WithPiece(TokenPiece),
}

/// A token and its text.
#[derive(Debug, Serialize, ToSchema)]
struct TokenPiece {
    id: u32,
    piece: PieceForm,
}

/// A token's text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum PieceForm {
    /// As text.
    Text(String),
    /// As bytes, where they are no whole characters.
    Bytes(Vec<u8>),
}

/// Cuts a text into tokens
#[utoipa::path(post, path = "/tokenize", request_body = TokenizeRequest, responses(
    (status = 200, description = "The tokens", body = TokensAnswer), LlamaErrors))]
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
                let text = String::from_utf8(tokenizer.token_bytes(id).into_owned());
                let piece = text.map_or_else(|e| PieceForm::Bytes(e.into_bytes()), PieceForm::Text);
                TokenForm::WithPiece(TokenPiece { id, piece })
            };
            let form = |id: u32| if request.with_pieces { piece(id) } else { TokenForm::Id(id) };
            Ok(ids.into_iter().map(form).collect())
        })
        .await?;
    Ok(http::json(&TokensAnswer { tokens }))
}

/// Tokens to make text of.
#[derive(Debug, Deserialize, ToSchema)]
struct DetokenizeRequest {
    /// Their ids.
    tokens: Vec<u32>,
    /// The model; without it the one used last.
    model: Option<String>,
}

/// A text.
#[derive(Debug, Serialize, ToSchema)]
struct TextAnswer {
    content: String,
}

/// Makes text of tokens
#[utoipa::path(post, path = "/detokenize", request_body = DetokenizeRequest, responses(
    (status = 200, description = "The text", body = TextAnswer), LlamaErrors))]
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
    Ok(http::json(&TextAnswer { content: tokenizer.decode(&request.tokens, true) }))
}

/// A chat to lay out.
#[derive(Debug, Deserialize, ToSchema)]
struct TemplateRequest {
    /// The turns so far.
    #[schema(min_items = 1)]
    messages: Vec<OpenAiMessage>,
    /// Tools that the model may call.
    tools: Option<Vec<Known<Tool>>>,
    /// More variables for the model's template.
    #[schema(value_type = Option<Object>)]
    chat_template_kwargs: Option<Map<String, Json>>,
    /// The model; without it the one used last.
    #[schema(example = "ir-tiny")]
    model: Option<String>,
}

/// A chat as the model reads it.
#[derive(Debug, Serialize, ToSchema)]
struct PromptAnswer {
    prompt: String,
}

/// Shows a chat as the model reads it
#[utoipa::path(post, path = "/apply-template", request_body = TemplateRequest, responses(
    (status = 200, description = "The prompt", body = PromptAnswer), LlamaErrors))]
async fn apply_template(
    State(hub): State<Hub>,
    client: Client,
    Body(request): Body<TemplateRequest>,
) -> Result<Response, ApiError> {
    let ignored = client.ignored.clone();
    let lease = lease(&hub, request.model, client).await?;
    let tools = check_tools(request.tools.unwrap_or_default(), &ignored)?;
    let kwargs = request.chat_template_kwargs.unwrap_or_default();
    let mut chat = Chat { tools, kwargs, ..chat_of(messages(&lease.name, request.messages, &ignored)?) };
    recipe::texts(&lease.recipe, &mut chat);
    let model = std::sync::Arc::clone(lease.model());
    let prompt = hub.prepared(move || prompt::rendered(&model, &chat)).await?;
    Ok(http::json(&PromptAnswer { prompt }))
}

/// Which model.
#[derive(Debug, Deserialize)]
struct OfModel {
    /// The model; without it the one used last.
    model: Option<String>,
}

/// What a model and its server are like.
#[derive(Debug, Serialize, ToSchema)]
struct Props {
    default_generation_settings: GenerationSettings,
    /// Requests that are computed together.
    total_slots: usize,
    model_alias: String,
    /// The model's file; its name alone for programs elsewhere.
    model_path: String,
    modalities: Modalities,
    /// The chat template, in Jinja.
    chat_template: String,
    bos_token: String,
    eos_token: String,
    build_info: &'static str,
}

/// What a request gets that asks for nothing else.
#[derive(Debug, Serialize, ToSchema)]
struct GenerationSettings {
    /// Tokens of a sequence at most.
    n_ctx: usize,
    params: SamplingParams,
}

/// How tokens are chosen.
#[derive(Debug, Serialize, ToSchema)]
struct SamplingParams {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    typical_p: f32,
    repeat_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    repeat_last_n: usize,
}

/// What a model takes beside text.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Modalities {
    vision: bool,
    audio: bool,
}

/// Says what a model and its server are like
#[utoipa::path(get, path = "/props", params(
    ("model" = Option<String>, Query, description = "The model; without it the one used last")), responses(
    (status = 200, description = "The properties", body = Props), LlamaErrors))]
async fn props(State(hub): State<Hub>, client: Client, Query(of): Query<OfModel>) -> Result<Response, ApiError> {
    let any_path = client.any_path;
    let lease = lease(&hub, of.model, client).await?;
    let (model, defaults) = (lease.model(), ir_engine::run::Sampling::from_meta(lease.model().meta()));
    let tokenizer = model.tokenizer();
    let token = |id: Option<u32>| id.map(|id| tokenizer.piece(id).into_owned()).unwrap_or_default();
    let template = model.meta().opt_str("tokenizer.chat_template").ok().flatten().unwrap_or("");
    let path = match lease.place.path() {
        None => String::new(),
        // Programs elsewhere learn no paths of this machine.
        Some(path) if any_path => path.display().to_string(),
        Some(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    Ok(http::json(&Props {
        default_generation_settings: GenerationSettings {
            n_ctx: lease.context,
            params: SamplingParams {
                temperature: defaults.temperature,
                top_k: defaults.top_k,
                top_p: defaults.top_p,
                min_p: defaults.min_p,
                typical_p: defaults.typical_p,
                repeat_penalty: defaults.repeat_penalty,
                presence_penalty: defaults.presence_penalty,
                frequency_penalty: defaults.frequency_penalty,
                repeat_last_n: defaults.repeat_last_n,
            },
        },
        total_slots: hub.parallel(),
        model_alias: lease.name.clone(),
        model_path: path,
        modalities: Modalities::default(),
        chat_template: template.to_owned(),
        bos_token: token(tokenizer.bos()),
        eos_token: token(tokenizer.eos()),
        build_info: concat!("ir ", env!("CARGO_PKG_VERSION")),
    }))
}

/// Refused: properties are set when the server starts
#[utoipa::path(post, path = "/props", responses((status = 501, description = "Not here", body = LlamaError<'static>)))]
async fn change_props() -> ApiError {
    ApiError::new(Kind::NotImplemented, "properties cannot be changed while the server runs: start it with other flags")
}
