//! [`Grammar`]s and the [`Constrainer`] that compiles them for a vocabulary.
//!
//! Grammars are llguidance's: an Earley parser over lexemes that are matched by derivatives of regular expressions. What
//! is added here: the trie of a vocabulary, schemas made ready, GBNF, grammars of tool calls, bounds against hostile
//! grammars, and bounds on JSON, so that every parser can read it.

use std::sync::Arc;

use llguidance::toktrie::SimpleVob;
use llguidance::{Matcher, ParserFactory};
use serde_json::Value as Json;

use super::guard::{Guard, Risks};
use super::{Constraint, Rules, ToolGrammar, Vocabulary, compile, trie};
use crate::error::{Error, Result};

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
    /// [`relaxed`](super::relaxed).
    JsonSchema(Json),
    /// A regular expression in Rust's syntax that the whole text matches, without look-around; `\d` and `\w` are ASCII.
    Regex(String),
    /// A grammar in llguidance's variant of Lark; its first rule is `start`.
    Lark(String),
    /// A grammar in llama.cpp's GBNF; its first rule is `root`.
    Gbnf(String),
    /// Calls of tools: what [`tool_grammar`](super::tool_grammar) makes.
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
    pub fn new(vocabulary: &Vocabulary) -> Result<Constrainer> {
        let trie::Prepared { factory, risks, marks } = trie::prepare(vocabulary)?;
        Ok(Constrainer { factory: Arc::new(factory), risks: Arc::new(risks), marks: Arc::new(marks) })
    }

    /// Compiles a grammar: the constraint of a text that has not begun.
    ///
    /// # Errors
    /// [`Error::Request`] where the grammar is malformed, [`Error::Unsupported`] where a schema asks for what cannot be
    /// held to, [`Error::Limit`] where it is too large. The sentence names the line or the place.
    pub fn compile(&self, grammar: &Grammar) -> Result<Constraint> {
        let matcher = compile::compile(&self.factory, &self.marks, grammar)?;
        let json = match grammar {
            Grammar::Json | Grammar::JsonSchema(_) => true,
            Grammar::Tools(tools) => tools.is_json(),
            _ => false,
        };
        let guard = json.then(|| Guard::new(Arc::clone(&self.risks)));
        Ok(Constraint::new(Compiled { matcher, guard, mask: None }))
    }
}

/// A compiled grammar and what a text has made of it. Clones share what the lexer has found out.
#[derive(Clone)]
struct Compiled {
    matcher: Matcher,
    guard: Option<Guard>,
    /// The tokens that may come next, once asked for.
    mask: Option<SimpleVob>,
}

impl Rules for Compiled {
    fn allowed(&mut self) -> Result<&[u32]> {
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

    fn accept(&mut self, token: u32) -> Result<()> {
        self.mask = None;
        let env = self.matcher.tok_env().map_err(|e| compile::failed(&e))?;
        self.matcher.consume_token(token).map_err(|e| compile::failed(&e))?;
        if let Some(guard) = &mut self.guard {
            guard.push(env.tok_trie(), token);
        }
        Ok(())
    }

    fn accept_text(&mut self, text: &[u8]) -> Result<()> {
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

    fn is_done(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }

    fn is_complete(&mut self) -> Result<bool> {
        if self.is_done() { Ok(true) } else { self.matcher.is_accepting().map_err(|e| compile::failed(&e)) }
    }

    fn fork(&self) -> Box<dyn Rules> {
        Box::new(self.clone())
    }
}
