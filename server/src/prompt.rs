//! From a job's prompt to token ids, and the reader of what the model answers: templates, tokenizers, splitters. Runs
//! beside the engine's thread, never on it.

use std::time::{SystemTime, UNIX_EPOCH};

use ir_engine::meta::Meta;
use ir_engine::model::Model;
use ir_engine::run::prompt_ids;
use ir_engine::text::chat::{ChatTemplate, Now, RenderInput, Rendered, ThinkSplitter};
use ir_engine::text::constrain::AnswerForm;
use ir_engine::text::tools::{Piece, ToolFormat, ToolParser};
use serde_json::Value as Json;

use crate::error::ApiError;
use crate::job::{Chat, Job, Part, Prompt, Think, ToolChoice};

/// A prompt ready for the engine.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) ids: Vec<u32>,
    pub(crate) reader: Reader,
    pub(crate) dropped_messages: usize,
    /// How a chat's answer is written.
    pub(crate) form: Option<AnswerForm>,
}

/// Tells reasoning, text and calls apart in one completion.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reader {
    splitter: Option<ThinkSplitter>,
    tools: Option<ToolParser>,
    /// One call is the most: the model's others are passed over.
    one_call: bool,
    /// The call that there was.
    called: Option<usize>,
}

impl Reader {
    /// Takes new text.
    pub(crate) fn push(&mut self, text: &str, parts: &mut Vec<Part>) {
        match &mut self.splitter {
            Some(splitter) => {
                let split = splitter.push(text);
                self.split(split.thinking, &split.answer, parts);
            }
            None => self.answer(text, parts),
        }
    }

    /// Ends the completion.
    pub(crate) fn finish(&mut self, parts: &mut Vec<Part>) {
        if let Some(split) = self.splitter.as_mut().map(ThinkSplitter::finish) {
            self.split(split.thinking, &split.answer, parts);
        }
        if let Some(tools) = &mut self.tools {
            let pieces = tools.finish();
            pieces.into_iter().for_each(|p| self.add(p, parts));
        }
    }

    /// Whether the text so far ends inside the reasoning.
    pub(crate) fn is_thinking(&self) -> bool {
        self.splitter.as_ref().is_some_and(ThinkSplitter::is_thinking)
    }

    fn split(&mut self, thinking: String, answer: &str, parts: &mut Vec<Part>) {
        if !thinking.is_empty() {
            parts.push(Part::Thinking(thinking));
        }
        self.answer(answer, parts);
    }

    fn answer(&mut self, text: &str, parts: &mut Vec<Part>) {
        match &mut self.tools {
            _ if text.is_empty() => {}
            Some(tools) => {
                let pieces = tools.push(text);
                pieces.into_iter().for_each(|p| self.add(p, parts));
            }
            None => parts.push(Part::Text(text.to_owned())),
        }
    }

    fn add(&mut self, piece: Piece, parts: &mut Vec<Part>) {
        let one = self.called.filter(|_| self.one_call);
        let further = |index: usize| one.is_some_and(|called| called != index);
        let part = match piece {
            Piece::CallStart { index, .. } | Piece::Arguments { index, .. } | Piece::CallEnd { index, .. }
                if further(index) =>
            {
                return;
            }
            Piece::Text(text) => Part::Text(text),
            Piece::Thinking(text) => Part::Thinking(text),
            Piece::CallStart { index, id, name } => Part::CallStart { index, id, name },
            Piece::Arguments { index, fragment } => Part::CallArguments { index, fragment },
            Piece::CallEnd { index, call } => {
                self.called.get_or_insert(index);
                Part::CallEnd { index, call }
            }
            Piece::CallBroken { index, text } => {
                if !further(index) {
                    parts.push(Part::CallBroken { index });
                }
                Part::Text(text)
            }
        };
        parts.push(part);
    }
}

/// How a model writes tool calls.
fn tool_format(model: &Model) -> Option<ToolFormat> {
    ToolFormat::of_meta(model.meta(), &|text| model.tokenizer().id_of(text).is_some())
}

/// Makes a job's prompt ready; at most `context` tokens, one of them for the answer.
///
/// # Errors
/// A template that refuses the chat, a prompt that is empty or too long, what the model cannot do.
pub(crate) fn prepare(model: &Model, job: &Job, context: usize, seed: u64) -> Result<Prepared, ApiError> {
    let plain = |ids: Vec<u32>| Prepared { ids, reader: Reader::default(), dropped_messages: 0, form: None };
    let tokenizer = model.tokenizer();
    let prepared = match &job.prompt {
        Prompt::Text(text) => plain(prompt_ids(tokenizer, text)),
        Prompt::Tokens(ids) => plain(ids.clone()),
        Prompt::Fill { prefix, suffix } => plain(fill(model, prefix, suffix)?),
        Prompt::Chat(chat) => layout(model, chat, &job.think, &[], context, seed)?,
        Prompt::Continue { tokens, chat } => layout(model, chat, &job.think, tokens, context, seed)?,
    };
    if prepared.ids.is_empty() {
        return Err(ApiError::invalid("the prompt is empty: give text"));
    }
    if prepared.ids.len() >= context {
        return Err(too_long(prepared.ids.len(), context));
    }
    Ok(prepared)
}

fn too_long(n: usize, context: usize) -> ApiError {
    ApiError::invalid(format!(
        "the input length exceeds the context length: {n} tokens leave no room in a context of {context}; \
         shorten the input or ask for a larger num_ctx"
    ))
}

fn layout(
    model: &Model,
    chat: &Chat,
    think: &Think,
    before: &[u32],
    context: usize,
    seed: u64,
) -> Result<Prepared, ApiError> {
    let own;
    let template = match &chat.template {
        Some(text) if text.contains("{{ .") || text.contains("{{.") => {
            return Err(ApiError::param("template", "templates of Go are not supported: give one in Jinja"));
        }
        Some(text) => {
            own = ChatTemplate::new(text, None)?;
            &own
        }
        None => model.template().ok_or_else(no_template)?,
    };
    let tools: &[Json] = if chat.tool_choice == ToolChoice::None { &[] } else { &chat.tools };
    let mut chat = chat.clone();
    let mut dropped = 0;
    let (rendered, ids) = loop {
        let rendered = render(model, template, &chat, tools, think)?;
        let text = format!("{}{}", rendered.text, chat.prefill.as_deref().unwrap_or(""));
        let mut ids = before.to_vec();
        match before {
            [] => ids = prompt_ids(model.tokenizer(), &text),
            _ => ids.extend(model.tokenizer().encode(&text, false, true)),
        }
        let oldest = chat.messages.iter().position(|m| m.role != "system");
        match oldest.filter(|at| chat.truncate && ids.len() >= context && *at + 1 < chat.messages.len()) {
            Some(at) => {
                chat.messages.remove(at);
                dropped += 1;
            }
            None => break (rendered, ids),
        }
    };
    let format = tool_format(model);
    let names: Vec<&str> = tools.iter().filter_map(|t| t.pointer("/function/name")?.as_str()).collect();
    let wanted = !tools.is_empty() || format == Some(ToolFormat::Harmony);
    let reader = Reader {
        splitter: template.think_tags().map(|tags| ThinkSplitter::new(tags, rendered.thinking)),
        tools: wanted.then(|| ToolParser::new(format.unwrap_or(ToolFormat::Hermes), &names, seed)),
        one_call: !chat.parallel_calls,
        called: None,
    };
    let form = AnswerForm { tags: template.think_tags(), inside: rendered.thinking, tools: format };
    Ok(Prepared { ids, reader, dropped_messages: dropped, form: Some(form) })
}

/// A chat as the model's template lays it out.
///
/// # Errors
/// A model without a template, or one whose template refuses the chat.
pub(crate) fn rendered(model: &Model, chat: &Chat) -> Result<String, ApiError> {
    let template = model.template().ok_or_else(no_template)?;
    let rendered = render(model, template, chat, &chat.tools, &Think::Default)?;
    Ok(format!("{}{}", rendered.text, chat.prefill.as_deref().unwrap_or("")))
}

fn no_template() -> ApiError {
    ApiError::invalid("this model has no chat template: ask /api/generate with raw")
}

fn render(
    model: &Model,
    template: &ChatTemplate,
    chat: &Chat,
    tools: &[Json],
    think: &Think,
) -> Result<Rendered, ApiError> {
    let tokenizer = model.tokenizer();
    let text_of = |id: Option<u32>| id.map(|id| tokenizer.piece(id).into_owned()).unwrap_or_default();
    let (bos, eos) = (text_of(tokenizer.bos()), text_of(tokenizer.eos()));
    let mut kwargs = chat.kwargs.clone();
    if let Think::Effort(effort) = think {
        kwargs.entry("reasoning_effort").or_insert_with(|| effort.as_str().into());
    }
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let input = RenderInput {
        messages: &chat.messages,
        tools,
        add_generation_prompt: true,
        bos: &bos,
        eos: &eos,
        think: think.switch(),
        kwargs: Some(&kwargs),
        now: Now { unix_seconds: seconds, ..Now::default() },
    };
    Ok(template.render(&input)?)
}

/// Whether a model has tokens for filling in, and which: prefix, suffix, middle.
pub(crate) fn fill_tokens(meta: &Meta, id_of: &dyn Fn(&str) -> Option<u32>) -> Option<[u32; 3]> {
    let id = |key: &str, texts: &[&str]| {
        let named = meta.get(&format!("tokenizer.ggml.{key}_token_id")).and_then(|v| v.as_u64());
        named.map(|id| id as u32).or_else(|| texts.iter().find_map(|t| id_of(t)))
    };
    let prefix = id("fim_pre", &["<|fim_prefix|>", "<fim_prefix>", "<PRE>"])?;
    let suffix = id("fim_suf", &["<|fim_suffix|>", "<fim_suffix>", "<SUF>"])?;
    let middle = id("fim_mid", &["<|fim_middle|>", "<fim_middle>", "<MID>"])?;
    Some([prefix, suffix, middle])
}

fn fill(model: &Model, prefix: &str, suffix: &str) -> Result<Vec<u32>, ApiError> {
    let tokenizer = model.tokenizer();
    let [before, after, middle] = fill_tokens(model.meta(), &|text| tokenizer.id_of(text))
        .ok_or_else(|| ApiError::invalid("this model has no tokens for filling in (insert)"))?;
    let mut ids: Vec<u32> = tokenizer.bos().filter(|_| tokenizer.add_bos()).into_iter().collect();
    ids.push(before);
    ids.extend(tokenizer.encode(prefix, false, false));
    ids.push(after);
    ids.extend(tokenizer.encode(suffix, false, false));
    ids.push(middle);
    Ok(ids)
}

#[cfg(test)]
impl Reader {
    /// Of a model that reasons in `<think>` and calls this tool in Hermes' form.
    pub(crate) fn for_tests(tool: &str) -> Reader {
        let splitter = ir_engine::text::chat::ThinkTags::of_template("<think></think>")
            .map(|tags| ThinkSplitter::new(tags, false));
        Reader { splitter, tools: Some(ToolParser::new(ToolFormat::Hermes, &[tool], 1)), ..Reader::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_is_the_most_where_no_more_are_wanted() {
        let text = "<tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>";
        let calls = |one_call: bool| {
            let tools = Some(ToolParser::new(ToolFormat::Hermes, &["a"], 1));
            let mut reader = Reader { tools, one_call, ..Reader::default() };
            let mut parts = Vec::new();
            reader.push(&text.repeat(3), &mut parts);
            reader.finish(&mut parts);
            let of = |index: usize| {
                parts.iter().filter(|p| matches!(p, Part::CallEnd { index: i, .. } if *i == index)).count()
            };
            (of(0), of(1), of(2), parts.iter().any(|p| matches!(p, Part::Text(t) if t.contains("tool_call"))))
        };
        assert_eq!(calls(false), (1, 1, 1, false));
        assert_eq!(calls(true), (1, 0, 0, false));
    }
}
