//! From a job's grammar or required tool call to what the engine holds the answer to ([`Hold`]). Compiling takes
//! milliseconds and more: never on an async thread.

use ir_engine::error::Error;
use ir_engine::text::constrain::{self, AnswerForm, Begin, Constraint, Tool, tool_grammar};
use ir_engine::text::tools::ToolFormat;
use serde_json::Value as Json;

use crate::engine::error::ApiError;
use crate::generate::job::{Chat, Job, Prompt, ToolChoice};
use crate::models::loaded::Loaded;

/// What an answer is held to and where that begins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hold {
    /// `None`: nothing.
    pub(crate) constraint: Option<Constraint>,
    pub(crate) begin: Begin,
}

/// What a job's answer is held to, if anything; `form` where it is a chat's.
///
/// # Errors
/// A grammar or tools that cannot be held to; the error names the field.
pub(crate) fn hold(loaded: &Loaded, job: &Job, form: Option<AnswerForm>) -> Result<Hold, ApiError> {
    let chat = match &job.prompt {
        Prompt::Chat(chat) | Prompt::Continue { chat, .. } => Some(chat.as_ref()),
        Prompt::Text(_) | Prompt::Tokens(_) | Prompt::Fill { .. } => None,
    };
    let format = form.and_then(|f| f.tools).unwrap_or(ToolFormat::Hermes);
    let calls = chat.map(|chat| required_calls(chat, format)).transpose()?.flatten();
    let (field, grammar) = match (calls, &job.grammar) {
        (Some(calls), _) => ("tool_choice", calls),
        (None, Some(grammar)) => (job.grammar_field.unwrap_or("grammar"), grammar.clone()),
        (None, None) => return Ok(Hold::default()),
    };
    let constraint = loaded.constrainer()?.compile(&grammar).map_err(|e| refused(field, &e))?;
    let calls = field == "tool_choice";
    let begin = form.map(|f| f.begin(job.think.switch(), calls, loaded.model().tokenizer())).unwrap_or_default();
    Ok(Hold { constraint: Some(constraint), begin })
}

/// The grammar of the calls that a chat demands.
fn required_calls(chat: &Chat, format: ToolFormat) -> Result<Option<constrain::Grammar>, ApiError> {
    let choice = match &chat.tool_choice {
        ToolChoice::Auto | ToolChoice::None => return Ok(None),
        ToolChoice::Required => constrain::ToolChoice::Required,
        ToolChoice::Named(name) => constrain::ToolChoice::Named(name),
    };
    let nameless = || ApiError::param("tools", "a tool has no function.name: give each one");
    let tool = |tool: &'_ Json| -> Result<(String, Option<Json>), ApiError> {
        let function = tool.get("function").ok_or_else(nameless)?;
        let name = function.get("name").and_then(Json::as_str).ok_or_else(nameless)?;
        Ok((name.to_owned(), function.get("parameters").cloned()))
    };
    let tools = chat.tools.iter().map(tool).collect::<Result<Vec<_>, _>>()?;
    let tools: Vec<Tool> =
        tools.iter().map(|(name, parameters)| Tool { name, parameters: parameters.as_ref() }).collect();
    tool_grammar(format, &tools, choice, chat.parallel_calls).map(Some).map_err(|e| refused("tool_choice", &e))
}

fn refused(field: &str, error: &Error) -> ApiError {
    match error {
        Error::Request(_) | Error::Unsupported(_) | Error::Limit(_) => {
            ApiError::param(field, format!("{field}: {error}"))
        }
        _ => ApiError::new(crate::engine::error::Kind::Internal, error.to_string()),
    }
}
