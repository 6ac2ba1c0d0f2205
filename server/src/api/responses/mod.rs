//! OpenAI's `/v1/responses`, without state: each request brings its whole conversation, and nothing is stored.

mod builder;
mod input;
mod output;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::{OpenApi, ToSchema};

use crate::api::common::body::{Bodies, Client};
use crate::api::common::fields::Common;
use crate::api::common::fields::Effort;
use crate::api::common::generation::generate;
use crate::api::common::openai_error::OpenAiErrors;
use crate::api::common::params::GenerationParams;
use crate::api::common::tools::{Tool, ToolChoiceForm, schema_grammar, tools_and_choice};
use crate::api::common::util::{TextOr, chat_of, whole};
use crate::engine::error::ApiError;
use crate::generate::hub::Hub;
use crate::generate::job::{Chat, Grammar, Prompt, Think};
use builder::ResponseBuilder;
use input::{InputItem, messages};
use output::ResponseObject;

/// The routes.
pub(crate) fn routes() -> Router<Hub> {
    Router::new().route("/v1/responses", post(responses))
}

/// The addresses, described.
#[derive(Debug, OpenApi)]
#[openapi(paths(responses))]
pub(crate) struct Api;

/// What only responses have.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct ResponseFields {
    /// What is asked: a text, or the turns, calls and results so far.
    input: TextOr<InputItem>,
    /// Directions for the model, in front of the input.
    instructions: Option<String>,
    /// Tools that the model may call: functions only.
    tools: Option<Vec<Tool>>,
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
    /// Refused: nothing is stored that could be gone on from.
    #[schema(ignore)]
    previous_response_id: Option<Json>,
    /// Refused likewise.
    #[schema(ignore)]
    conversation: Option<Json>,
    /// Refused likewise.
    #[schema(ignore)]
    prompt: Option<Json>,
    /// Refused where true: nothing runs on after its client has left.
    #[schema(ignore)]
    background: Option<bool>,
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
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
pub(crate) struct ReasoningConfig {
    effort: Option<Effort>,
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
    fn grammar(&self) -> Result<Option<Grammar>, ApiError> {
        Ok(match &self.format {
            None | Some(TextFormat::Text) => None,
            Some(TextFormat::JsonObject) => Some(Grammar::Json),
            Some(TextFormat::JsonSchema { schema, strict, .. }) => {
                Some(schema_grammar("text.format.schema", schema, *strict == Some(true))?)
            }
        })
    }
}

impl ResponseFields {
    /// Refuses what needs state.
    fn check(&self, common: &Common) -> Result<(), ApiError> {
        let given = |value: &Option<Json>| value.as_ref().is_some_and(|v| !v.is_null());
        let stored = [
            ("previous_response_id", given(&self.previous_response_id)),
            ("conversation", given(&self.conversation)),
            ("prompt", given(&self.prompt)),
            ("background", self.background == Some(true)),
        ];
        if let Some((field, _)) = stored.into_iter().find(|(_, given)| *given) {
            let message = format!("{field} needs a server that stores responses: send the whole conversation as input");
            return Err(ApiError::param(field, message));
        }
        if common.n.is_some_and(|n| n > 1) {
            return Err(ApiError::param("n", "a response holds one answer: leave n out"));
        }
        Ok(())
    }

    /// What is asked, and the response that it will be.
    fn params(self, common: Common, client: Client) -> Result<(GenerationParams, ResponseObject), ApiError> {
        self.check(&common)?;
        let object = ResponseObject::new(&common, &self);
        let format = self.text.as_ref().map(TextConfig::grammar).transpose()?.flatten();
        let (tools, tool_choice) = tools_and_choice(self.tools, self.tool_choice)?;
        let chat = Chat {
            tools,
            tool_choice,
            parallel_calls: self.parallel_tool_calls.unwrap_or(true),
            truncate: self.truncation == Some(Truncation::Auto),
            ..chat_of(messages(&common.model, self.instructions, self.input)?)
        };
        let under = common.params(client, format.map(|f| (f, "text.format")))?;
        let params = GenerationParams {
            prompt: Prompt::Chat(Box::new(chat)),
            max_tokens: self.max_output_tokens.or(under.max_tokens),
            logprobs: self.include.iter().flatten().any(|i| i == "message.output_text.logprobs"),
            top: self.top_logprobs.map(|n| ("top_logprobs", n)),
            think: self.reasoning.and_then(|r| r.effort).map_or(Think::Default, Effort::think),
            ..under
        };
        Ok((params, object))
    }
}

/// A response's fields, all of them.
type ResponseRequest = Bodies<Common, ResponseFields>;

/// A response: the model's next turn.
#[utoipa::path(
    post,
    path = "/v1/responses",
    tag = "OpenAI",
    request_body = ResponseRequest,
    responses(
        (status = 200, description = "The response, or its events", content(
            (ResponseObject = "application/json"),
            (String = "text/event-stream"),
        )),
        OpenAiErrors,
    )
)]
pub(crate) async fn responses(
    State(hub): State<Hub>,
    client: Client,
    Bodies(common, request): ResponseRequest,
) -> Result<Response, ApiError> {
    let stream = common.streams();
    let (params, object) = request.params(common, client)?;
    generate(&hub, params.job()?, stream, |running| ResponseBuilder::new(object.at(running.created))).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::generate::job::{Job, ToolChoice};
    use serde_json::json;

    fn fill(body: Json) -> Result<(Job, Json), ApiError> {
        let text = body.to_string();
        let common: Common = crate::api::common::body::parse(text.as_bytes())?;
        let request: ResponseFields = crate::api::common::body::parse(text.as_bytes())?;
        let (params, object) = request.params(common, Client::default())?;
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
        assert_eq!((&object["instructions"], &object["store"]), (&json!("Be brief."), &json!(false)));
        assert_eq!((&object["status"], &object["metadata"]), (&json!("in_progress"), &json!({"a": "b"})));
    }

    #[test]
    fn formats_and_what_needs_state() {
        let format = |format: Json| json!({"model": "m", "input": "hi", "text": {"format": format}});
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        let (job, _) =
            fill(format(json!({"type": "json_schema", "name": "n", "schema": schema, "strict": true}))).unwrap();
        assert_eq!(job.grammar, Some(Grammar::JsonSchema(schema)));
        assert_eq!(fill(format(json!({"type": "text"}))).unwrap().0.grammar, None);
        for (body, param) in [
            (json!({"model": "m", "input": "x", "previous_response_id": "resp_1"}), "previous_response_id"),
            (json!({"model": "m", "input": "x", "background": true}), "background"),
            (json!({"model": "m", "input": "x", "n": 2}), "n"),
            (json!({"model": "m", "input": []}), "input"),
            (json!({"model": "m"}), "input"),
            (
                json!({"model": "m", "input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
                "input[0].content[0]",
            ),
            (json!({"model": "m", "input": "x", "tools": [{"type": "web_search"}]}), "tools[0].type"),
            (format(json!({"type": "json_schema", "name": "n", "schema": 5})), "text.format.schema"),
            (json!({"model": "m", "input": "x", "truncation": "maybe"}), "truncation"),
        ] {
            assert_eq!(fill(body.clone()).unwrap_err().param.as_deref(), Some(param), "{body}");
        }
    }
}
