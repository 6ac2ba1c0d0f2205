//! `POST /v1/chat/completions`: from request to parameters, and from the running job to its answer.

use serde::Deserialize;
use serde_json::{Map, Value as Json};
use utoipa::ToSchema;

use super::chat_answer::{CallForms, ChatCompletion, Head};
use super::chat_stream::ChatEncoder;
use crate::api::common::body::{Bodies, Client};
use crate::api::common::choice::{ToolChoiceForm, choose};
use crate::api::common::fields::{Common, effort};
use crate::api::common::format::ResponseFormat;
use crate::api::common::generation::{TokenCount, counting, generate, generating};
use crate::api::common::ignored::Ignored;
use crate::api::common::known::Known;
use crate::api::common::message::{OpenAiMessage, messages};
use crate::api::common::openai_error::OpenAiErrors;
use crate::api::common::params::GenerationParams;
use crate::api::common::tools::{Function, Tool, Tools, check_tools, text_tools};
use crate::api::common::util::{chat_of, whole};
use crate::engine::error::ApiError;
use crate::generate::job::{Chat, Prompt, Think};
use crate::generate::running::Running;

/// What only chats have.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct ChatFields {
    /// The turns so far; at least one. A last one of the assistant is the beginning of the answer.
    #[schema(min_items = 1)]
    messages: Vec<OpenAiMessage>,
    /// Tools that the model may call.
    tools: Option<Vec<Known<Tool>>>,
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
    reasoning_effort: Option<String>,
    /// The same in another form.
    reasoning: Option<Reasoning>,
    /// The same as a switch, or by its effort. (Ollama's.)
    #[schema(value_type = Option<Value>)]
    think: Option<Json>,
    /// The same as a switch. (vLLM's.)
    enable_thinking: Option<bool>,
    /// The same with a `type`: `enabled` or `disabled`. (Anthropic's.)
    #[schema(value_type = Option<Value>)]
    thinking: Option<Json>,
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
    /// Functions in the form that `tools` replaced; the answer's call has the older form then too.
    functions: Option<Vec<Function>>,
    /// Whether and which of them is called: `auto`, `none`, or an object with a `name`.
    #[schema(value_type = Option<Value>)]
    function_call: Option<FunctionChoice>,
}

/// Which function is called, in the older form.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "give \"auto\", \"none\" or an object with the name of a function")]
pub(crate) enum FunctionChoice {
    /// `auto` or `none`.
    Word(String),
    /// This one.
    Named {
        /// Its name.
        name: String,
    },
}

/// What an answer is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Modality {
    /// Text.
    Text,
}

/// How much a model reasons.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub(crate) struct Reasoning {
    /// How much: `none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`.
    effort: Option<String>,
    /// Whether at all.
    enabled: Option<bool>,
}

impl ChatFields {
    /// What is asked.
    fn params(self, common: Common, client: Client) -> Result<GenerationParams, ApiError> {
        if self.top_logprobs.is_some_and(|n| n > 0) && self.logprobs == Some(false) {
            return Err(ApiError::param("top_logprobs", "top_logprobs asks for what logprobs: false declines"));
        }
        let ignored = client.ignored.clone();
        let think = self.think(&ignored).unwrap_or_default();
        let format = self.response_format.map(|f| f.grammar(&ignored)).transpose()?.flatten();
        let older = self.functions.into_iter().flatten().map(|f| Known::Read(Tool::from(f)));
        let given: Tools = self.tools.unwrap_or_default().into_iter().chain(older).collect();
        let mut tools = check_tools(given, &ignored)?;
        let choice = self.tool_choice.or(self.function_call.map(FunctionChoice::form));
        let tool_choice = choose(choice, &mut tools, |_, name| name.to_owned())?;
        let chat = Chat {
            tools,
            tool_choice,
            parallel_calls: self.parallel_tool_calls.unwrap_or(true),
            kwargs: self.chat_template_kwargs.unwrap_or_default(),
            ..chat_of(messages(&common.model, self.messages, &ignored)?)
        };
        let under = common.params(client, format.map(|f| (f, "response_format")))?;
        Ok(GenerationParams {
            prompt: Prompt::Chat(Box::new(chat)),
            max_tokens: self.max_completion_tokens.or(under.max_tokens),
            logprobs: self.logprobs == Some(true),
            top: self.top_logprobs.map(|n| ("top_logprobs", n)),
            think,
            ..under
        })
    }

    /// The forms that its calls are to have.
    fn calls(&self) -> CallForms {
        let texts = text_tools(self.tools.as_deref().unwrap_or_default());
        CallForms { older: self.functions.is_some() && self.tools.is_none(), texts }
    }

    /// How much is to be reasoned, in whichever form it is said.
    fn think(&self, ignored: &Ignored) -> Option<Think> {
        let switch = |on: bool| if on { Think::On } else { Think::Off };
        let reasoning = self.reasoning.as_ref();
        let word = self.reasoning_effort.as_deref().or(reasoning.and_then(|r| r.effort.as_deref()));
        let think = || match self.think.as_ref()? {
            Json::Bool(on) => Some(switch(*on)),
            Json::String(word) => effort(word, ignored),
            _ => None,
        };
        let kind = || match self.thinking.as_ref()?.get("type")?.as_str()? {
            "enabled" => Some(Think::On),
            "disabled" => Some(Think::Off),
            _ => None,
        };
        let enabled = || reasoning.and_then(|r| r.enabled).or(self.enable_thinking).map(switch);
        word.and_then(|word| effort(word, ignored)).or_else(think).or_else(enabled).or_else(kind)
    }
}

impl FunctionChoice {
    /// The same in the form of tools.
    fn form(self) -> ToolChoiceForm {
        match self {
            FunctionChoice::Word(word) if word == "none" => ToolChoiceForm::none(),
            FunctionChoice::Word(_) => ToolChoiceForm::default(),
            FunctionChoice::Named { name } => ToolChoiceForm::named(name),
        }
    }
}

/// A chat's fields, all of them.
type ChatRequest = Bodies<Common, ChatFields>;

generating! {
    /// A chat: the model's next turn.
    chat_completions: "/v1/chat/completions" "OpenAI" OpenAiErrors ChatRequest => ChatCompletion;
    (hub, client, Bodies(common, request)) {
        let (model, stream, counts) = (common.model.clone(), common.streams(), common.counts());
        let (n, calls) = (common.n.unwrap_or(1) as usize, request.calls());
        let params = request.params(common, client)?;
        let encoder = |running: &Running| ChatEncoder::new(Head::new(&model, running.created), n, counts, calls);
        generate(&hub, params, stream, encoder).await
    }
}

counting! {
    /// How many tokens a chat's prompt would have.
    chat_input_tokens: "/v1/chat/completions/input_tokens" "OpenAI" OpenAiErrors ChatRequest => TokenCount;
    (client, Bodies(common, request)) request.params(common, client)?
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
    fn older_functions_and_every_dialect_of_reasoning() {
        let functions = json!([{"name": "add", "parameters": {"type": "object"}}]);
        let older = chat(job(json!({"functions": functions, "function_call": {"name": "add"}})).unwrap());
        assert_eq!(older.tool_choice, ToolChoice::Named("add".into()));
        assert_eq!(older.tools[0]["function"]["name"], "add");
        let none = chat(job(json!({"functions": functions, "function_call": "none"})).unwrap());
        assert_eq!(none.tool_choice, ToolChoice::None);
        for (body, want) in [
            (json!({"reasoning_effort": "enormous"}), Think::Default),
            (json!({"reasoning_effort": "none"}), Think::Off),
            (json!({"reasoning": {"effort": "medium"}}), Think::Effort("medium".into())),
            (json!({"reasoning": {"enabled": true}}), Think::On),
            (json!({"think": true}), Think::On),
            (json!({"think": "max"}), Think::Effort("high".into())),
            (json!({"enable_thinking": false}), Think::Off),
            (json!({"thinking": {"type": "disabled"}}), Think::Off),
        ] {
            assert_eq!(job(body.clone()).unwrap().think, want, "{body}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, param) in [
            (json!({"messages": "hi"}), "messages"),
            (json!({"messages": [{"role": "user", "content": 1}]}), "messages[0].content"),
            (json!({"top_logprobs": 21}), "top_logprobs"),
            (json!({"top_logprobs": 1, "logprobs": false}), "top_logprobs"),
            (json!({"reasoning_effort": 5}), "reasoning_effort"),
            (json!({"response_format": {"type": "yaml"}}), "response_format.type"),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (json!({"modalities": ["text", "audio"]}), "modalities[1]"),
            (json!({"functions": [{"description": "d"}]}), "functions[0].name"),
            (json!({"functions": [], "function_call": {"name": "add"}}), "tool_choice"),
            (json!({"max_completion_tokens": 1.5}), "max_completion_tokens"),
        ] {
            let error = job(body.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{body}: {error}");
        }
    }
}
