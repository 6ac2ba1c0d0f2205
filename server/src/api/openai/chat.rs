//! `POST /v1/chat/completions`: from request to parameters, and from the running job to its answer.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use utoipa::ToSchema;

use super::chat_answer::{ChatCompletion, Head};
use super::chat_stream::ChatEncoder;
use crate::api::common::body::{Bodies, Client};
use crate::api::common::fields::{Common, Effort};
use crate::api::common::generation::generate;
use crate::api::common::message::{OpenAiMessage, messages};
use crate::api::common::openai_error::OpenAiErrors;
use crate::api::common::params::GenerationParams;
use crate::api::common::tools::{ResponseFormat, Tool, ToolChoiceForm, tools_and_choice};
use crate::api::common::util::{chat_of, whole};
use crate::engine::error::ApiError;
use crate::generate::hub::Hub;
use crate::generate::job::{Chat, Prompt, Think};

/// What only chats have.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct ChatFields {
    /// The turns so far; at least one. A last one of the assistant is the beginning of the answer.
    #[schema(min_items = 1)]
    messages: Vec<OpenAiMessage>,
    /// Tools that the model may call.
    tools: Option<Vec<Tool>>,
    /// Whether and which tools are called.
    tool_choice: Option<ToolChoiceForm>,
    /// Whether an answer may hold more than one call.
    parallel_tool_calls: Option<bool>,
    /// What the answer must be.
    response_format: Option<ResponseFormat>,
    /// Tokens at most, those of the reasoning included; goes over `max_tokens`.
    #[serde(default, deserialize_with = "whole")]
    max_completion_tokens: Option<i64>,
    /// How much the model reasons before it answers.
    reasoning_effort: Option<Effort>,
    /// The same in another form.
    reasoning: Option<Reasoning>,
    /// Sends each token's log-probability.
    logprobs: Option<bool>,
    /// With those of this many most likely tokens.
    #[schema(minimum = 0, maximum = 20)]
    #[serde(default, deserialize_with = "whole")]
    top_logprobs: Option<i64>,
    /// More variables for the model's template. (llama-server's.)
    #[schema(value_type = Option<Object>)]
    chat_template_kwargs: Option<Map<String, Json>>,
    /// What the answer is made of: text only.
    #[expect(dead_code, reason = "reading it refuses others than text")]
    modalities: Option<Vec<Modality>>,
    /// Functions in the form that tools replaced; refused.
    #[schema(ignore)]
    functions: Option<Json>,
}

/// What an answer is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Modality {
    /// Text.
    Text,
}

/// How much a model reasons.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
pub(crate) struct Reasoning {
    /// How much.
    pub(crate) effort: Option<Effort>,
}

impl ChatFields {
    /// What is asked.
    fn params(self, common: Common, client: Client) -> Result<GenerationParams, ApiError> {
        if self.functions.as_ref().is_some_and(|f| !f.is_null()) {
            return Err(ApiError::param("functions", "functions were replaced by tools: give tools"));
        }
        if self.top_logprobs.is_some_and(|n| n > 0) && self.logprobs == Some(false) {
            return Err(ApiError::param("top_logprobs", "top_logprobs asks for what logprobs: false declines"));
        }
        let effort = self.reasoning_effort.or(self.reasoning.and_then(|r| r.effort));
        let format = self.response_format.map(|f| f.grammar()).transpose()?.flatten();
        let (tools, tool_choice) = tools_and_choice(self.tools, self.tool_choice)?;
        let chat = Chat {
            tools,
            tool_choice,
            parallel_calls: self.parallel_tool_calls.unwrap_or(true),
            kwargs: self.chat_template_kwargs.unwrap_or_default(),
            ..chat_of(messages(&common.model, self.messages)?)
        };
        let under = common.params(client, format.map(|f| (f, "response_format")))?;
        Ok(GenerationParams {
            prompt: Prompt::Chat(Box::new(chat)),
            max_tokens: self.max_completion_tokens.or(under.max_tokens),
            logprobs: self.logprobs == Some(true),
            top: self.top_logprobs.map(|n| ("top_logprobs", n)),
            think: effort.map_or(Think::Default, Effort::think),
            ..under
        })
    }
}

/// A chat's fields, all of them.
type ChatRequest = Bodies<Common, ChatFields>;

/// A chat: the model's next turn.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    tag = "OpenAI",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The answer, or its chunks as events", content(
            (ChatCompletion = "application/json"),
            (String = "text/event-stream"),
        )),
        OpenAiErrors,
    )
)]
pub(crate) async fn chat_completions(
    State(hub): State<Hub>,
    client: Client,
    Bodies(common, request): ChatRequest,
) -> Result<Response, ApiError> {
    let (model, stream, counts) = (common.model.clone(), common.streams(), common.counts());
    let job = request.params(common, client)?.job()?;
    let n = job.n;
    generate(&hub, job, stream, |running| ChatEncoder::new(Head::new(&model, running.created), n, counts)).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::generate::job::{Grammar, Job, ToolChoice};
    use serde_json::json;

    fn job(mut body: Json) -> Result<Job, ApiError> {
        let map = body.as_object_mut().unwrap();
        map.entry("model").or_insert("m".into());
        map.entry("messages").or_insert(json!([{"role": "user", "content": "hi"}]));
        let text = body.to_string();
        let common: Common = crate::api::common::body::parse(text.as_bytes())?;
        let request: ChatFields = crate::api::common::body::parse(text.as_bytes())?;
        request.params(common, Client::default())?.job()
    }

    fn chat(job: Job) -> Chat {
        let Prompt::Chat(chat) = job.prompt else { panic!("{job:?}") };
        *chat
    }

    #[test]
    fn fields_reach_the_job() {
        let tools = json!([{"type": "function", "function": {"name": "add"}}]);
        let choice = json!({"type": "function", "function": {"name": "add"}});
        let job = job(json!({
            "tools": tools, "tool_choice": choice, "parallel_tool_calls": false, "max_tokens": 3,
            "max_completion_tokens": 5, "reasoning_effort": "xhigh", "logprobs": true, "top_logprobs": 2,
            "chat_template_kwargs": {"a": 1}, "response_format": {"type": "json_object"}, "store": true,
        }))
        .unwrap();
        assert_eq!((job.max_tokens, job.logprobs), (Some(5), Some(2)));
        assert_eq!((&job.think, &job.grammar), (&Think::Effort("high".into()), &Some(Grammar::Json)));
        let chat = chat(job);
        assert_eq!((chat.tool_choice, chat.parallel_calls), (ToolChoice::Named("add".into()), false));
        assert_eq!((chat.kwargs["a"].as_u64(), chat.truncate), (Some(1), false));
    }

    #[test]
    fn defaults_leave_the_model_alone() {
        let job = job(json!({"tools": null, "response_format": null, "stop": null, "tool_choice": null})).unwrap();
        assert_eq!((job.max_tokens, job.logprobs, &job.think), (None, None, &Think::Default));
        let chat = chat(job);
        assert_eq!((chat.tool_choice, chat.parallel_calls, chat.tools.len()), (ToolChoice::Auto, true, 0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, param) in [
            (json!({"messages": "hi"}), "messages"),
            (json!({"messages": [{"role": "user", "content": 1}]}), "messages[0].content"),
            (json!({"top_logprobs": 21}), "top_logprobs"),
            (json!({"top_logprobs": 1, "logprobs": false}), "top_logprobs"),
            (json!({"reasoning_effort": "enormous"}), "reasoning_effort"),
            (json!({"response_format": {"type": "yaml"}}), "response_format.type"),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (json!({"modalities": ["text", "audio"]}), "modalities[1]"),
            (json!({"functions": []}), "functions"),
            (json!({"max_completion_tokens": 1.5}), "max_completion_tokens"),
        ] {
            let error = job(body.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{body}: {error}");
        }
    }
}
