//! From a job's prompt to the engine's turn: its template, its tokens, and how its answer is read are the engine's. Runs
//! beside the engine's thread, never on it.

use std::time::{SystemTime, UNIX_EPOCH};

use ir_engine::model::Model;
use ir_engine::run::{ChatInput, ChatTurn, prompt_ids};
use ir_engine::text::chat::{ChatTemplate, Now};

use super::job::{Chat, Job, Prompt, Think};
use crate::engine::error::ApiError;
use crate::models::capabilities;

/// A job's turn; at most `context` tokens, one of them for the answer.
///
/// # Errors
/// A template that refuses the chat, a prompt that is empty or too long, what the model cannot do.
pub(crate) fn prepare(model: &Model, job: &Job, context: usize, seed: u64) -> Result<ChatTurn, ApiError> {
    let tokenizer = model.tokenizer();
    let turn = match &job.prompt {
        Prompt::Text(text) => ChatTurn::plain(prompt_ids(tokenizer, text)),
        Prompt::Tokens(ids) => ChatTurn::plain(ids.clone()),
        Prompt::Fill { prefix, suffix } => ChatTurn::plain(fill(model, prefix, suffix)?),
        Prompt::Chat(chat) => chat_turn(model, chat, &job.think, &[], context, seed)?,
        Prompt::Continue { tokens, chat } => chat_turn(model, chat, &job.think, tokens, context, seed)?,
    };
    if turn.ids.is_empty() {
        return Err(ApiError::invalid("the prompt is empty: give text"));
    }
    if turn.ids.len() >= context {
        return Err(ApiError::too_long(turn.ids.len(), context, context >= model.spec().n_context));
    }
    Ok(turn)
}

fn chat_turn(
    model: &Model,
    chat: &Chat,
    think: &Think,
    before: &[u32],
    context: usize,
    seed: u64,
) -> Result<ChatTurn, ApiError> {
    let own = match &chat.template {
        Some(text) if text.contains("{{ .") || text.contains("{{.") => {
            return Err(ApiError::param("template", "templates of Go are not supported: give one in Jinja"));
        }
        Some(text) => Some(ChatTemplate::new(text, None)?),
        None => None,
    };
    if own.is_none() && model.template().is_none() {
        return Err(no_template());
    }
    let mut kwargs = chat.kwargs.clone();
    if let Think::Effort(effort) = think {
        kwargs.entry("reasoning_effort").or_insert_with(|| effort.as_str().into());
    }
    let input = ChatInput {
        tool_choice: chat.tool_choice.clone(),
        parallel_calls: chat.parallel_calls,
        think: think.switch(),
        kwargs: Some(&kwargs),
        template: own.as_ref(),
        before,
        fit: chat.truncate.then_some(context),
        seed,
        ..input(chat)
    };
    let turn = ChatTurn::new(model, &input)?;
    if !turn.examined_markup.is_empty() {
        tracing::warn!(markup = ?turn.examined_markup, "messages spell markup that the template looks for: it counts as markup");
    }
    Ok(turn)
}

/// A chat as the model's template lays it out.
///
/// # Errors
/// A model without a template, or one whose template refuses the chat.
pub(crate) fn rendered(model: &Model, chat: &Chat) -> Result<String, ApiError> {
    if model.template().is_none() {
        return Err(no_template());
    }
    Ok(ChatTurn::text(model, &ChatInput { kwargs: Some(&chat.kwargs), ..input(chat) })?)
}

fn input(chat: &Chat) -> ChatInput<'_> {
    let unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let now = Now { unix_seconds, ..Now::default() };
    // Also among the template's variables, for clients that can send no other fields.
    let parse_special = chat.parse_special || chat.kwargs.get("parse_special").and_then(|v| v.as_bool()) == Some(true);
    ChatInput { messages: &chat.messages, tools: &chat.tools, now, parse_special, ..ChatInput::default() }
}

fn no_template() -> ApiError {
    ApiError::invalid("this model has no chat template: ask /api/generate with raw")
}

fn fill(model: &Model, prefix: &str, suffix: &str) -> Result<Vec<u32>, ApiError> {
    let tokenizer = model.tokenizer();
    let [before, after, middle] = capabilities::fill_tokens(model.meta(), &|text| tokenizer.id_of(text))
        .ok_or_else(|| ApiError::invalid("this model has no tokens for filling in (insert)"))?;
    let mut ids: Vec<u32> = tokenizer.bos().filter(|_| tokenizer.add_bos()).into_iter().collect();
    ids.push(before);
    ids.extend(tokenizer.encode(prefix, false, false));
    ids.push(after);
    ids.extend(tokenizer.encode(suffix, false, false));
    ids.push(middle);
    Ok(ids)
}
