//! [`Layout`]: a chat's prompt as text: the template's, with the answer's given beginning behind it, and what in it is text
//! whatever it spells.

use super::turn::ChatInput;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::text::Tokenizer;
use crate::text::chat::{ChatTemplate, Marked, Message, RenderInput, ThinkTags};
use crate::text::tools::ToolFormat;

/// A prompt that ends where the answer begins.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) text: String,
    /// Places in it for [`Tokenizer::encode_guarded`].
    pub(super) guards: Vec<usize>,
    /// It ends inside the reasoning.
    pub(super) inside: bool,
    /// Markup in messages that counts as markup all the same.
    pub(super) examined: Vec<String>,
}

/// A chat whose last message, if it begins the answer, is apart.
pub(super) struct Parts<'a> {
    pub(super) model: &'a Model,
    pub(super) template: &'a ChatTemplate,
    pub(super) tools: &'a [serde_json::Value],
    pub(super) input: &'a ChatInput<'a>,
    pub(super) prefill: Option<Message>,
}

impl Parts<'_> {
    /// The prompt of these messages.
    pub(super) fn layout(&self, messages: &[Message]) -> Result<Layout> {
        let think = self.input.think;
        let mut marked = self.render(messages, true, think)?;
        let mut prefill = self.prefill.as_ref().and_then(|m| m.content.clone()).unwrap_or_default();
        let mut tail = 0;
        if let (Some(tags), Some(message)) = (self.template.think_tags(), &self.prefill) {
            let reasoning = message.reasoning_content.as_deref().filter(|_| think != Some(false)).unwrap_or_default();
            if !reasoning.is_empty() && !prefill.contains(tags.close) {
                let closed = if prefill.is_empty() { String::new() } else { format!("\n{}\n\n", tags.close) };
                prefill = format!("{}\n{}{closed}{prefill}", tags.open, reasoning.trim());
            }
            tail = self.open(&mut marked, messages, &prefill, tags)?;
        }
        let Marked { mut rendered, mut guards, examined } = marked;
        // What leads to an answer's text where every answer has such.
        let format = ToolFormat::of(Some(self.template), &|text| self.model.tokenizer().id_of(text).is_some());
        let frame = format.map_or("", ToolFormat::frame);
        if !prefill.is_empty() && !prefill.starts_with(frame) && !rendered.text.ends_with(frame) {
            rendered.text += frame;
            tail += if tail > 0 { frame.len() } else { 0 };
        }
        let start = rendered.text.len();
        let text = rendered.text + &prefill;
        let inside = match self.template.think_tags() {
            Some(tags) if self.prefill.is_some() => {
                let tail = text[start - tail..].trim_start();
                tail.starts_with(tags.open) && !tail.contains(tags.close)
            }
            _ => rendered.thinking,
        };
        if !self.input.parse_special {
            let tags = self.template.think_tags();
            guards.extend(prefill_guards(self.model.tokenizer(), &prefill, tags).into_iter().map(|at| start + at));
        }
        Ok(Layout { text, guards, inside, examined })
    }

    /// Makes a prompt that opened the reasoning fit for what the answer begins with: its own reasoning, the end of the opened
    /// one, or the answer's text. Gives the length of the prompt's end that belongs to the reasoning.
    fn open(&self, marked: &mut Marked, messages: &[Message], prefill: &str, tags: ThinkTags) -> Result<usize> {
        if !marked.rendered.thinking || prefill.is_empty() {
            return Ok(if marked.rendered.thinking { opened(&marked.rendered.text, tags) } else { 0 });
        }
        if prefill.trim_start().starts_with(tags.open) {
            let text = &mut marked.rendered.text;
            text.truncate(text.len() - opened(text, tags));
            return Ok(0);
        }
        if prefill.contains(tags.close) {
            return Ok(opened(&marked.rendered.text, tags));
        }
        let off = self.render(messages, true, Some(false)).ok().filter(|off| !off.rendered.thinking);
        match off {
            Some(off) => *marked = off,
            None => {
                let text = &mut marked.rendered.text;
                text.truncate(text.trim_end().len());
                *text += &format!("\n\n{}\n\n", tags.close);
            }
        }
        Ok(0)
    }

    /// The template's text of these messages, without the answer's opening: where the next request is likely to branch off.
    pub(super) fn ends(&self, messages: &[Message]) -> Option<String> {
        self.input_of(messages, false, self.input.think, |input| self.template.render(input)).ok().map(|r| r.text)
    }

    fn render(&self, messages: &[Message], add_generation_prompt: bool, think: Option<bool>) -> Result<Marked> {
        self.input_of(messages, add_generation_prompt, think, |input| {
            if self.input.parse_special {
                let rendered = self.template.render(input)?;
                return Ok(Marked { rendered, guards: Vec::new(), examined: Vec::new() });
            }
            self.template.render_marked(input, self.model.tokenizer())
        })
    }

    fn input_of<T>(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        think: Option<bool>,
        render: impl FnOnce(&RenderInput) -> Result<T>,
    ) -> Result<T> {
        let tokenizer = self.model.tokenizer();
        let text_of = |id: Option<u32>| id.map(|id| tokenizer.piece(id).into_owned()).unwrap_or_default();
        let (bos, eos) = (text_of(tokenizer.bos()), text_of(tokenizer.eos()));
        let ChatInput { kwargs, now, .. } = *self.input;
        let tools = self.tools;
        render(&RenderInput { messages, tools, add_generation_prompt, bos: &bos, eos: &eos, think, kwargs, now })
    }
}

/// The template of a turn.
///
/// # Errors
/// Where there is none.
pub(super) fn template_of<'a>(model: &'a Model, input: &ChatInput<'a>) -> Result<&'a ChatTemplate> {
    let none = || Error::unsupported("this model has no chat template: give it text to continue instead");
    input.template.or(model.template()).ok_or_else(none)
}

/// The length of a prompt's end from the tag on that opens the reasoning.
fn opened(text: &str, tags: ThinkTags) -> usize {
    text.rfind(tags.open).map_or(0, |at| text.len() - at)
}

/// Where a given beginning spells markup; the tags of the reasoning are markup there.
fn prefill_guards(tokenizer: &Tokenizer, prefill: &str, tags: Option<ThinkTags>) -> Vec<usize> {
    let tag = |id: u32| tags.is_some_and(|tags| [tags.open, tags.close].contains(&&*tokenizer.piece(id)));
    let spelled = tokenizer.spelled_markup(prefill).into_iter();
    spelled.filter(|(_, id)| id.is_some_and(|id| !tag(id))).map(|(at, _)| at).collect()
}

/// The ids of a prompt: special tokens parsed but where there are guards, one BOS where the model wants one, whether or not
/// the text has it, and never an EOS, since the text goes on.
pub(super) fn guarded_ids(tokenizer: &Tokenizer, text: &str, guards: &[usize]) -> Vec<u32> {
    let mut ids = tokenizer.encode_guarded(text, guards);
    if tokenizer.add_bos() && ids.first().copied() != tokenizer.bos() {
        ids.splice(0..0, tokenizer.bos());
    }
    ids
}

/// The ids of a prompt that goes on behind others: a BOS stands at the start of all only.
pub(super) fn ids_behind(tokenizer: &Tokenizer, before: &[u32], text: &str, guards: &[usize]) -> Vec<u32> {
    let ids = tokenizer.encode_guarded(text, guards);
    let bos = tokenizer.bos().is_some_and(|bos| ids.first() == Some(&bos));
    [before, &ids[usize::from(bos)..]].concat()
}

/// How many of a prompt's ids stand for the text's beginning `start`; `None` where no token ends there.
pub(super) fn place(tokenizer: &Tokenizer, layout: &Layout, start: &str, ids: &[u32]) -> Option<usize> {
    // The rest is the shorter part of a long chat.
    let rest = layout.text.strip_prefix(start)?;
    let from = layout.guards.partition_point(|guard| *guard < start.len());
    let guards: Vec<usize> = layout.guards[from..].iter().map(|guard| guard - start.len()).collect();
    let rest = tokenizer.encode_guarded(rest, &guards);
    ids.ends_with(&rest).then(|| ids.len() - rest.len())
}
