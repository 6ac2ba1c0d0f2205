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
    /// Where it begins each time this text is generated: the text, and the constraint anew.
    again: Option<(Vec<u8>, Constraint)>,
    /// The constraint's bits and the opener's.
    with_opener: Vec<u32>,
}

impl Held {
    /// A constraint that begins behind `after`, or at once: where there is no such text, or where an `opener` is given and
    /// another token comes first. With `again` it begins behind that instead, each time, if the other has come.
    pub(crate) fn new(
        constraint: Constraint,
        after: Option<String>,
        opener: Option<u32>,
        again: Option<String>,
    ) -> Held {
        let opener = opener.filter(|_| after.is_some());
        let again = again.map(|text| (text.into_bytes(), constraint.clone()));
        let waits = after.map(String::into_bytes).or_else(|| again.as_ref().map(|(text, _)| text.clone()));
        let waits = waits.map(|text| (text, Vec::new()));
        Held { constraint, waits, opener, again, with_opener: Vec::new() }
    }

    /// Whether it bans tokens here.
    pub(crate) fn is_active(&self) -> bool {
        self.waits.is_none() || (self.opener.is_some() && self.again.is_none())
    }

    /// Bits of the tokens that may come next; `None` while everything may.
    pub(crate) fn allowed(&mut self) -> Result<Option<&[u32]>> {
        if !self.is_active() {
            return Ok(None);
        }
        if let Some(opener) = self.opener {
            let word = opener as usize / 32;
            self.with_opener.clear();
            self.with_opener.extend_from_slice(self.constraint.allowed()?);
            self.with_opener.resize(self.with_opener.len().max(word + 1), 0);
            self.with_opener[word] |= 1 << (opener % 32);
            return Ok(Some(&self.with_opener));
        }
        // Where nothing can follow in what is held only here and there, the text is free again.
        if self.again.is_some() && self.constraint.allowed().is_err() {
            self.release();
            return Ok(None);
        }
        self.constraint.allowed().map(Some)
    }

    /// Goes on by a token and the text it stands for, control tokens written out. Says whether the text is complete and
    /// can go no further.
    pub(crate) fn push(&mut self, token: u32, piece: &[u8]) -> Result<bool> {
        if self.opener.take().is_some_and(|opener| opener != token) {
            self.waits = self.again.as_ref().map(|(text, _)| (text.clone(), Vec::new()));
        }
        if self.waits.is_none() {
            let accepted = self.constraint.accept(token);
            if self.again.is_none() {
                return accepted.map(|()| self.constraint.is_done());
            }
            if accepted.is_err() || self.constraint.is_done() {
                self.release();
            }
            return Ok(false);
        }
        self.wait(piece)?;
        Ok(self.is_active() && self.again.is_none() && self.constraint.is_done())
    }

    /// Looks for the text that the constraint begins behind.
    fn wait(&mut self, piece: &[u8]) -> Result<()> {
        let Some((after, seen)) = &mut self.waits else { return Ok(()) };
        seen.extend_from_slice(piece);
        let Some(at) = seen.windows(after.len()).position(|w| w == after) else {
            let keep = seen.len().min(after.len() - 1);
            seen.drain(..seen.len() - keep);
            return Ok(());
        };
        // The token may have gone on behind the text.
        let rest = seen.split_off(at + after.len());
        match &self.again {
            Some((text, _)) if text != after => {
                self.waits = Some((text.clone(), Vec::new()));
                return self.wait(&rest);
            }
            Some(_) => {
                self.waits = None;
                if !rest.is_empty() && self.constraint.accept_text(&rest).is_err() && !is_space(&rest) {
                    self.release();
                }
            }
            None => {
                self.waits = None;
                if !is_space(&rest) {
                    self.constraint.accept_text(&rest)?;
                }
            }
        }
        Ok(())
    }

    /// Waits for the next time.
    fn release(&mut self) {
        if let Some((text, constraint)) = &self.again {
            (self.constraint, self.waits) = (constraint.clone(), Some((text.clone(), Vec::new())));
        }
    }
}

fn is_space(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_whitespace)
}
