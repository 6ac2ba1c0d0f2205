//! What becomes of the parts of a message that no model here reads: images, sound, files. What whoever asks gives now is
//! refused, since the answer would be wrong without it; what stands in the history or came from a tool is a line of text, so
//! that no chat is locked by it.

use super::ignored::Ignored;
use super::util::cannot;
use crate::engine::error::ApiError;

/// Whose parts are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading<'a> {
    /// The model's name.
    pub(crate) model: &'a str,
    /// Where what is passed over is said.
    pub(crate) ignored: &'a Ignored,
    /// Whether it belongs to what is asked now: a turn of whoever asks, behind the last answer.
    pub(crate) asked: bool,
}

impl<'a> Reading<'a> {
    /// Of a request whose turns are yet to come.
    pub(crate) fn new(model: &'a str, ignored: &'a Ignored) -> Reading<'a> {
        Reading { model, ignored, asked: false }
    }

    /// What stands for a part at `place` (`messages[0].content[1]`) that holds an image or the like.
    ///
    /// # Errors
    /// A part that is asked about now.
    pub(crate) fn line(self, place: &str, part: Part) -> Result<String, ApiError> {
        let (name, ability) = part.names();
        if self.asked {
            return Err(ApiError::param(place, format!("{place}: {}", cannot(self.model, ability).message)));
        }
        self.ignored.note(&format!("content.{name}"));
        Ok(format!("[{name} left out: this model reads text only]"))
    }
}

/// What no model here reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A picture.
    Image,
    /// A recording.
    Audio,
    /// A file or a document that is no text.
    File,
}

impl Part {
    /// What it is called, and what a model would have to support.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Part::Image => ("image", "vision"),
            Part::Audio => ("audio", "audio"),
            Part::File => ("file", "files"),
        }
    }
}
