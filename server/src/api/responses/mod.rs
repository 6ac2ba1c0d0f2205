//! OpenAI's `/v1/responses`. Each request brings its conversation, or goes on from a response that was kept (`store`).

mod builder;
mod input;
mod output;
mod store;
mod stored;
mod tools;

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::Extension;
use axum::routing::{get, post};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::{OpenApi, ToSchema};

use crate::api::common::body::{Bodies, Client};
use crate::api::common::choice::{ToolChoiceForm, choose};
use crate::api::common::fields::{Common, effort};
use crate::api::common::format::schema_grammar;
use crate::api::common::generation::{TokenCount, counting, generate, generating};
use crate::api::common::ignored::Ignored;
use crate::api::common::known::Known;
use crate::api::common::openai_error::OpenAiErrors;
use crate::api::common::params::GenerationParams;
use crate::api::common::stream::respond;
use crate::api::common::unread::Reading;
use crate::api::common::util::{TextOr, chat_of, whole};
use crate::engine::error::{ApiError, Kind};
use crate::generate::hub::Hub;
use crate::generate::job::{Chat, Event, Grammar, Output, Prompt};
use builder::{Keep, ResponseBuilder};
use input::{InputItem, Items};
use output::ResponseObject;
use store::ResponseStore;
use tools::{Offered, ResponseTool};

/// The routes.
pub(crate) fn routes() -> Router<Hub> {
    Router::new()
        .route("/v1/responses", post(responses))
        .route("/v1/responses/input_tokens", post(input_tokens))
        .route("/v1/responses/{id}", get(stored::response).delete(stored::delete_response))
        .route("/v1/responses/{id}/input_items", get(stored::input_items))
        .layer(Extension(Arc::new(ResponseStore::default())))
}

/// The addresses, described.
#[derive(Debug, OpenApi)]
#[openapi(paths(responses, input_tokens, stored::response, stored::delete_response, stored::input_items))]
pub(crate) struct Api;

/// What only responses have.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct ResponseFields {
    /// What is asked: a text, or the turns, calls and results so far. With nothing in it the model is loaded, and the
    /// response is empty.
    #[schema(required = true)]
    input: Option<TextOr<Known<InputItem>>>,
    /// Directions for the model, in front of the input.
    instructions: Option<String>,
    /// Tools that the model may call; those that only hosts of other models run are left out.
    tools: Option<Vec<Known<ResponseTool>>>,
    /// Whether and which tools are called.
    tool_choice: Option<ToolChoiceForm>,
    /// Whether an answer may hold more than one call.
    parallel_tool_calls: Option<bool>,
    /// Tokens at most, those of the reasoning included.
    #[serde(default, deserialize_with = "whole")]
    max_output_tokens: Option<i64>,
    /// What the answer must be.
    text: Option<TextConfig>,
    /// How much the model reasons before it answers.
    reasoning: Option<ReasoningConfig>,
    /// `auto` drops the oldest turns where the input is longer than the context; `disabled` refuses it.
    truncation: Option<Truncation>,
    /// More of the answer: `message.output_text.logprobs`.
    include: Option<Vec<String>>,
    /// Sends the log-probabilities of each token and of this many most likely ones.
    #[schema(minimum = 0, maximum = 20)]
    #[serde(default, deserialize_with = "whole")]
    top_logprobs: Option<i64>,
    /// Comes back with the response.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Json>,
    /// Whether the response is kept in the server's memory, to go on from; true if not given.
    store: Option<bool>,
    /// The response that this one goes on from.
    previous_response_id: Option<String>,
    /// Whether anything is generated; with false the model is loaded, and the response is empty.
    generate: Option<bool>,
    /// Refused: conversations are not kept here by a name.
    #[schema(ignore)]
    conversation: Option<Json>,
    /// Refused likewise.
    #[schema(ignore)]
    prompt: Option<Json>,
}

/// What the answer must be.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct TextConfig {
    format: Option<TextFormat>,
}

/// What the answer must be.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum TextFormat {
    /// Any text.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON of a schema.
    JsonSchema {
        /// What the schema is called.
        name: Option<String>,
        /// The schema.
        #[schema(value_type = Object)]
        schema: Json,
        /// Refuses what the answer cannot be held to, instead of passing over it.
        strict: Option<bool>,
    },
}

/// How much a model reasons.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub(crate) struct ReasoningConfig {
    /// `none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`; models that do not reason pass over it.
    effort: Option<String>,
}

/// What happens to an input that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Truncation {
    /// Its oldest turns are dropped.
    Auto,
    /// It is refused.
    Disabled,
}

impl TextConfig {
    fn grammar(&self, ignored: &Ignored) -> Result<Option<Grammar>, ApiError> {
        Ok(match &self.format {
            None | Some(TextFormat::Text) => None,
            Some(TextFormat::JsonObject) => Some(Grammar::Json),
            Some(TextFormat::JsonSchema { schema, strict, .. }) => {
                Some(schema_grammar("text.format.schema", schema, *strict == Some(true), ignored)?)
            }
        })
    }
}

/// What a request for a response comes to.
#[derive(Debug)]
struct Asked {
    params: GenerationParams,
    builder: ResponseBuilder,
    /// The response without its answer.
    object: ResponseObject,
    /// Whether there is nothing to answer.
    nothing: bool,
}

impl ResponseFields {
    /// Refuses what the answer would be wrong without.
    fn check(&self, common: &Common) -> Result<(), ApiError> {
        let given = |value: &Option<Json>| value.as_ref().is_some_and(|v| !v.is_null());
        let unknown = [("conversation", given(&self.conversation)), ("prompt", given(&self.prompt))];
        if let Some((field, _)) = unknown.into_iter().find(|(_, given)| *given) {
            let message = format!("{field} names what is not kept here: send all of it as input");
            return Err(ApiError::param(field, message));
        }
        if common.n.is_some_and(|n| n > 1) {
            return Err(ApiError::param("n", "a response holds one answer: leave n out"));
        }
        Ok(())
    }

    /// What is asked, and the response that it will be.
    fn asked(mut self, common: Common, client: Client, store: &Arc<ResponseStore>) -> Result<Asked, ApiError> {
        self.check(&common)?;
        // No id is written as an empty one, too.
        self.previous_response_id = self.previous_response_id.filter(|id| !id.is_empty());
        let object = ResponseObject::new(&common, &self);
        let ignored = client.ignored.clone();
        let own = self.own_items()?;
        let nothing = (own.is_empty() && self.previous_response_id.is_none()) || self.generate == Some(false);
        let keep = || Keep {
            store: Arc::clone(store),
            previous: self.previous_response_id.clone(),
            input: serde_json::to_string(&own).unwrap_or_default(),
        };
        let keep = (self.store != Some(false)).then(keep);
        let mut items = match &self.previous_response_id {
            Some(id) => store.conversation(id)?,
            None => Items::new(),
        };
        let earlier = items.len();
        items.extend(input::resolved(own, |id| store.item(id))?);

        let (reading, mut offered) = (Reading::new(&common.model, &ignored), Offered::default());
        offered.add("tools", self.tools.as_deref().unwrap_or_default(), false, &ignored)?;
        input::later_tools(&items, &mut offered, reading)?;
        let offered = offered.finish();
        let mut tools = offered.for_template();
        let tool_choice = choose(self.tool_choice, &mut tools, |namespace, name| offered.shown(namespace, name))?;
        let mut turns = input::messages(items, earlier, &offered, reading)?;
        if let Some(text) = self.instructions.filter(|t| !t.is_empty()) {
            turns.insert(0, ir_engine::text::chat::Message::new("system", text));
        }
        let chat = Chat {
            tools,
            tool_choice,
            parallel_calls: self.parallel_tool_calls.unwrap_or(true),
            truncate: self.truncation == Some(Truncation::Auto),
            ..chat_of(turns)
        };
        let format = self.text.as_ref().map(|text| text.grammar(&ignored)).transpose()?.flatten();
        let wish = self.reasoning.and_then(|r| r.effort).and_then(|word| effort(&word, &ignored));
        let under = common.params(client, format.map(|f| (f, "text.format")))?;
        let params = GenerationParams {
            prompt: Prompt::Chat(Box::new(chat)),
            max_tokens: self.max_output_tokens.or(under.max_tokens),
            logprobs: self.include.iter().flatten().any(|i| i == "message.output_text.logprobs"),
            top: self.top_logprobs.map(|n| ("top_logprobs", n)),
            think: wish.unwrap_or_default(),
            ..under
        };
        let builder = ResponseBuilder::new(object.clone(), offered, keep);
        Ok(Asked { params, builder, object, nothing })
    }

    /// The items of this request.
    fn own_items(&mut self) -> Result<Items, ApiError> {
        match self.input.take() {
            Some(TextOr::Text(text)) if text.is_empty() => Ok(Vec::new()),
            Some(TextOr::Text(text)) => Ok(vec![Known::Read(InputItem::said(text))]),
            Some(TextOr::List(items)) => Ok(items),
            None if self.previous_response_id.is_some() || self.generate == Some(false) => Ok(Vec::new()),
            None => Err(ApiError::param("input", "input: missing field `input`: give text or items")),
        }
    }
}

/// A response's fields, all of them.
type ResponseRequest = Bodies<Common, ResponseFields>;

generating! {
    /// A response: the model's next turn.
    responses: "/v1/responses" "OpenAI" OpenAiErrors ResponseRequest => ResponseObject;
    (hub, client, Bodies(common, request), store: Arc<ResponseStore>) {
        let stream = common.streams();
        let Asked { params, builder, object, nothing } = request.asked(common, client, &store)?;
        if nothing {
            hub.open(&params.job()?.model).await?;
            return Ok(builder.nothing(stream));
        }
        let answer = generate(&hub, params, stream, |running| builder.at(running.created)).await;
        match answer {
            // Clients of this API look for this one among the events.
            Err(error) if stream && matches!(error.kind, Kind::ContextLength { .. }) => {
                let refused = ResponseBuilder::new(object, Offered::default(), None).at(SystemTime::now());
                let failed = Output { choice: 0, event: Event::Failed(error) };
                Ok(respond(stream::iter([failed]).boxed(), refused))
            }
            answer => answer,
        }
    }
}

counting! {
    /// How many tokens a response's input would have.
    input_tokens: "/v1/responses/input_tokens" "OpenAI" OpenAiErrors ResponseRequest => TokenCount;
    (client, Bodies(common, request), store: Arc<ResponseStore>) request.asked(common, client, &store)?.params
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::generate::job::{Job, Think, ToolChoice};
    use serde_json::json;

    fn fill(body: Json) -> Result<(Job, Json), ApiError> {
        let text = body.to_string();
        let common: Common = crate::api::common::body::parse(text.as_bytes())?;
        let request: ResponseFields = crate::api::common::body::parse(text.as_bytes())?;
        let Asked { params, object, .. } = request.asked(common, Client::default(), &Arc::default())?;
        Ok((params.job()?, serde_json::to_value(object).unwrap()))
    }

    #[test]
    fn fields_reach_the_job_and_come_back() {
        let tools = json!([{"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": true}]);
        let body = json!({
            "model": "m", "input": "hi", "instructions": "Be brief.", "tools": tools,
            "tool_choice": {"type": "function", "name": "add"}, "parallel_tool_calls": false, "max_output_tokens": 9,
            "reasoning": {"effort": "low", "summary": "auto"}, "truncation": "auto", "metadata": {"a": "b"},
            "top_logprobs": 1, "temperature": 0.25, "store": true, "previous_response_id": null,
        });
        let (job, object) = fill(body).unwrap();
        assert_eq!((job.max_tokens, job.logprobs, &job.think), (Some(9), Some(1), &Think::Effort("low".into())));
        let Prompt::Chat(chat) = job.prompt else { panic!("no chat") };
        assert_eq!(
            (&chat.tool_choice, chat.parallel_calls, chat.truncate),
            (&ToolChoice::Named("add".into()), false, true)
        );
        assert_eq!((chat.messages[0].role.as_str(), chat.messages.len()), ("system", 2));
        assert_eq!((&object["tools"], &object["temperature"]), (&tools, &json!(0.25)));
        assert_eq!((&object["instructions"], &object["store"]), (&json!("Be brief."), &json!(true)));
        assert_eq!((&object["status"], &object["metadata"]), (&json!("in_progress"), &json!({"a": "b"})));
    }

    #[test]
    fn responses_that_are_not_kept_are_not_found() {
        for (field, value) in
            [("previous_response_id", json!("resp_1")), ("input", json!([{"type": "item_reference", "id": "msg_1"}]))]
        {
            let mut body = json!({"model": "m", "input": "x"});
            body[field] = value;
            let error = fill(body).unwrap_err();
            assert!(error.kind == Kind::NotFound && error.message.contains("_1'"), "{error}");
        }
    }

    #[test]
    fn formats_and_what_is_refused() {
        let format = |format: Json| json!({"model": "m", "input": "hi", "text": {"format": format}});
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        let (job, _) =
            fill(format(json!({"type": "json_schema", "name": "n", "schema": schema, "strict": true}))).unwrap();
        assert_eq!(job.grammar, Some(Grammar::JsonSchema(schema)));
        assert_eq!(fill(format(json!({"type": "text"}))).unwrap().0.grammar, None);
        for (body, param) in [
            (json!({"model": "m", "input": "x", "conversation": "conv_1"}), "conversation"),
            (json!({"model": "m", "input": "x", "n": 2}), "n"),
            (json!({"model": "m"}), "input"),
            (
                json!({"model": "m", "input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
                "input[0].content[0]",
            ),
            (json!({"model": "m", "input": "x", "tool_choice": {"type": "web_search"}}), "tool_choice"),
            (
                json!({"model": "m", "input": "x", "tools": [{"type": "web_search"}], "tool_choice": "required"}),
                "tool_choice",
            ),
            (format(json!({"type": "json_schema", "name": "n", "schema": 5})), "text.format.schema"),
            (json!({"model": "m", "input": "x", "truncation": "maybe"}), "truncation"),
        ] {
            assert_eq!(fill(body.clone()).unwrap_err().param.as_deref(), Some(param), "{body}");
        }
    }
}
