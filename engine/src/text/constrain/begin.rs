//! [`begin`]: where in an answer its constraint begins.

use crate::text::Tokenizer;
use crate::text::chat::ThinkTags;
use crate::text::tools::ToolFormat;

/// Where a constraint begins: the fields `constrain_after` and `constrain_opener` of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Begin {
    /// Behind this text; `None`: at once.
    pub(crate) after: Option<String>,
    /// What may come first, and only then there is something to wait for.
    pub(crate) opener: Option<u32>,
}

/// Where an answer's constraint begins: behind the reasoning that is open (`inside`) or was asked for, or behind one that
/// the model may open. `tags`: those around reasoning, `format`: how calls are written, `think`: what was asked for, where
/// `None` is what the model does by itself, `calls`: the constraint is a [`ToolGrammar`](super::ToolGrammar).
pub(crate) fn begin(
    tags: Option<ThinkTags>,
    inside: bool,
    format: Option<ToolFormat>,
    think: Option<bool>,
    calls: bool,
    tokenizer: &Tokenizer,
) -> Begin {
    if let Some(format) = format.filter(|format| format.frames_answers()) {
        // The grammar of calls brings its own reasoning.
        let after = (!calls).then(|| format.frame().to_owned());
        return Begin { after, opener: None };
    }
    let Some(tags) = tags else { return Begin::default() };
    let after = Some(tags.close.to_owned());
    match (inside, think) {
        (true, _) => Begin { after, opener: None },
        (false, Some(false)) => Begin::default(),
        (false, think) => match tokenizer.id_of(tags.open) {
            None if think.is_none() => Begin::default(),
            opener => Begin { after, opener },
        },
    }
}
