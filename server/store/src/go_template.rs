//! Chat templates in Go's form, as Ollama's models have them. They are not run; those of the common families are
//! recognised by the turn tokens in their text.

/// A family and the texts that its templates have, the more telling first.
const FAMILIES: [(&str, &[&str]); 13] = [
    ("phi-4", &["<|im_start|>", "<|im_sep|>", "<|im_end|>"]),
    ("chatml", &["<|im_start|>", "<|im_end|>"]),
    ("llama-3", &["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
    ("llama-4", &["<|header_start|>", "<|header_end|>", "<|eot|>"]),
    ("gemma", &["<start_of_turn>", "<end_of_turn>"]),
    ("deepseek", &["<｜User｜>", "<｜Assistant｜>"]),
    ("gpt-oss", &["<|start|>", "<|message|>", "<|end|>"]),
    ("granite", &["<|start_of_role|>", "<|end_of_role|>"]),
    ("phi-3", &["<|user|>", "<|assistant|>", "<|end|>"]),
    ("zephyr", &["<|user|>", "<|assistant|>"]),
    ("command-r", &["<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"]),
    ("llama-2", &["[INST]", "<<SYS>>", "[/INST]"]),
    ("mistral", &["[INST]", "[/INST]"]),
];

/// Ollama's template of a model that has none: the prompt as it is.
const NONE: &str = "{{ .Prompt }}";

/// What a Go template is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoTemplate {
    /// It adds nothing to the prompt.
    None,
    /// A family's.
    Family(&'static str),
    /// Not one that is known.
    Unknown,
}

impl GoTemplate {
    /// Recognises a template by its text.
    pub fn of(text: &str) -> GoTemplate {
        let squeezed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        if squeezed.is_empty() || squeezed == NONE.replace(' ', "") {
            return GoTemplate::None;
        }
        let has = |words: &&(&str, &[&str])| words.1.iter().all(|w| text.contains(w));
        FAMILIES.iter().find(has).map_or(GoTemplate::Unknown, |(name, _)| GoTemplate::Family(name))
    }
}
