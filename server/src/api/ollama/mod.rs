//! Ollama's API: generation and chats here, what is known of models in `models`, what is done with those of the store in
//! `store` and `create`.

mod answer;
mod create;
mod embed;
mod models;
mod steps;
mod store;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{delete, get, post};
use ir_engine::text::chat::{Message, ToolCall};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::{OpenApi, ToSchema};

use crate::api::common::body::{Bodies, Client, to_json};
use crate::api::common::choice::{ToolChoiceForm, choose};
use crate::api::common::dialect::{Dialect, error_responses};
use crate::api::common::format::loose_schema;
use crate::api::common::ignored::Ignored;
use crate::api::common::known::Known;
use crate::api::common::params::GenerationParams;
use crate::api::common::tools::{Tool, check_tools};
use crate::api::common::unread::{Part, Reading};
use crate::api::common::util::{cannot, chat_of};
use crate::api::common::{generation, options};
use crate::engine::error::ApiError;
use crate::generate::hub::Hub;
use crate::generate::job::{Chat, Grammar, KeepAlive, ModelRef, Prompt};
use crate::generate::running::Running;
use crate::generate::sampling::ollama_sampling;
use crate::models::loaded::Lease;
use answer::{Chatted, Endpoint, Generated, Record, RecordEncoder};

#[derive(OpenApi)]
#[openapi(paths(
    generate,
    chat,
    embed::embed,
    embed::embeddings,
    models::tags,
    models::ps,
    models::show,
    models::version,
    create::create,
    store::pull,
    store::push,
    store::copy,
    store::delete,
    store::blob,
    store::has_blob
))]
pub(crate) struct Api;

/// The form of errors of every address that is no other API's.
pub(crate) const DIALECT: Dialect = Dialect { paths: &[""], body: error_json };

/// What went wrong, as Ollama's clients read it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaError<'a> {
    /// One sentence that says what to do.
    error: &'a str,
}

error_responses! {
    /// The errors of every address under `/api`.
    OllamaErrors: OllamaError<'static>
}

fn error_json(error: &ApiError) -> Json {
    to_json(&OllamaError { error: &error.message })
}

/// The routes.
pub(crate) fn routes() -> Router<Hub> {
    Router::new()
        .route("/api/generate", post(generate))
        .route("/api/chat", post(chat))
        .route("/api/embed", post(embed::embed))
        .route("/api/embeddings", post(embed::embeddings))
        .route("/api/tags", get(models::tags))
        .route("/api/ps", get(models::ps))
        .route("/api/show", post(models::show))
        .route("/api/version", get(models::version))
        .route("/api/pull", post(store::pull))
        .route("/api/push", post(store::push))
        .route("/api/create", post(create::create))
        .route("/api/copy", post(store::copy))
        .route("/api/delete", delete(store::delete))
        .route("/api/blobs/{digest}", post(store::blob).head(store::has_blob))
}

/// What `/api/generate` and `/api/chat` have in common. As in Ollama, `null` is as good as nothing.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct OllamaCommon {
    /// The model's name.
    #[schema(example = "ir-tiny")]
    model: Option<String>,
    /// Whether the answer comes in pieces, one object to a line; true if not given.
    stream: Option<bool>,
    /// `"json"`, or a JSON schema that the answer is held to.
    #[schema(value_type = Option<Value>)]
    format: Option<Json>,
    /// Sampling (`temperature`, `top_k`, `seed`, ...), `num_predict`, `num_ctx`, `num_gpu`, `stop`, `device`.
    #[schema(value_type = Option<Object>)]
    options: Option<Json>,
    /// How long the model stays loaded: seconds, or `"5m"`; negative is for ever, 0 unloads.
    #[schema(value_type = Option<Value>)]
    keep_alive: Option<Json>,
    /// Whether to reason: true, false, or `"low"`, `"medium"`, `"high"`, `"max"`.
    #[schema(value_type = Option<Value>)]
    think: Option<Json>,
    /// Whether the oldest turns of a chat that is too long are dropped; true if not given.
    truncate: Option<bool>,
    /// Whether each token's log-probability is sent.
    logprobs: Option<bool>,
    /// Log-probabilities of this many most likely tokens too: 0 to 20.
    top_logprobs: Option<i64>,
}

/// `POST /api/generate`.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct GenerateFields {
    /// What to continue.
    prompt: Option<String>,
    /// What comes behind what is to be filled in.
    suffix: Option<String>,
    /// Instructions before the prompt.
    system: Option<String>,
    /// A Jinja template instead of the model's.
    template: Option<String>,
    /// The `context` of an earlier answer, to go on from.
    context: Option<Vec<u32>>,
    /// Continues the prompt as it stands.
    raw: Option<bool>,
    /// Refused: no model here sees.
    images: Option<Vec<String>>,
}

/// `POST /api/chat`.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct OllamaChatFields {
    /// The turns so far; none loads the model.
    messages: Option<Vec<ChatMessage>>,
    /// Tools as OpenAI defines them.
    tools: Option<Vec<Known<Tool>>>,
    /// Whether and which of them are called. (OpenAI's.)
    tool_choice: Option<ToolChoiceForm>,
}

/// All fields of `POST /api/generate`.
type GenerateRequest = Bodies<OllamaCommon, GenerateFields>;

/// All fields of `POST /api/chat`.
type ChatRequest = Bodies<OllamaCommon, OllamaChatFields>;

/// A turn of a chat.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct ChatMessage {
    /// `system`, `user`, `assistant` or `tool`.
    role: Option<String>,
    /// Its text.
    content: Option<String>,
    /// The reasoning of an earlier answer.
    thinking: Option<String>,
    /// Refused: no model here sees.
    images: Option<Vec<String>>,
    /// Calls of an earlier answer.
    #[schema(value_type = Option<Vec<Object>>)]
    tool_calls: Option<Vec<ToolCall>>,
    /// The tool whose result this is.
    tool_name: Option<String>,
    /// The call whose result this is.
    tool_call_id: Option<String>,
}

impl OllamaCommon {
    /// What is asked, without its prompt.
    fn params(self, client: Client) -> Result<GenerationParams, ApiError> {
        let grammar = match self.format {
            None | Some(Json::Null) => None,
            Some(Json::String(s)) if s.is_empty() => None,
            Some(Json::String(s)) if s == "json" => Some(Grammar::Json),
            // As Ollama does: what no grammar can hold to is passed over.
            Some(schema @ Json::Object(_)) => Some(Grammar::JsonSchema(loose_schema(&schema, &client.ignored))),
            Some(_) => return Err(ApiError::param("format", "format must be \"json\" or a JSON schema")),
        };
        Ok(GenerationParams {
            model: self.model.unwrap_or_default(),
            client,
            keep_alive: self.keep_alive,
            options: self.options,
            defaults: ollama_sampling(),
            logprobs: self.logprobs == Some(true),
            top: self.top_logprobs.map(|n| ("top_logprobs", n)),
            think: options::think(self.think.as_ref())?,
            think_or_refuse: true,
            grammars: grammar.map(|g| (g, "format")).into_iter().collect(),
            ..GenerationParams::default()
        })
    }

    fn streams(&self) -> bool {
        self.stream.unwrap_or(true)
    }
}

/// Continues a prompt
///
/// Streams objects, one to a line, unless `stream` is false. An empty prompt loads the model, or unloads it where
/// `keep_alive` is 0.
#[utoipa::path(post, path = "/api/generate", request_body = GenerateRequest, responses(
    (status = 200, description = "What was generated", content(
        (Record<Generated> = "application/json"),
        (String = "application/x-ndjson"))),
    OllamaErrors))]
async fn generate(
    State(hub): State<Hub>,
    client: Client,
    Bodies(common, request): GenerateRequest,
) -> Result<Response, ApiError> {
    let (stream, truncate, ignored) = (common.streams(), common.truncate.unwrap_or(true), client.ignored.clone());
    let mut job = common.params(client)?.job()?;
    let model = job.model.name.clone();
    let some = Option::unwrap_or_default;
    let (prompt, suffix, system) = (some(request.prompt), some(request.suffix), some(request.system));
    let (template, context, raw) =
        (some(request.template), request.context.unwrap_or_default(), request.raw.unwrap_or(false));
    if raw && !(template.is_empty() && system.is_empty() && context.is_empty()) {
        return Err(ApiError::invalid("raw mode does not support template, system, or context"));
    }
    refuse_images(&model, request.images.as_deref())?;
    if prompt.is_empty() && suffix.is_empty() {
        return load_or_unload(&hub, &job.model, Endpoint::Generate { raw }).await;
    }
    // Held until the job has its own: a model with keep_alive 0 would be loaded twice.
    let lease = hub.open(&job.model).await?;
    if !lease.capabilities.completion {
        return Err(cannot(&model, "generate"));
    }
    job.prompt = if !suffix.is_empty() {
        if !lease.capabilities.insert {
            return Err(cannot(&model, "insert"));
        }
        Prompt::Fill { prefix: prompt, suffix }
    } else if raw {
        Prompt::Text(prompt)
    } else {
        one_turn(&lease, prompt, system, template, context, truncate)
    };
    let encoder = |_: &Running| RecordEncoder::new(model, Endpoint::Generate { raw });
    generation::run(&hub, job, true, &ignored, stream, encoder).await
}

/// A prompt as a chat of one turn where the model has a template, else as it stands.
fn one_turn(
    lease: &Lease,
    prompt: String,
    system: String,
    template: String,
    tokens: Vec<u32>,
    truncate: bool,
) -> Prompt {
    let template = (!template.is_empty()).then_some(template);
    if lease.model().template().is_none() && template.is_none() {
        return Prompt::Text(if system.is_empty() { prompt } else { format!("{system}\n\n{prompt}") });
    }
    let mut messages = Vec::new();
    if !system.is_empty() {
        messages.push(Message::new("system", system));
    }
    messages.push(Message::new("user", prompt));
    let chat = Box::new(Chat { messages, template, truncate, ..Chat::default() });
    if tokens.is_empty() { Prompt::Chat(chat) } else { Prompt::Continue { tokens, chat } }
}

/// Answers in a chat
///
/// Streams objects, one to a line, unless `stream` is false.
#[utoipa::path(post, path = "/api/chat", request_body = ChatRequest, responses(
    (status = 200, description = "The answer", content(
        (Record<Chatted> = "application/json"),
        (String = "application/x-ndjson"))),
    OllamaErrors))]
async fn chat(
    State(hub): State<Hub>,
    client: Client,
    Bodies(common, request): ChatRequest,
) -> Result<Response, ApiError> {
    let (stream, truncate, ignored) = (common.streams(), common.truncate.unwrap_or(true), client.ignored.clone());
    let params = common.params(client)?;
    let name = params.model.clone();
    let turns = request.messages.unwrap_or_default();
    if turns.is_empty() {
        return load_or_unload(&hub, &params.job()?.model, Endpoint::Chat).await;
    }
    let answered = turns.iter().rposition(ChatMessage::is_answer).map_or(0, |at| at + 1);
    let mut messages = Vec::with_capacity(turns.len());
    for (i, turn) in turns.into_iter().enumerate() {
        messages.push(turn.into_message(i >= answered, &name, &ignored)?);
    }
    let mut tools = check_tools(request.tools.unwrap_or_default(), &ignored)?;
    let tool_choice = choose(request.tool_choice, &mut tools, |_, name| name.to_owned())?;
    let prompt = Prompt::Chat(Box::new(Chat { tools, tool_choice, truncate, ..chat_of(messages) }));
    let params = GenerationParams { prompt, ..params };
    generation::generate(&hub, params, stream, |_| RecordEncoder::new(name, Endpoint::Chat)).await
}

impl ChatMessage {
    fn is_answer(&self) -> bool {
        self.role.as_deref().is_some_and(|role| role.eq_ignore_ascii_case("assistant"))
    }

    /// The turn; `recent`: it stands behind the last answer, so that its images are asked about.
    fn into_message(self, recent: bool, model: &str, ignored: &Ignored) -> Result<Message, ApiError> {
        let role = self.role.unwrap_or_default().to_lowercase();
        let mut content = self.content.unwrap_or_default();
        if self.images.is_some_and(|images| !images.is_empty()) {
            if recent && role != "tool" {
                return Err(cannot(model, "vision"));
            }
            let line = Reading::new(model, ignored).line("images", Part::Image)?;
            content = if content.is_empty() { line } else { format!("{line}\n{content}") };
        }
        Ok(Message {
            role,
            content: Some(content),
            reasoning_content: self.thinking,
            tool_calls: self.tool_calls.unwrap_or_default(),
            tool_name: self.tool_name,
            tool_call_id: self.tool_call_id,
        })
    }
}

/// An empty prompt loads the model, and unloads it where it is not to be kept.
async fn load_or_unload(hub: &Hub, model: &ModelRef, endpoint: Endpoint) -> Result<Response, ApiError> {
    let unload = model.keep_alive == Some(KeepAlive::For(std::time::Duration::ZERO));
    if unload {
        let entry = hub.registry().find(model)?;
        hub.unload(&entry)?;
    } else {
        hub.open(model).await?;
    }
    Ok(answer::loaded(&model.name, endpoint, if unload { "unload" } else { "load" }))
}

fn refuse_images(name: &str, images: Option<&[String]>) -> Result<(), ApiError> {
    if images.is_some_and(|i| !i.is_empty()) { Err(cannot(name, "vision")) } else { Ok(()) }
}
