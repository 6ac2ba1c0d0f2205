//! [`ChatTurn`]: one turn of a chat, the same for the command, the server and the page. Lays out the prompt by the model's
//! template, says where in the answer a constraint begins, and gives the reader that parts reasoning, text and calls.

use serde_json::{Map, Value as Json};

use super::layout::{Parts, guarded_ids, ids_behind, place, template_of};
use super::reader::AnswerReader;
use super::request::{Marks, Request};
use crate::error::Result;
use crate::model::Model;
use crate::text::Tokenizer;
use crate::text::chat::{ChatTemplate, Message, Now, ThinkSplitter, ThinkTags};
use crate::text::constrain::{Begin, Constraint, begin};
use crate::text::tools::{ToolFormat, ToolParser};

/// Whether and which tools are to be called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// None: definitions are left out of the prompt.
    None,
    /// At least one of any.
    Required,
    /// This one.
    Named(String),
}

/// What a turn answers.
#[derive(Debug, Clone)]
pub struct ChatInput<'a> {
    /// The chat so far; at least one message. A last one of the assistant without calls, behind others, is the beginning
    /// of the answer: the model continues it, and it is not given again.
    pub messages: &'a [Message],
    /// Tool definitions in OpenAI's form (`{"type": "function", "function": {...}}`).
    pub tools: &'a [Json],
    /// Whether and which of them are to be called.
    pub tool_choice: ToolChoice,
    /// Whether an answer may hold more than one call.
    pub parallel_calls: bool,
    /// Asks for reasoning, or for none; `None` leaves the template's own default.
    pub think: Option<bool>,
    /// More variables for the template.
    pub kwargs: Option<&'a Map<String, Json>>,
    /// The clock, for templates that write a date.
    pub now: Now,
    /// A template instead of the model's own.
    pub template: Option<&'a ChatTemplate>,
    /// Token ids in front of the chat: an earlier exchange.
    pub before: &'a [u32],
    /// Markup that is spelled in a message (`<|im_end|>`) is markup. Otherwise a message's text is text: only what the
    /// template writes is parsed.
    pub parse_special: bool,
    /// Drops the oldest messages, never the system's or the last, until the prompt has fewer tokens than this.
    pub fit: Option<usize>,
    /// What the identifiers of calls follow from.
    pub seed: u64,
}

impl Default for ChatInput<'_> {
    fn default() -> Self {
        ChatInput {
            messages: &[],
            tools: &[],
            tool_choice: ToolChoice::Auto,
            parallel_calls: true,
            think: None,
            kwargs: None,
            now: Now::default(),
            template: None,
            before: &[],
            parse_special: false,
            fit: None,
            seed: 0,
        }
    }
}

/// A turn: its prompt, and how its answer is written.
#[derive(Debug, Clone, Default)]
pub struct ChatTurn {
    /// The prompt, which ends where the answer begins.
    pub ids: Vec<u32>,
    /// Places in it that a cache had better keep.
    pub marks: Marks,
    /// Messages that did not fit and were dropped.
    pub dropped_messages: usize,
    /// Markup that is spelled in a message and counts as markup all the same, since the template examines it.
    pub examined_markup: Vec<String>,
    is_chat: bool,
    /// The tags around reasoning, where the template names any.
    tags: Option<ThinkTags>,
    /// The prompt ends inside the reasoning.
    inside: bool,
    think: Option<bool>,
    /// How the model writes calls.
    format: Option<ToolFormat>,
    tools: Vec<Json>,
    tool_choice: ToolChoice,
    parallel_calls: bool,
    seed: u64,
}

impl ChatTurn {
    /// The turn that answers a chat.
    ///
    /// # Errors
    /// Where there is no template, or it refuses the messages.
    pub fn new(model: &Model, input: &ChatInput<'_>) -> Result<ChatTurn> {
        let template = template_of(model, input)?;
        let tokenizer = model.tokenizer();
        let mut messages = named_results(input.messages);
        let prefill = take_prefill(&mut messages);
        let tools = if input.tool_choice == ToolChoice::None { &[] } else { input.tools };
        let parts = Parts { model, template, tools, input, prefill };
        let mut dropped_messages = 0;
        let (layout, ids) = loop {
            let layout = parts.layout(&messages)?;
            let ids = match input.before {
                [] => guarded_ids(tokenizer, &layout.text, &layout.guards),
                before => ids_behind(tokenizer, before, &layout.text, &layout.guards),
            };
            let oldest = messages.iter().position(|m| m.role != "system");
            let drops = input.fit.is_some_and(|fit| ids.len() >= fit);
            match oldest.filter(|at| drops && *at + 1 < messages.len()) {
                Some(at) => {
                    messages.remove(at);
                    dropped_messages += 1;
                }
                None => break (layout, ids),
            }
        };
        let last_user = messages.iter().rposition(|m| m.role == "user");
        let before_user = last_user.filter(|at| *at > 0).and_then(|at| parts.ends(&messages[..at]));
        let mark = |start: Option<String>| start.and_then(|start| place(tokenizer, &layout, &start, &ids));
        let marks = Marks { last_user: mark(before_user), messages_end: mark(parts.ends(&messages)) };
        Ok(ChatTurn {
            ids,
            marks,
            dropped_messages,
            examined_markup: layout.examined,
            is_chat: true,
            tags: template.think_tags(),
            inside: layout.inside,
            think: input.think,
            format: ToolFormat::of(Some(template), &|text| tokenizer.id_of(text).is_some()),
            tools: tools.to_vec(),
            tool_choice: input.tool_choice.clone(),
            parallel_calls: input.parallel_calls,
            seed: input.seed,
        })
    }

    /// Token ids that are continued as they stand, without a template: all that comes is text.
    pub fn plain(ids: Vec<u32>) -> ChatTurn {
        ChatTurn { ids, ..ChatTurn::default() }
    }

    /// The text that a chat's turn begins with, the answer's given beginning included.
    ///
    /// # Errors
    /// As [`ChatTurn::new`].
    pub fn text(model: &Model, input: &ChatInput<'_>) -> Result<String> {
        let mut messages = named_results(input.messages);
        let prefill = take_prefill(&mut messages);
        let parts = Parts { model, template: template_of(model, input)?, tools: input.tools, input, prefill };
        parts.layout(&messages).map(|layout| layout.text)
    }

    /// The grammar of the calls that are demanded, if any are: the answer's constraint then, whatever else it is to be.
    ///
    /// # Errors
    /// Tools that have no name, or whose calls cannot be held to.
    #[cfg(feature = "constrain")]
    pub fn demanded_calls(&self) -> Result<Option<crate::text::constrain::Grammar>> {
        use crate::text::constrain::{ToolChoice as Choice, tool_grammar};
        let choice = match &self.tool_choice {
            ToolChoice::Auto | ToolChoice::None => return Ok(None),
            ToolChoice::Required => Choice::Required,
            ToolChoice::Named(name) => Choice::Named(name),
        };
        let tools = self.known_tools()?;
        tool_grammar(self.format(), &as_tools(&tools), choice, self.parallel_calls).map(Some)
    }

    /// What an answer is held to that is to be JSON: that, or calls, where tools may be called. An answer that calls is none
    /// yet. Other grammars are whole answers.
    #[cfg(feature = "constrain")]
    pub fn or_calls(&self, format: crate::text::constrain::Grammar) -> crate::text::constrain::Grammar {
        use crate::text::constrain::{Grammar, tools_or};
        let json = matches!(format, Grammar::Json | Grammar::JsonSchema(_));
        if !json || self.tools.is_empty() || self.format.is_some_and(ToolFormat::frames_answers) {
            return format;
        }
        let tools = self.known_tools().unwrap_or_default();
        tools_or(self.format(), &as_tools(&tools), self.parallel_calls, format.clone()).unwrap_or(format)
    }

    /// The grammar of a call that the answer has begun by itself, where tools may be called and their form shows when one has
    /// begun: for [`ChatTurn::hold_calls`].
    #[cfg(feature = "constrain")]
    pub fn begun_calls(&self) -> Option<crate::text::constrain::Grammar> {
        let tools = self.known_tools().ok().filter(|tools| !tools.is_empty())?;
        Some(crate::text::constrain::begun_call(self.format?, &as_tools(&tools)).ok()??.1)
    }

    /// Holds the calls that an answer begins to a constraint, that of [`ChatTurn::begun_calls`]. What comes before is free;
    /// behind a call come more calls or the end, or anything where a format marks the end of all calls.
    #[cfg(feature = "constrain")]
    pub fn hold_calls(&self, request: &mut Request, constraint: Constraint, tokenizer: &Tokenizer) {
        let Some(trigger) = self.format.and_then(|f| f.row().written).map(|w| w.trigger) else { return };
        let begin = self.begin(tokenizer);
        request.constraint = Some(constraint);
        (request.constrain_after, request.constrain_opener) = (begin.after, begin.opener);
        request.constrain_again = Some(trigger.to_owned());
    }

    #[cfg(feature = "constrain")]
    fn format(&self) -> ToolFormat {
        self.format.unwrap_or(ToolFormat::Hermes)
    }

    /// Names and schemas of the tools.
    #[cfg(feature = "constrain")]
    fn known_tools(&self) -> Result<Vec<(String, Option<Json>)>> {
        let tools: Option<Vec<_>> = self.tools.iter().map(known_tool).collect();
        tools.ok_or_else(|| crate::error::Error::request("a tool has no function.name: give each one"))
    }

    /// The engine's request for it, to be completed with sampling and limits. `constraint`: what the answer must conform
    /// to, which begins behind the reasoning where there is some; it must have accepted nothing.
    pub fn request(&self, tokenizer: &Tokenizer, constraint: Option<Constraint>) -> Request {
        let begin = if self.is_chat && constraint.is_some() { self.begin(tokenizer) } else { Begin::default() };
        Request {
            prompt: self.ids.clone(),
            show: if self.is_chat { ToolFormat::token_ids(tokenizer) } else { Vec::new() },
            constraint,
            constrain_after: begin.after,
            constrain_opener: begin.opener,
            marks: self.marks,
            ..Request::default()
        }
    }

    fn begin(&self, tokenizer: &Tokenizer) -> Begin {
        let calls = matches!(self.tool_choice, ToolChoice::Required | ToolChoice::Named(_));
        begin(self.tags, self.inside, self.format, self.think, calls, tokenizer)
    }

    /// What reads the answer.
    pub fn reader(&self) -> AnswerReader {
        let known: Vec<_> = self.tools.iter().filter_map(known_tool).collect();
        let format = self.format.unwrap_or(ToolFormat::Hermes);
        // Some formats' syntax is around every answer, with tools or without.
        let wanted = !self.tools.is_empty() || (self.format.is_some() && format.frames_answers());
        let splitter = self.tags.map(|tags| ThinkSplitter::new(tags, self.inside));
        let tools = (self.is_chat && wanted).then(|| ToolParser::with_schemas(format, known, self.seed));
        AnswerReader::new(splitter, tools, self.is_chat && !self.parallel_calls)
    }
}

/// A tool's name and the schema of its arguments.
fn known_tool(tool: &Json) -> Option<(String, Option<Json>)> {
    let function = tool.get("function")?;
    Some((function.get("name")?.as_str()?.to_owned(), function.get("parameters").cloned()))
}

#[cfg(feature = "constrain")]
fn as_tools(tools: &[(String, Option<Json>)]) -> Vec<crate::text::constrain::Tool<'_>> {
    tools.iter().map(|(name, of)| crate::text::constrain::Tool { name, parameters: of.as_ref() }).collect()
}

/// The ids of a prompt: special tokens parsed, one BOS where the model wants one, whether or not the text has it, and
/// never an EOS, since the text goes on.
pub fn prompt_ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    guarded_ids(tokenizer, text, &[])
}

/// Gives tools' results the names of the tools that were called: templates of some models write them, and clients send
/// the call's id only.
fn named_results(messages: &[Message]) -> Vec<Message> {
    let mut messages = messages.to_vec();
    for at in 0..messages.len() {
        let (earlier, rest) = messages.split_at_mut(at);
        let message = &mut rest[0];
        if message.role != "tool" || message.tool_name.is_some() || message.tool_call_id.is_none() {
            continue;
        }
        let mut calls = earlier.iter().rev().flat_map(|m| m.tool_calls.iter().rev());
        message.tool_name = calls.find(|c| c.id == message.tool_call_id).map(|c| c.name.clone());
    }
    messages
}

/// Whether a chat ends with the beginning of the answer.
pub(crate) fn is_open(messages: &[Message]) -> bool {
    messages.len() > 1 && messages.last().is_some_and(|m| m.role == "assistant" && m.tool_calls.is_empty())
}

/// Takes the answer's given beginning out of a chat.
fn take_prefill(messages: &mut Vec<Message>) -> Option<Message> {
    is_open(messages).then(|| messages.pop()).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::model::ModelOptions;
    use crate::text::chat::ToolCall;

    fn model() -> Model {
        Model::from_bytes(crate::builtin::bytes(), &ModelOptions::default()).unwrap()
    }

    #[test]
    fn results_get_the_names_of_their_tools() {
        let call = ToolCall { id: Some("c1".into()), name: "add".into(), ..ToolCall::default() };
        let asked = Message { role: "assistant".into(), tool_calls: vec![call], ..Message::default() };
        let result = |id: &str| Message { tool_call_id: Some(id.into()), ..Message::new("tool", "3") };
        let all = named_results(&[Message::new("user", "1+2?"), asked, result("c1"), result("c2")]);
        let names: Vec<_> = all.iter().map(|m| m.tool_name.as_deref()).collect();
        assert_eq!(names, [None, None, Some("add"), None]);
    }

    #[test]
    fn a_last_message_of_the_assistant_begins_the_answer() {
        let mut chat = vec![Message::new("user", "hi"), Message::new("assistant", "Well,")];
        let text = |message: Option<Message>| message.and_then(|m| m.content);
        assert_eq!((text(take_prefill(&mut chat)).as_deref(), chat.len()), (Some("Well,"), 1));
        let mut alone = vec![Message::new("assistant", "Well,")];
        assert_eq!((take_prefill(&mut alone), alone.len()), (None, 1));
        let model = model();
        let turn =
            |messages: &[Message]| ChatTurn::new(&model, &ChatInput { messages, ..ChatInput::default() }).unwrap();
        let (plain, begun) =
            (turn(&[Message::new("user", "hi")]), [Message::new("user", "hi"), Message::new("assistant", "Well,")]);
        let begun = turn(&begun);
        assert!(begun.ids.starts_with(&plain.ids) && begun.ids.len() > plain.ids.len());
        assert_eq!(begun.marks, plain.marks);
    }

    #[test]
    fn marks_are_where_messages_start_and_end() {
        let model = model();
        let turn =
            |messages: &[Message]| ChatTurn::new(&model, &ChatInput { messages, ..ChatInput::default() }).unwrap();
        let (hi, there, more) =
            (Message::new("user", "hi"), Message::new("assistant", "Hello!"), Message::new("user", "more"));
        let first = turn(std::slice::from_ref(&hi));
        let (end, none) = (first.marks.messages_end.unwrap(), first.marks.last_user);
        assert!(end < first.ids.len() && none.is_none(), "{:?}", first.marks);
        let second = turn(&[hi, there, more]);
        let Marks { last_user: Some(user), messages_end: Some(all) } = second.marks else {
            panic!("{:?}", second.marks)
        };
        assert!(end < user && user < all && all < second.ids.len(), "{end} {:?} {}", second.marks, second.ids.len());
        // The next turn has all in front of the mark in common with this one.
        assert_eq!(second.ids[..end], first.ids[..end]);
        let text = |ids: &[u32]| model.tokenizer().decode(ids, true);
        assert!(text(&second.ids[user..all]).contains("more") && !text(&second.ids[..user]).contains("more"));
    }

    #[test]
    fn the_oldest_messages_go_where_the_chat_does_not_fit() {
        let model = model();
        let said = |role: &str, n: usize| Message::new(role, "one two three ".repeat(n));
        let messages = [said("system", 1), said("user", 40), said("assistant", 40), said("user", 1)];
        let input = |fit| ChatInput { messages: &messages, fit, ..ChatInput::default() };
        let turn = |fit| ChatTurn::new(&model, &input(fit)).unwrap();
        let all = turn(None);
        assert_eq!((turn(Some(all.ids.len() + 1)).dropped_messages, all.dropped_messages), (0, 0));
        let cut = turn(Some(all.ids.len()));
        assert!(cut.dropped_messages >= 1 && cut.ids.len() < all.ids.len());
        // The system's and the last stay, whatever they take.
        assert_eq!(turn(Some(1)).dropped_messages, 2);
    }
}
