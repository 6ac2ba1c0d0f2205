//! A response as clients read it. How it comes about is `builder`'s.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Map, Value as Json, json};
use utoipa::ToSchema;

use super::tools::ResponseTool;
use super::{ResponseFields, TextConfig, Truncation};
use crate::api::common::choice::ToolChoiceForm;
use crate::api::common::fields::Common;
use crate::api::common::known::Known;
use crate::api::common::util::{TokenLogprob, new_id, unix_seconds};
use crate::generate::job;

/// A response, whole or under way.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ResponseObject {
    id: String,
    object: &'static str,
    /// Seconds since 1970.
    created_at: u64,
    #[schema(required = true)]
    pub(super) completed_at: Option<u64>,
    pub(super) status: Status,
    background: bool,
    #[schema(required = true)]
    pub(super) error: Option<ResponseError>,
    #[schema(required = true)]
    pub(super) incomplete_details: Option<Incomplete>,
    #[schema(required = true)]
    instructions: Option<String>,
    #[schema(required = true)]
    max_output_tokens: Option<i64>,
    model: String,
    pub(super) output: Vec<OutputItem>,
    parallel_tool_calls: bool,
    #[schema(required = true)]
    previous_response_id: Option<String>,
    #[schema(value_type = Object)]
    reasoning: Json,
    store: bool,
    #[schema(required = true)]
    temperature: Option<f32>,
    #[schema(value_type = Object)]
    text: Json,
    tool_choice: ToolChoiceForm,
    /// As they were given.
    #[schema(value_type = Vec<Object>)]
    tools: Vec<Known<ResponseTool>>,
    top_logprobs: i64,
    #[schema(required = true)]
    top_p: Option<f32>,
    truncation: Truncation,
    #[schema(required = true)]
    pub(super) usage: Option<ResponseUsage>,
    #[schema(value_type = Object)]
    metadata: Json,
}

/// How far a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    InProgress,
    Completed,
    Incomplete,
    Failed,
}

/// Why a response failed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ResponseError {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// Why a response is incomplete.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Incomplete {
    pub(super) reason: &'static str,
}

/// An item of a response.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum OutputItem {
    /// What the model thought.
    Reasoning {
        /// Its name.
        id: String,
        /// One text, all of it.
        summary: Vec<SummaryText>,
        status: Status,
    },
    /// What the model says.
    Message {
        /// Its name.
        id: String,
        role: &'static str,
        status: Status,
        /// One text.
        content: Vec<OutputText>,
    },
    /// The model calls a function.
    FunctionCall {
        /// Its name.
        id: String,
        /// What the function's output must name.
        call_id: String,
        /// The function.
        name: String,
        /// That of the function, where it has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// The JSON text of an object.
        arguments: String,
        status: Status,
    },
    /// The model calls a tool that takes a text.
    CustomToolCall {
        /// Its name.
        id: String,
        /// What the tool's output must name.
        call_id: String,
        /// The tool.
        name: String,
        /// That of the tool, where it has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// The text.
        input: String,
        status: Status,
    },
    /// The model looks for tools.
    ToolSearchCall {
        /// Its name.
        id: String,
        /// What the search's output must name.
        call_id: String,
        /// `client`.
        execution: &'static str,
        /// What is looked for.
        #[schema(value_type = Object)]
        arguments: Json,
        status: Status,
    },
}

impl OutputItem {
    /// By which it can be referred to.
    pub(super) fn id(&self) -> &str {
        match self {
            OutputItem::Reasoning { id, .. }
            | OutputItem::Message { id, .. }
            | OutputItem::FunctionCall { id, .. }
            | OutputItem::CustomToolCall { id, .. }
            | OutputItem::ToolSearchCall { id, .. } => id,
        }
    }
}

/// Reasoning.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct SummaryText {
    #[serde(rename = "type")]
    kind: &'static str,
    pub(super) text: String,
}

/// Text of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct OutputText {
    #[serde(rename = "type")]
    kind: &'static str,
    pub(super) text: String,
    #[schema(value_type = Vec<Object>)]
    annotations: [Json; 0],
    pub(super) logprobs: Vec<TokenLogprob>,
}

/// Tokens of a response.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct ResponseUsage {
    input_tokens: usize,
    input_tokens_details: InputDetails,
    output_tokens: usize,
    output_tokens_details: OutputDetails,
    total_tokens: usize,
}

/// Of the input's tokens.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct InputDetails {
    /// Those that had been computed before.
    cached_tokens: usize,
}

/// Of the output's tokens.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct OutputDetails {
    /// Those of the reasoning.
    reasoning_tokens: usize,
}

impl From<&job::Usage> for ResponseUsage {
    fn from(usage: &job::Usage) -> ResponseUsage {
        ResponseUsage {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputDetails { cached_tokens: usage.cached_tokens },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens: usage.thinking_tokens },
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
        }
    }
}

impl SummaryText {
    pub(super) fn new(text: String) -> SummaryText {
        SummaryText { kind: "summary_text", text }
    }
}

impl OutputText {
    pub(super) fn new(text: String) -> OutputText {
        OutputText { kind: "output_text", text, annotations: [], logprobs: Vec::new() }
    }
}

impl ResponseObject {
    /// By which it can be asked for again.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// A response that has not begun.
    pub(super) fn new(common: &Common, fields: &ResponseFields) -> ResponseObject {
        let format = fields.text.as_ref().and_then(|t: &TextConfig| serde_json::to_value(&t.format).ok());
        let format = format.filter(|f| !f.is_null()).unwrap_or_else(|| json!({"type": "text"}));
        let effort = fields.reasoning.as_ref().and_then(|r| r.effort.clone());
        ResponseObject {
            id: new_id("resp_"),
            object: "response",
            created_at: 0,
            completed_at: None,
            status: Status::InProgress,
            background: false,
            error: None,
            incomplete_details: None,
            instructions: fields.instructions.clone(),
            max_output_tokens: fields.max_output_tokens,
            model: common.model.clone(),
            output: Vec::new(),
            parallel_tool_calls: fields.parallel_tool_calls.unwrap_or(true),
            previous_response_id: fields.previous_response_id.clone(),
            reasoning: json!({"effort": effort, "summary": null}),
            store: fields.store != Some(false),
            temperature: common.temperature,
            text: json!({"format": format}),
            tool_choice: fields.tool_choice.clone().unwrap_or_default(),
            tools: fields.tools.clone().unwrap_or_default(),
            top_logprobs: fields.top_logprobs.unwrap_or(0),
            top_p: common.top_p,
            truncation: fields.truncation.unwrap_or(Truncation::Disabled),
            usage: None,
            metadata: fields.metadata.clone().filter(Json::is_object).unwrap_or_else(|| Json::Object(Map::new())),
        }
    }

    /// The response of a job that was asked for at this time.
    pub(super) fn at(self, created: SystemTime) -> ResponseObject {
        ResponseObject { created_at: unix_seconds(created), ..self }
    }
}
