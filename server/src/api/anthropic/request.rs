//! What Anthropic's clients ask, and the parameters it is. The turns of a chat are in `turns`.

use ir_engine::text::chat::Message;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use utoipa::ToSchema;

use super::turns::{Block, Turn, add_turns, directions, loaded_tools};
use crate::api::common::body::{Bodies, Client};
use crate::api::common::choice::check_choice;
use crate::api::common::fields::effort;
use crate::api::common::format::schema_grammar;
use crate::api::common::ignored::Ignored;
use crate::api::common::known::{Known, Tagged, type_of};
use crate::api::common::params::GenerationParams;
use crate::api::common::unread::Reading;
use crate::api::common::util::{TextOr, chat_of, whole, whole_number};
use crate::engine::error::ApiError;
use crate::generate::job::{Chat, Prompt, SamplingChanges, Think, ToolChoice};
use crate::generate::sampling::plain_sampling;

/// A prompt, of which the tokens are counted.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CountRequest {
    /// A model's name.
    #[schema(example = "ir-tiny")]
    model: String,
    /// The turns so far; at least one. A last one of the assistant is the beginning of the answer.
    #[schema(min_items = 1)]
    messages: Vec<Turn>,
    /// Directions for the model.
    system: Option<TextOr<Known<Block>>>,
    /// Tools that the model may call; those that Anthropic runs are left out.
    tools: Option<Vec<Known<MessagesTool>>>,
    /// Whether and which tools are called.
    tool_choice: Option<Choice>,
    /// Whether the model thinks before it answers.
    thinking: Option<Thinking>,
    /// How much the model thinks; what the answer must be.
    output_config: Option<OutputConfig>,
}

/// A message to be written: a prompt and more.
pub(super) type MessagesRequest = Bodies<CountRequest, MessageFields>;

/// What a message has beside its prompt.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct MessageFields {
    /// Tokens at most, those of the thinking included.
    #[schema(minimum = 1)]
    #[serde(deserialize_with = "whole_number")]
    max_tokens: u64,
    /// Texts before which the message ends.
    stop_sequences: Option<Vec<String>>,
    /// Sends the message as it comes.
    stream: Option<bool>,
    /// Divides the logits; 0 takes the most likely token.
    #[schema(minimum = 0)]
    temperature: Option<f32>,
    /// Keeps the most likely tokens that together reach this probability.
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f32>,
    /// Keeps this many most likely tokens; 0 is off.
    #[schema(minimum = 0)]
    #[serde(default, deserialize_with = "whole")]
    top_k: Option<u64>,
    /// What the answer must be.
    output_config: Option<OutputConfig>,
    /// The same, as it was written before.
    output_format: Option<OutputFormat>,
}

/// A tool.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct MessagesTool {
    /// `custom`, which may be left out: a tool that the client runs.
    #[serde(rename = "type")]
    #[expect(dead_code, reason = "it has told this tool from others")]
    kind: String,
    name: String,
    description: Option<String>,
    /// The JSON schema of its arguments, an object.
    #[schema(value_type = Object)]
    input_schema: Map<String, Json>,
    /// Shown to the model only once a search has found it.
    defer_loading: Option<bool>,
}

impl Tagged for MessagesTool {
    const TYPES: &'static [&'static str] = &["custom"];
    const ABSENT: Option<&'static str> = Some("custom");
}

/// Whether and which tools are called.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Choice {
    /// As the model likes.
    Auto {
        /// One call at most.
        disable_parallel_tool_use: Option<bool>,
    },
    /// At least one of any.
    Any {
        /// One call at most.
        disable_parallel_tool_use: Option<bool>,
    },
    /// This one.
    Tool {
        /// Its name.
        name: String,
        /// One call at most.
        disable_parallel_tool_use: Option<bool>,
    },
    /// None.
    None {},
}

/// Whether the model thinks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub(crate) struct Thinking {
    /// `enabled`, `disabled`, or `adaptive`: as the model does by itself.
    #[serde(rename = "type")]
    kind: String,
}

/// What the answer must be.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub(crate) struct OutputConfig {
    format: Option<OutputFormat>,
    /// How much the model thinks, where it does: `low`, `medium`, `high` or `max`.
    effort: Option<String>,
}

/// What the answer must be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum OutputFormat {
    /// JSON of a schema.
    JsonSchema {
        /// The schema.
        #[schema(value_type = Object)]
        schema: Json,
    },
}

impl MessageFields {
    /// Whether the message is to be streamed.
    pub(super) fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    /// What is asked.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub(super) fn params(self, prompt: CountRequest, client: Client) -> Result<GenerationParams, ApiError> {
        if self.max_tokens == 0 {
            return Err(ApiError::param("max_tokens", "max_tokens must be 1 or more"));
        }
        if let Some(i) = self.stop_sequences.iter().flatten().position(String::is_empty) {
            let field = format!("stop_sequences[{i}]");
            return Err(ApiError::param(&field, format!("{field} is empty: leave it out")));
        }
        let format = self.output_config.and_then(|c| c.format).or(self.output_format);
        let held = format.map(|OutputFormat::JsonSchema { schema }| {
            schema_grammar("output_config.format.schema", &schema, true, &client.ignored)
                .map(|s| (s, "output_config.format"))
        });
        Ok(GenerationParams {
            max_tokens: Some(i64::try_from(self.max_tokens).unwrap_or(i64::MAX)),
            stop: self.stop_sequences,
            sampling: SamplingChanges {
                temperature: self.temperature,
                top_p: self.top_p,
                top_k: self.top_k.map(|k| usize::try_from(k).unwrap_or(usize::MAX)),
                ..SamplingChanges::default()
            },
            grammars: held.transpose()?.into_iter().collect(),
            ..prompt.params(client)?
        })
    }
}

impl CountRequest {
    /// The model's name.
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// What is asked, as far as the prompt goes.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub(super) fn params(self, client: Client) -> Result<GenerationParams, ApiError> {
        if self.messages.is_empty() {
            return Err(ApiError::param("messages", "messages: at least one message is required"));
        }
        let ignored = client.ignored.clone();
        let (reading, mut messages) = (Reading::new(&self.model, &ignored), Vec::new());
        if let Some(system) = self.system {
            messages.push(Message::new("system", directions(reading, system)?));
        }
        let found = loaded_tools(&self.messages);
        add_turns(self.messages, reading, &mut messages)?;
        let tools = offered(self.tools.unwrap_or_default(), &found, &ignored);
        let (tool_choice, one_call) = self.tool_choice.map(Choice::split).unwrap_or_default();
        check_choice(&tool_choice, &tools)?;
        let effort = self.output_config.and_then(|c| c.effort).and_then(|word| effort(&word, &ignored));
        let think = match self.thinking.as_ref().map(|t| t.kind.as_str()) {
            Some("disabled") => Think::Off,
            Some("enabled") => effort.unwrap_or(Think::On),
            Some("adaptive") => effort.unwrap_or_default(),
            Some(_) => {
                ignored.note("thinking of another type");
                Think::Default
            }
            None => Think::Default,
        };
        let chat = Chat { tools, tool_choice, parallel_calls: !one_call, ..chat_of(messages) };
        Ok(GenerationParams {
            model: self.model,
            client,
            prompt: Prompt::Chat(Box::new(chat)),
            defaults: plain_sampling(),
            think,
            ..GenerationParams::default()
        })
    }
}

/// The tools that the model is shown, in the form that templates know: those that the client runs and that are loaded. What
/// was loaded later stands behind the rest, in the order in which it came, so that the prompt so far stays the beginning.
fn offered(tools: Vec<Known<MessagesTool>>, found: &[String], ignored: &Ignored) -> Vec<Json> {
    let (mut all, mut later) = (Vec::with_capacity(tools.len()), Vec::new());
    for tool in tools {
        match tool {
            Known::Read(tool) if tool.defer_loading == Some(true) => {
                let at = found.iter().position(|name| *name == tool.name);
                later.extend(at.map(|at| (at, tool.for_template())));
            }
            Known::Read(tool) => all.push(tool.for_template()),
            Known::Unknown(map) => ignored.note(&format!("tools.{}", type_of(&map))),
        }
    }
    later.sort_by_key(|(at, _)| *at);
    all.extend(later.into_iter().map(|(_, tool)| tool));
    all
}

impl MessagesTool {
    /// In the form that templates know.
    fn for_template(self) -> Json {
        let mut function = Map::new();
        function.insert("name".into(), self.name.into());
        if let Some(text) = self.description {
            function.insert("description".into(), text.into());
        }
        function.insert("parameters".into(), self.input_schema.into());
        json!({"type": "function", "function": function})
    }
}

impl Choice {
    /// The choice, and whether one call is the most.
    fn split(self) -> (ToolChoice, bool) {
        let (choice, one) = match self {
            Choice::Auto { disable_parallel_tool_use: one } => (ToolChoice::Auto, one),
            Choice::Any { disable_parallel_tool_use: one } => (ToolChoice::Required, one),
            Choice::Tool { name, disable_parallel_tool_use: one } => (ToolChoice::Named(name), one),
            Choice::None {} => (ToolChoice::None, None),
        };
        (choice, one == Some(true))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::api::common::body::parse;
    use crate::generate::job::{Grammar, Job};

    fn job(mut body: Json) -> Result<Job, ApiError> {
        let map = body.as_object_mut().unwrap();
        for (field, value) in
            [("model", json!("m")), ("max_tokens", json!(9)), ("messages", json!([{"role": "user", "content": "hi"}]))]
        {
            map.entry(field).or_insert(value);
        }
        let text = body.to_string();
        let prompt = parse::<CountRequest>(text.as_bytes())?;
        parse::<MessageFields>(text.as_bytes())?.params(prompt, Client::default())?.job()
    }

    fn chat(job: Job) -> Chat {
        let Prompt::Chat(chat) = job.prompt else { panic!("{job:?}") };
        *chat
    }

    #[test]
    fn fields_reach_the_job() {
        let tool = json!({"name": "add", "description": "d", "input_schema": {"type": "object"}, "type": "custom"});
        let body = json!({
            "tools": [tool], "tool_choice": {"type": "tool", "name": "add", "disable_parallel_tool_use": true},
            "thinking": {"type": "enabled", "budget_tokens": 1024}, "stop_sequences": ["END"], "top_k": 5,
            "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}, "metadata": {"user_id": "u"},
        });
        let job = job(body).unwrap();
        assert_eq!(
            (job.max_tokens, job.stop.as_slice(), job.sampling.top_k),
            (Some(9), &["END".to_owned()][..], Some(5))
        );
        assert_eq!((&job.think, &job.grammar), (&Think::On, &Some(Grammar::JsonSchema(json!({"type": "object"})))));
        let chat = chat(job);
        assert_eq!((&chat.tool_choice, chat.parallel_calls), (&ToolChoice::Named("add".into()), false));
        assert_eq!(
            chat.tools[0]["function"],
            json!({"name": "add", "description": "d", "parameters": {"type": "object"}})
        );
    }

    #[test]
    fn tools_thinking_and_formats_of_every_kind() {
        let tool = |name: &str, deferred: bool| json!({"name": name, "input_schema": {}, "defer_loading": deferred});
        let web = json!({"type": "web_search_20250305", "name": "web_search", "max_uses": 8});
        let names = |body: Json| {
            let chat = chat(job(body).unwrap());
            chat.tools.iter().map(|t| t["function"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let tools = json!([tool("a", false), tool("b", true), web]);
        assert_eq!(names(json!({"tools": tools, "tool_choice": {"type": "auto"}})), ["a"]);
        let found = json!({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference", "tool_name": "b"}]});
        assert_eq!(names(json!({"tools": tools, "messages": [{"role": "user", "content": [found]}]})), ["a", "b"]);
        // What was loaded later is behind the rest, in the order of its coming.
        let tools = json!([tool("c", true), tool("b", true), tool("a", false)]);
        let called = json!({"type": "tool_use", "id": "u", "name": "c", "input": {}});
        let turns = json!([{"role": "user", "content": [found]}, {"role": "assistant", "content": [called]}, {"role": "user", "content": "Go"}]);
        assert_eq!(names(json!({"tools": tools, "messages": turns})), ["a", "b", "c"]);
        for (body, want) in [
            (
                json!({"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "max"}}),
                Think::Effort("high".into()),
            ),
            (json!({"thinking": {"type": "newer"}}), Think::Default),
            (json!({"output_config": {"effort": "high"}}), Think::Default),
            (json!({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}), Think::Off),
        ] {
            assert_eq!(job(body.clone()).unwrap().think, want, "{body}");
        }
        let older = json!({"type": "json_schema", "schema": {"type": "object"}});
        let held = job(json!({"output_format": older, "output_config": {"effort": "low"}})).unwrap();
        assert_eq!(held.grammar, Some(Grammar::JsonSchema(json!({"type": "object"}))));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let image = json!({"type": "image", "source": {"type": "url", "url": "x"}});
        let web = json!({"type": "web_search_20250305", "name": "web_search"});
        let user = |content: Json| json!({"messages": [{"role": "user", "content": content}]});
        for (body, param) in [
            (json!({"messages": []}), "messages"),
            (user(json!([image])), "messages[0].content[0]"),
            (user(json!([{"type": "text", "text": 5}])), "messages[0].content[0].text"),
            (user(json!([{"type": "document", "source": {"type": "base64"}}])), "messages[0].content[0]"),
            (user(json!(5)), "messages[0].content"),
            (json!({"max_tokens": 0}), "max_tokens"),
            (json!({"max_tokens": "many"}), "max_tokens"),
            (json!({"tool_choice": {"type": "any"}}), "tool_choice"),
            (json!({"tools": [{"name": "f"}]}), "tools[0].input_schema"),
            (json!({"tools": [web], "tool_choice": {"type": "tool", "name": "web_search"}}), "tool_choice"),
            (json!({"stop_sequences": [""]}), "stop_sequences[0]"),
        ] {
            let error = job(body.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{body}: {error}");
        }
        let missing = parse::<MessageFields>(br#"{"model": "m", "messages": []}"#).unwrap_err();
        assert!(missing.message.contains("missing field `max_tokens`"), "{missing}");
    }
}
