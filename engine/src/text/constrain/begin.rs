//! [`AnswerForm`]: how a model writes a chat's answer, and so where in it a constraint begins ([`Begin`]).

use crate::text::Tokenizer;
use crate::text::chat::ThinkTags;
use crate::text::tools::ToolFormat;

/// How a chat's answer is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnswerForm {
    /// The tags around reasoning, where the template names any.
    pub tags: Option<ThinkTags>,
    /// The prompt ends inside the reasoning.
    pub inside: bool,
    /// How tool calls are written.
    pub tools: Option<ToolFormat>,
}

/// Where a constraint begins: the fields `constrain_after` and `constrain_opener` of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Begin {
    /// Behind this text; `None`: at once.
    pub after: Option<String>,
    /// What may come first, and only then there is something to wait for.
    pub opener: Option<u32>,
}

impl AnswerForm {
    /// Where an answer's constraint begins: behind the reasoning that is open or was asked for, or behind one that the
    /// model may open. `think`: what was asked for; `None` is what the model does by itself. `calls`: the constraint is
    /// a [`ToolGrammar`](super::ToolGrammar).
    pub fn begin(&self, think: Option<bool>, calls: bool, tokenizer: &Tokenizer) -> Begin {
        if self.tools == Some(ToolFormat::Harmony) {
            // The grammar of calls brings its own reasoning.
            let after = (!calls).then(|| "<|channel|>final<|message|>".to_owned());
            return Begin { after, opener: None };
        }
        let Some(tags) = self.tags else { return Begin::default() };
        let after = Some(tags.close.to_owned());
        match (self.inside, think) {
            (true, _) => Begin { after, opener: None },
            (false, Some(false)) => Begin::default(),
            (false, think) => match tokenizer.id_of(tags.open) {
                None if think.is_none() => Begin::default(),
                opener => Begin { after, opener },
            },
        }
    }
}
