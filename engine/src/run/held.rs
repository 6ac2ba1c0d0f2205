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
}

impl Held {
    /// A constraint that begins behind `after`, or at once.
    pub(crate) fn new(constraint: Constraint, after: Option<String>) -> Held {
        Held { constraint, waits: after.map(|text| (text.into_bytes(), Vec::new())) }
    }

    /// Whether it has begun.
    pub(crate) fn is_active(&self) -> bool {
        self.waits.is_none()
    }

    /// Bits of the tokens that may come next; `None` while everything may.
    pub(crate) fn allowed(&mut self) -> Result<Option<&[u32]>> {
        if self.waits.is_some() { Ok(None) } else { self.constraint.allowed().map(Some) }
    }

    /// Goes on by a token and the text it stands for, control tokens written out. Says whether the text is complete and
    /// can go no further.
    pub(crate) fn push(&mut self, token: u32, piece: &[u8]) -> Result<bool> {
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
