//! Answers held to a grammar: [`Grammar`] says to which, a [`Constrainer`] compiles it for a vocabulary, and a
//! [`Constraint`] says at each token which may follow. Applying that to logits belongs to `run`.
//!
//! Grammars are llguidance's: an Earley parser over lexemes that are matched by derivatives of regular expressions. What
//! is added here: the trie of a vocabulary, schemas made ready, GBNF, grammars of tool calls, bounds against hostile
//! grammars, and bounds on JSON, so that every parser can read it.

mod begin;
mod compile;
mod gbnf;
mod guard;
mod lark;
mod schema;
mod tools;
mod trie;

use std::sync::Arc;

use llguidance::toktrie::SimpleVob;
use llguidance::{Matcher, ParserFactory};
use serde_json::Value as Json;

use self::guard::{Guard, Risks};
use super::Tokenizer;
use crate::error::{Error, Result};
pub use begin::{AnswerForm, Begin};
pub use schema::relaxed;
pub use tools::{Tool, ToolChoice, ToolGrammar, tool_grammar};

/// What an answer must look like, from its first character to its last.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Grammar {
    /// A JSON object.
    Json,
    /// JSON that a schema describes (draft 2020-12 and older). Properties come in the schema's order. An object whose
    /// `properties` are given gets no others unless `additionalProperties` or `patternProperties` say so, or schemas are
    /// combined by `allOf`. `oneOf` counts as `anyOf`. `pattern` is an ECMAScript expression (`\d` is ASCII); a `format`
    /// that is not known is a mere remark. What cannot be held to (`not`, `uniqueItems`, `if`, ...) is refused: see
    /// [`relaxed`].
    JsonSchema(Json),
    /// A regular expression in Rust's syntax that the whole text matches, without look-around; `\d` and `\w` are ASCII.
    Regex(String),
    /// A grammar in llguidance's variant of Lark; its first rule is `start`.
    Lark(String),
    /// A grammar in llama.cpp's GBNF; its first rule is `root`.
    Gbnf(String),
    /// Calls of tools: what [`tool_grammar`] makes.
    Tools(ToolGrammar),
}

/// Compiles grammars for one vocabulary. Building it takes a fraction of a second and a few hundred bytes per token;
/// cloning shares it.
#[derive(Clone)]
pub struct Constrainer {
    factory: Arc<ParserFactory>,
    risks: Arc<Risks>,
    /// Tokens that a text of their own stands for: control tokens and tokens of users, by text.
    marks: Arc<trie::Marks>,
}

impl std::fmt::Debug for Constrainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constrainer").field("n_vocab", &self.factory.tok_env().tok_trie().vocab_size()).finish()
    }
}

impl Constrainer {
    /// Prepares a vocabulary.
    ///
    /// # Errors
    /// A vocabulary too large for the trie (millions of tokens).
    pub fn new(tokenizer: &Tokenizer) -> Result<Constrainer> {
        let trie::Prepared { factory, risks, marks } = trie::prepare(tokenizer)?;
        Ok(Constrainer { factory: Arc::new(factory), risks: Arc::new(risks), marks: Arc::new(marks) })
    }

    /// Compiles a grammar: the constraint of a text that has not begun.
    ///
    /// # Errors
    /// [`Error::Request`] where the grammar is malformed, [`Error::Unsupported`] where a schema asks for what cannot be
    /// held to, [`Error::Limit`] where it is too large. The sentence names the line or the place.
    pub fn compile(&self, grammar: &Grammar) -> Result<Constraint> {
        let matcher = compile::compile(&self.factory, &self.marks, grammar)?;
        let json = matches!(grammar, Grammar::Json | Grammar::JsonSchema(_) | Grammar::Tools(_));
        let guard = json.then(|| Guard::new(Arc::clone(&self.risks)));
        Ok(Constraint { matcher, guard, grammar: Arc::new(()), tokens: Vec::new(), mask: None })
    }
}

/// What may follow in one text. Its state is a function of the tokens it has accepted. Cloning forks it: every sequence
/// has its own, and clones share what the lexer has found out.
#[derive(Clone)]
pub struct Constraint {
    matcher: Matcher,
    guard: Option<Guard>,
    /// Tells compiled grammars apart.
    grammar: Arc<()>,
    tokens: Vec<u32>,
    /// The tokens that may come next, once asked for.
    mask: Option<SimpleVob>,
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint").field("accepted", &self.tokens.len()).field("done", &self.is_done()).finish()
    }
}

impl PartialEq for Constraint {
    /// Whether both come of one [`Constrainer::compile`] and have accepted the same tokens.
    fn eq(&self, other: &Constraint) -> bool {
        Arc::ptr_eq(&self.grammar, &other.grammar) && self.tokens == other.tokens
    }
}

impl Constraint {
    /// The tokens that may come next: token `t` is bit `t % 32` of word `t / 32`, and those beyond the last word may not.
    /// Tokens that end a generation are among them exactly where the text may end.
    ///
    /// # Errors
    /// [`Error::Limit`] where the grammar is too ambiguous to go on, [`Error::Request`] where no token can continue the
    /// text.
    pub fn allowed(&mut self) -> Result<&[u32]> {
        if self.mask.is_none() {
            let mut mask = self.matcher.compute_mask_or_eos().map_err(|e| compile::failed(&e))?;
            if let Some(guard) = &self.guard {
                let env = self.matcher.tok_env().map_err(|e| compile::failed(&e))?;
                guard.prune(env.tok_trie(), &mut mask);
            }
            if mask.is_zero() {
                return Err(compile::no_token());
            }
            self.mask = Some(mask);
        }
        Ok(self.mask.as_ref().map_or(&[], SimpleVob::as_slice))
    }

    /// Goes on by a token.
    ///
    /// # Errors
    /// A token that may not come next, or as [`Constraint::allowed`].
    pub fn accept(&mut self, token: u32) -> Result<()> {
        self.mask = None;
        let env = self.matcher.tok_env().map_err(|e| compile::failed(&e))?;
        self.matcher.consume_token(token).map_err(|e| compile::failed(&e))?;
        if let Some(guard) = &mut self.guard {
            guard.push(env.tok_trie(), token);
        }
        self.tokens.push(token);
        Ok(())
    }

    /// Goes on by a text whose tokens are not known. White space at its start counts only where the grammar begins with it.
    ///
    /// # Errors
    /// A text that the grammar does not allow here.
    pub fn accept_text(&mut self, text: &[u8]) -> Result<()> {
        let env = self.matcher.tok_env().map_err(|e| compile::failed(&e))?;
        let mut rest = text;
        loop {
            let tokens = env.tok_trie().greedy_tokenize(rest);
            let fits = self.matcher.validate_tokens(&tokens).map_err(|e| compile::failed(&e))?;
            match rest {
                _ if fits == tokens.len() => return tokens.into_iter().try_for_each(|t| self.accept(t)),
                [b' ' | b'\t' | b'\r' | b'\n', more @ ..] => rest = more,
                _ => {
                    let text = String::from_utf8_lossy(text).into_owned();
                    return Err(Error::request(format!("the text {text:?} is not what the grammar begins with")));
                }
            }
        }
    }

    /// Whether the text is complete and nothing can follow.
    pub fn is_done(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }

    /// Whether the text may end here.
    ///
    /// # Errors
    /// As [`Constraint::allowed`].
    pub fn is_complete(&mut self) -> Result<bool> {
        if self.is_done() { Ok(true) } else { self.matcher.is_accepting().map_err(|e| compile::failed(&e)) }
    }
}
