//! Ollama's API: generation and chats here, what is known of models in `models`, options in `options`.

mod answer;
mod models;
pub(crate) mod options;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{any, get, post};
use ir_engine::text::chat::{Message, ToolCall};
use serde::Deserialize;
use serde_json::Value as Json;

use crate::error::{ApiError, Kind};
use crate::http::{Body, Client};
use crate::hub::Hub;
use crate::job::{Chat, Grammar, Job, KeepAlive, ModelRef, Prompt, Think};
use crate::loaded::Lease;
use answer::{Shape, respond};
pub use options::duration;

/// The routes.
pub(crate) fn routes() -> Router<Hub> {
    Router::new()
        .route("/api/generate", post(generate))
        .route("/api/chat", post(chat))
        .route("/api/tags", get(models::tags))
        .route("/api/ps", get(models::ps))
        .route("/api/show", post(models::show))
        .route("/api/version", get(models::version))
        .route("/api/pull", any(later))
        .route("/api/push", any(later))
        .route("/api/create", any(later))
        .route("/api/copy", any(later))
        .route("/api/delete", any(later))
        .route("/api/blobs/{digest}", any(later))
}

async fn later() -> ApiError {
    ApiError::new(Kind::NotImplemented, "there is no model store yet: put GGUF files into the models folder instead")
}

/// What `/api/generate` and `/api/chat` have in common.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Common {
    model: String,
    stream: Option<bool>,
    format: Option<Json>,
    options: Option<Json>,
    keep_alive: Option<Json>,
    think: Option<Json>,
    truncate: Option<bool>,
    logprobs: bool,
    top_logprobs: i64,
}

/// `POST /api/generate`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GenerateRequest {
    #[serde(flatten)]
    common: Common,
    prompt: String,
    suffix: String,
    system: String,
    template: String,
    context: Vec<u32>,
    raw: bool,
    images: Option<Vec<String>>,
}

/// `POST /api/chat`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChatRequest {
    #[serde(flatten)]
    common: Common,
    messages: Vec<ChatMessage>,
    tools: Option<Vec<Json>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChatMessage {
    role: String,
    content: String,
    thinking: Option<String>,
    images: Option<Vec<String>>,
    tool_calls: Option<Vec<ToolCall>>,
    tool_name: Option<String>,
    tool_call_id: Option<String>,
}

impl Common {
    /// The job without its prompt, and whether the model is to be unloaded after it.
    fn job(&self, client: Client) -> Result<Job, ApiError> {
        if self.model.is_empty() {
            return Err(ApiError::invalid("model is required"));
        }
        if !(0..=20).contains(&self.top_logprobs) {
            return Err(ApiError::invalid("top_logprobs must be between 0 and 20"));
        }
        let keep_alive = self.keep_alive.as_ref().filter(|v| !v.is_null()).map(options::keep_alive).transpose()?;
        let model = ModelRef { name: self.model.clone(), any_path: client.any_path, keep_alive, ..ModelRef::default() };
        let mut job = Job { model, n: 1, defaults: options::defaults(), ..Job::default() };
        if let Some(given) = self.options.as_ref().filter(|o| !o.is_null()) {
            options::apply(given, &mut job)?;
        }
        job.logprobs = (self.logprobs || self.top_logprobs > 0).then_some(self.top_logprobs as usize);
        job.think = options::think(self.think.as_ref())?;
        job.grammar = match &self.format {
            None | Some(Json::Null) => None,
            Some(Json::String(s)) if s.is_empty() => None,
            Some(Json::String(s)) if s == "json" => Some(Grammar::Json),
            Some(schema @ Json::Object(_)) => Some(Grammar::JsonSchema(schema.clone())),
            Some(_) => return Err(ApiError::invalid("format must be \"json\" or a JSON schema")),
        };
        Ok(job)
    }

    fn streams(&self) -> bool {
        self.stream.unwrap_or(true)
    }
}

async fn generate(
    State(hub): State<Hub>,
    client: Client,
    Body(request): Body<GenerateRequest>,
) -> Result<Response, ApiError> {
    let mut job = request.common.job(client)?;
    if request.raw && !(request.template.is_empty() && request.system.is_empty() && request.context.is_empty()) {
        return Err(ApiError::invalid("raw mode does not support template, system, or context"));
    }
    refuse_images(&job.model.name, request.images.as_deref())?;
    if request.prompt.is_empty() && request.suffix.is_empty() {
        return load_or_unload(&hub, &job.model, Shape::Generate { raw: request.raw }).await;
    }
    // Held until the job has its own: a model with keep_alive 0 would be loaded twice.
    let lease = hub.open(&job.model).await?;
    check_thinking(&lease, &job)?;
    job.prompt = if !request.suffix.is_empty() {
        if !lease.capabilities.insert {
            return Err(cannot(&job.model.name, "insert"));
        }
        Prompt::Fill { prefix: request.prompt, suffix: request.suffix }
    } else if request.raw {
        Prompt::Text(request.prompt)
    } else {
        let truncate = request.common.truncate.unwrap_or(true);
        one_turn(&lease, request.prompt, request.system, request.template, request.context, truncate)
    };
    let stream = request.common.streams();
    let running = hub.run(job).await?;
    respond(running, request.common.model, Shape::Generate { raw: request.raw }, stream).await
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

async fn chat(State(hub): State<Hub>, client: Client, Body(request): Body<ChatRequest>) -> Result<Response, ApiError> {
    let mut job = request.common.job(client)?;
    let name = job.model.name.clone();
    for message in &request.messages {
        refuse_images(&name, message.images.as_deref())?;
    }
    if request.messages.is_empty() {
        return load_or_unload(&hub, &job.model, Shape::Chat).await;
    }
    let tools = request.tools.unwrap_or_default();
    let lease = hub.open(&job.model).await?;
    if lease.model().template().is_none() {
        return Err(cannot(&name, "chat"));
    }
    if !tools.is_empty() && !lease.capabilities.tools {
        return Err(cannot(&name, "tools"));
    }
    check_thinking(&lease, &job)?;
    let mut messages: Vec<Message> = request.messages.into_iter().map(ChatMessage::into_message).collect();
    // A last turn of the assistant is the beginning of the answer.
    let open = messages.last().is_some_and(|m| m.role == "assistant" && m.tool_calls.is_empty()) && messages.len() > 1;
    let prefill = if open { messages.pop().and_then(|m| m.content) } else { None };
    let truncate = request.common.truncate.unwrap_or(true);
    let chat = Chat { messages, tools, prefill, truncate, parallel_calls: true, ..Chat::default() };
    job.prompt = Prompt::Chat(Box::new(chat));
    let stream = request.common.streams();
    let running = hub.run(job).await?;
    respond(running, request.common.model, Shape::Chat, stream).await
}

impl ChatMessage {
    fn into_message(self) -> Message {
        Message {
            role: self.role.to_lowercase(),
            content: Some(self.content),
            reasoning_content: self.thinking,
            tool_calls: self.tool_calls.unwrap_or_default(),
            tool_name: self.tool_name,
            tool_call_id: self.tool_call_id,
        }
    }
}

/// An empty prompt loads the model, and unloads it where it is not to be kept.
async fn load_or_unload(hub: &Hub, model: &ModelRef, shape: Shape) -> Result<Response, ApiError> {
    let unload = model.keep_alive == Some(KeepAlive::For(std::time::Duration::ZERO));
    if unload {
        let entry = hub.registry().find(model)?;
        hub.unload(&entry);
    } else {
        hub.open(model).await?;
    }
    Ok(answer::loaded(&model.name, shape, if unload { "unload" } else { "load" }))
}

fn check_thinking(lease: &Lease, job: &Job) -> Result<(), ApiError> {
    let asked = matches!(job.think, Think::On | Think::Effort(_));
    if asked && !lease.capabilities.thinking { Err(cannot(&job.model.name, "thinking")) } else { Ok(()) }
}

fn refuse_images(name: &str, images: Option<&[String]>) -> Result<(), ApiError> {
    if images.is_some_and(|i| !i.is_empty()) { Err(cannot(name, "vision")) } else { Ok(()) }
}

fn cannot(name: &str, what: &str) -> ApiError {
    ApiError::invalid(format!("{:?} does not support {what}", crate::error::cut(name, 200)))
}
