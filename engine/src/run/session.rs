//! [`Session`]: one conversation over an engine of its own, for a person at a terminal or a small program.
//! A turn computes only what the turns before have not: the engine finds the common start in its cache.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::engine::Engine;
use super::reader::{AnswerReader, Part};
use super::request::{Event, FinishReason, Request, Sampling, SeqId, Usage};
use super::turn::{ChatInput, ChatTurn, is_open, prompt_ids};
use crate::error::{Error, Result};
use crate::text::Tokenizer;
use crate::text::chat::{Message, Now};
use crate::text::constrain::Constraint;

/// A host's clock: seconds from any start.
pub type Clock = Box<dyn Fn() -> f64 + Send>;

/// How a session's answers are made; may change between turns.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Tokens of an answer at most; `None` means until the context is full.
    pub max_tokens: Option<usize>,
    /// An answer ends before the first of these.
    pub stop: Vec<String>,
    /// Asks the template for reasoning, or for none; `None` leaves its default.
    pub think: Option<bool>,
    /// The date for templates that write one.
    pub now: Now,
    /// Definitions of tools that the model may call, in OpenAI's form.
    pub tools: Vec<Json>,
    /// What an answer is held to, behind the reasoning where there is some. It must have accepted nothing.
    pub constraint: Option<Constraint>,
}

/// A conversation: either chat messages, laid out by the model's template, or plain text that is continued.
pub struct Session {
    engine: Engine,
    clock: Clock,
    /// How answers are made.
    pub options: SessionOptions,
    /// The chat so far; empty where text is continued.
    messages: Vec<Message>,
    /// The conversation as the model saw it.
    tokens: Vec<u32>,
    answer: Option<Answer>,
    usage: Option<(FinishReason, Usage)>,
}

/// An answer under way.
struct Answer {
    id: SeqId,
    reader: AnswerReader,
    message: Message,
    /// It goes on with the chat's last message.
    continues: bool,
}

/// What a session can be brought back from. Keys and values are not kept: they are computed again.
#[derive(Serialize, Deserialize)]
struct Saved {
    format: String,
    version: u32,
    vocabulary: String,
    messages: Vec<Message>,
    tokens: Vec<u32>,
}

const FORMAT: &str = "ir-session";
const VERSION: u32 = 1;

impl Session {
    /// An empty conversation. The sampling starts as the model's file recommends.
    pub fn new(engine: Engine, clock: Clock) -> Session {
        let sampling = Sampling::from_meta(engine.model().meta());
        let options = SessionOptions { sampling, ..SessionOptions::default() };
        Session { engine, clock, options, messages: Vec::new(), tokens: Vec::new(), answer: None, usage: None }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The chat so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The conversation's tokens as the model saw them.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Why the last answer ended and what it took.
    pub fn usage(&self) -> Option<&(FinishReason, Usage)> {
        self.usage.as_ref()
    }

    /// Whether the model has a chat template; without one, text can only be continued with [`Session::extend`].
    pub fn can_chat(&self) -> bool {
        self.engine.model().template().is_some()
    }

    /// Appends plain text, to be continued as it stands.
    pub fn extend(&mut self, text: &str) {
        let model = self.engine.model();
        if model.spec().encoder.is_some() {
            // What an encoder reads is a text by itself.
            self.tokens.clear();
        }
        let tokenizer = self.engine.model().tokenizer();
        let ids =
            if self.tokens.is_empty() { prompt_ids(tokenizer, text) } else { tokenizer.encode(text, false, true) };
        self.tokens.extend(ids);
    }

    /// Keeps the first `n` tokens of a text, for example when what came after did not fit.
    pub fn truncate(&mut self, n: usize) {
        self.tokens.truncate(n);
    }

    /// Appends a message.
    pub fn say(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// Takes the last message back, for example when it did not fit.
    pub fn unsay(&mut self) -> Option<Message> {
        self.messages.pop()
    }

    /// Starts an answer to the conversation; a last message of the assistant, behind others, is its beginning.
    /// [`Session::next`] gives its parts.
    ///
    /// # Errors
    /// A template that refuses the messages, or a conversation that is empty or too long for the context.
    pub fn start(&mut self) -> Result<()> {
        self.stop();
        let options = self.options.clone();
        let turn = self.turn(&options)?;
        self.tokens.clone_from(&turn.ids);
        let request = Request {
            max_tokens: options.max_tokens,
            sampling: options.sampling,
            stop: options.stop,
            ..turn.request(self.engine.model().tokenizer(), options.constraint)
        };
        let id = self.engine.add(request, (self.clock)())?;
        let (reader, continues) = (turn.reader(), is_open(&self.messages));
        let message = Message::new("assistant", "");
        (self.answer, self.usage) = (Some(Answer { id, reader, message, continues }), None);
        Ok(())
    }

    fn turn(&self, options: &SessionOptions) -> Result<ChatTurn> {
        if self.messages.is_empty() {
            // A text that is continued.
            return Ok(ChatTurn::plain(self.tokens.clone()));
        }
        let &SessionOptions { think, now, .. } = options;
        let (messages, tools, seed) = (&self.messages[..], &options.tools[..], options.sampling.seed);
        ChatTurn::new(self.engine.model(), &ChatInput { messages, tools, think, now, seed, ..ChatInput::default() })
    }

    /// The next parts of the answer; `None` when it has ended. There may be none: one step has been made, and the caller may
    /// want to stop.
    ///
    /// # Errors
    /// Where the device or the sequence failed; the answer has ended then.
    pub async fn next(&mut self) -> Result<Option<Vec<Part>>> {
        let Some(id) = self.answer.as_ref().map(|a| a.id) else { return Ok(None) };
        let mut out = Vec::new();
        let mut ended = None;
        let events = match self.engine.step(&*self.clock).await {
            Ok(events) => events,
            Err(error) => {
                self.stop();
                return Err(error);
            }
        };
        for event in events.into_iter().filter(|e| e.seq() == id) {
            match event {
                Event::Token { id, text, .. } => {
                    if !self.engine.model().tokenizer().is_eog(id) {
                        self.tokens.push(id);
                    }
                    if let Some(answer) = &mut self.answer {
                        answer.take(|reader, parts| reader.push(&text, parts), &mut out);
                    }
                }
                Event::Done { reason, usage, .. } => ended = Some(Ok((reason, usage))),
                Event::Error { error, .. } => ended = Some(Err(error)),
                // A session asks for none.
                Event::Embedding { .. } => {}
            }
        }
        if let Some(end) = ended {
            self.close(matches!(end, Ok((FinishReason::Length, _))), &mut out);
            self.usage = Some(end?);
        }
        Ok(Some(out))
    }

    /// Stops the answer under way; what there is of it stays in the conversation.
    pub fn stop(&mut self) {
        let Some(answer) = &self.answer else { return };
        self.engine.cancel(answer.id, (self.clock)());
        for event in self.engine.take_events() {
            if let Event::Done { reason, usage, .. } = event {
                self.usage = Some((reason, usage));
            }
        }
        self.close(false, &mut Vec::new());
    }

    /// Ends the answer, which its limit may have cut: a chat keeps it as a message.
    fn close(&mut self, cut: bool, out: &mut Vec<Part>) {
        let Some(mut answer) = self.answer.take() else { return };
        answer.take(if cut { AnswerReader::cut } else { AnswerReader::finish }, out);
        match self.messages.last_mut() {
            Some(begun) if answer.continues => {
                let Message { content, reasoning_content, tool_calls, .. } = answer.message;
                begun.content.get_or_insert_default().push_str(&content.unwrap_or_default());
                begun.reasoning_content = reasoning_content.or(begun.reasoning_content.take());
                begun.tool_calls.extend(tool_calls);
            }
            Some(_) => self.messages.push(answer.message),
            None => {}
        }
    }

    /// Forgets the conversation; the options stay.
    pub fn reset(&mut self) {
        self.stop();
        self.messages.clear();
        self.tokens.clear();
        self.usage = None;
    }

    /// The conversation as bytes (JSON): messages and tokens, without keys and values.
    ///
    /// # Errors
    /// Never in practice: what is saved is plain data.
    pub fn save(&self) -> Result<Vec<u8>> {
        let saved = Saved {
            format: FORMAT.into(),
            version: VERSION,
            vocabulary: fingerprint(self.engine.model().tokenizer()),
            messages: self.messages.clone(),
            tokens: self.tokens.clone(),
        };
        serde_json::to_vec(&saved).map_err(|e| Error::format(format!("the session cannot be written: {e}")))
    }

    /// Whether these bytes begin as [`Session::save`] writes them: enough to tell a saved session from any other file.
    pub fn is_saved(bytes: &[u8]) -> bool {
        bytes.starts_with(format!("{{\"format\":\"{FORMAT}\"").as_bytes())
    }

    /// Replaces the conversation by a saved one. What was there stays where this fails.
    ///
    /// # Errors
    /// Bytes that are no session, of another version, or of a model with another vocabulary.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        let saved: Saved =
            serde_json::from_slice(bytes).map_err(|e| Error::format(format!("this is no saved session: {e}")))?;
        if saved.format != FORMAT || saved.version != VERSION {
            return Err(Error::unsupported(format!(
                "the session is {:?} version {}, and this program reads {FORMAT} version {VERSION}",
                saved.format, saved.version
            )));
        }
        let tokenizer = self.engine.model().tokenizer();
        if saved.vocabulary != fingerprint(tokenizer) {
            return Err(Error::request("the session was saved with a model of another vocabulary: open that model"));
        }
        let n_vocab = self.engine.model().plan().n_vocab();
        if let Some(id) = saved.tokens.iter().find(|id| **id as usize >= n_vocab) {
            return Err(Error::format(format!("the session holds token id {id} of a vocabulary of {n_vocab}")));
        }
        self.reset();
        (self.messages, self.tokens) = (saved.messages, saved.tokens);
        Ok(())
    }
}

impl Answer {
    /// Adds what `read` gives to the message and to `out`.
    fn take(&mut self, read: impl FnOnce(&mut AnswerReader, &mut Vec<Part>), out: &mut Vec<Part>) {
        let mut parts = Vec::new();
        read(&mut self.reader, &mut parts);
        for part in &parts {
            match part {
                Part::Text(text) => self.message.content.get_or_insert_default().push_str(text),
                Part::Thinking(text) => self.message.reasoning_content.get_or_insert_default().push_str(text),
                Part::CallEnd { call, .. } => self.message.tool_calls.push(call.clone()),
                Part::CallStart { .. } | Part::CallArguments { .. } | Part::CallBroken { .. } => {}
            }
        }
        out.extend(parts);
    }
}

/// Tells vocabularies apart: FNV-1a over the tokens.
fn fingerprint(tokenizer: &Tokenizer) -> String {
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    for id in 0..tokenizer.n_vocab() {
        for byte in tokenizer.piece(id).bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }
    format!("{hash:016x}")
}
