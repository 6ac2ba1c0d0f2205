//! Answers held to a form: a [`Constraint`] says at each token which may follow. Applying that to logits belongs to `run`.
//! `grammar` (feature `constrain`) makes constraints of JSON schemas, regular expressions and grammars; where it is not
//! part of a build, a host may bring [`Rules`] of its own.

#[cfg(feature = "constrain")]
mod arguments;
mod begin;
#[cfg(feature = "constrain")]
mod compile;
#[cfg(feature = "constrain")]
mod gbnf;
#[cfg(feature = "constrain")]
mod grammar;
#[cfg(feature = "constrain")]
mod guard;
#[cfg(feature = "constrain")]
mod lark;
#[cfg(feature = "constrain")]
mod schema;
#[cfg(feature = "constrain")]
mod tools;
#[cfg(feature = "constrain")]
mod trie;
mod vocabulary;

use crate::error::Result;
pub(crate) use begin::{Begin, begin};
#[cfg(feature = "constrain")]
pub use grammar::{Constrainer, Grammar};
#[cfg(feature = "constrain")]
pub use schema::{relaxed, relaxed_telling};
#[cfg(feature = "constrain")]
pub use tools::{Tool, ToolChoice, ToolGrammar, begun_call, tool_grammar, tools_or};
pub use vocabulary::Vocabulary;

/// What decides which tokens may follow in one text. Its state is a function of the tokens it has accepted.
pub trait Rules: Send {
    /// See [`Constraint::allowed`].
    ///
    /// # Errors
    /// Where nothing can be said, or no token can continue the text.
    fn allowed(&mut self) -> Result<&[u32]>;

    /// Goes on by a token.
    ///
    /// # Errors
    /// A token that may not come next, or as [`Rules::allowed`].
    fn accept(&mut self, token: u32) -> Result<()>;

    /// See [`Constraint::accept_text`].
    ///
    /// # Errors
    /// A text that is not allowed here.
    fn accept_text(&mut self, text: &[u8]) -> Result<()>;

    /// Whether the text is complete and nothing can follow.
    fn is_done(&self) -> bool;

    /// Whether the text may end here.
    ///
    /// # Errors
    /// As [`Rules::allowed`].
    fn is_complete(&mut self) -> Result<bool>;

    /// The same state once more, to go on apart.
    fn fork(&self) -> Box<dyn Rules>;
}

/// What may follow in one text. Cloning forks it: every sequence has its own.
pub struct Constraint(Box<dyn Rules>);

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint").field("done", &self.0.is_done()).finish()
    }
}

impl Clone for Constraint {
    fn clone(&self) -> Self {
        Constraint(self.0.fork())
    }
}

impl Constraint {
    /// A constraint by these rules, of a text that has not begun.
    pub fn new(rules: impl Rules + 'static) -> Constraint {
        Constraint(Box::new(rules))
    }

    /// The tokens that may come next: token `t` is bit `t % 32` of word `t / 32`, and those beyond the last word may not.
    /// Tokens that end a generation are among them exactly where the text may end.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) where the grammar is too ambiguous to go on,
    /// [`Error::Request`](crate::Error::Request) where no token can continue the text.
    pub fn allowed(&mut self) -> Result<&[u32]> {
        self.0.allowed()
    }

    /// Goes on by a token.
    ///
    /// # Errors
    /// A token that may not come next, or as [`Constraint::allowed`].
    pub fn accept(&mut self, token: u32) -> Result<()> {
        self.0.accept(token)
    }

    /// Goes on by a text whose tokens are not known. White space at its start counts only where the grammar begins with it.
    ///
    /// # Errors
    /// A text that the grammar does not allow here.
    pub fn accept_text(&mut self, text: &[u8]) -> Result<()> {
        self.0.accept_text(text)
    }

    /// Whether the text is complete and nothing can follow.
    pub fn is_done(&self) -> bool {
        self.0.is_done()
    }

    /// Whether the text may end here.
    ///
    /// # Errors
    /// As [`Constraint::allowed`].
    pub fn is_complete(&mut self) -> Result<bool> {
        self.0.is_complete()
    }
}
