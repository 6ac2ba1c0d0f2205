//! [`Held`]: a sequence's constraint while it is generated. It begins behind a text or at once, says which tokens may
//! come, and goes on by what was chosen. Its state depends on the generated tokens alone, so a sequence that is computed
//! anew keeps it.

use crate::error::Result;
use crate::text::constrain::Constraint;

/// A constraint and where it begins.
#[derive(Debug)]
pub(crate) struct Held {
    constraint: Constraint,
    /// Until it begins: the text it begins behind, and as much of the end of what was generated as may belong to it.
    waits: Option<(Vec<u8>, Vec<u8>)>,
    /// Nothing was generated yet: the token that may come first beside what the constraint allows. Only behind it is
    /// there anything to wait for.
    opener: Option<u32>,
    /// The constraint's bits and the opener's.
    with_opener: Vec<u32>,
}

impl Held {
    /// A constraint that begins behind `after`, or at once: where there is no such text, or where an `opener` is given and
    /// another token comes first.
    pub(crate) fn new(constraint: Constraint, after: Option<String>, opener: Option<u32>) -> Held {
        let opener = opener.filter(|_| after.is_some());
        let waits = after.map(|text| (text.into_bytes(), Vec::new()));
        Held { constraint, waits, opener, with_opener: Vec::new() }
    }

    /// Whether it bans tokens here.
    pub(crate) fn is_active(&self) -> bool {
        self.waits.is_none() || self.opener.is_some()
    }

    /// Bits of the tokens that may come next; `None` while everything may.
    pub(crate) fn allowed(&mut self) -> Result<Option<&[u32]>> {
        if let Some(opener) = self.opener {
            let word = opener as usize / 32;
            self.with_opener.clear();
            self.with_opener.extend_from_slice(self.constraint.allowed()?);
            self.with_opener.resize(self.with_opener.len().max(word + 1), 0);
            self.with_opener[word] |= 1 << (opener % 32);
            return Ok(Some(&self.with_opener));
        }
        if self.waits.is_some() { Ok(None) } else { self.constraint.allowed().map(Some) }
    }

    /// Goes on by a token and the text it stands for, control tokens written out. Says whether the text is complete and
    /// can go no further.
    pub(crate) fn push(&mut self, token: u32, piece: &[u8]) -> Result<bool> {
        if self.opener.take().is_some_and(|opener| opener != token) {
            self.waits = None;
        }
        let Some((after, seen)) = &mut self.waits else {
            self.constraint.accept(token)?;
            return Ok(self.constraint.is_done());
        };
        seen.extend_from_slice(piece);
        match seen.windows(after.len()).position(|w| w == after) {
            None => {
                let keep = seen.len().min(after.len() - 1);
                seen.drain(..seen.len() - keep);
            }
            Some(at) => {
                // The token may have gone on behind the text.
                let rest = seen.split_off(at + after.len());
                self.waits = None;
                if rest.iter().any(|b| !b.is_ascii_whitespace()) {
                    self.constraint.accept_text(&rest)?;
                }
            }
        }
        Ok(self.is_active() && self.constraint.is_done())
    }
}
