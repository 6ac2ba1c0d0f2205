//! [`ToolFormat`]: how a family writes its calls, and how to tell from a model's template and tokens.

use crate::meta::Meta;
use crate::text::Tokenizer;

/// How a model writes tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ToolFormat {
    /// `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`: Hermes, Qwen, SmolLM, ir-tiny.
    Hermes,
    /// `{"name": ..., "parameters": {...}}` alone or behind `<|python_tag|>`: Llama 3.
    Llama3,
    /// `[f(a=1), g(b="x")]`: Llama 3.2 and 4.
    Pythonic,
    /// `[TOOL_CALLS]f[ARGS]{...}`: Mistral since tokenizer v11.
    Mistral,
    /// `[TOOL_CALLS][{"name": ..., "arguments": {...}}]`: older Mistral.
    MistralList,
    /// `<｜tool▁call▁begin｜>f<｜tool▁sep｜>{...}<｜tool▁call▁end｜>`: DeepSeek V3.1.
    DeepSeek,
    /// The same with a type before the name and a fence around the arguments: DeepSeek V3 and R1.
    DeepSeekFenced,
    /// Channels with recipients: gpt-oss.
    Harmony,
    /// A fence of `tool_code` or `json`: Gemma.
    Gemma,
}

/// Special tokens that mark calls in some format.
const MARKS: [&str; 24] = [
    "<tool_call>",
    "</tool_call>",
    "<|python_tag|>",
    "<|python_start|>",
    "<|python_end|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[CALL_ID]",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|constrain|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "[THINK]",
    "[/THINK]",
    "<think>",
    "</think>",
];

impl ToolFormat {
    /// The format of a model with this chat template and these tokens; `None` where nothing points to one. Then a server
    /// does best to refuse tools, or to take [`ToolFormat::Hermes`] and describe it in the prompt.
    pub fn detect(template: &str, has_token: &dyn Fn(&str) -> bool) -> Option<ToolFormat> {
        let says = |text: &str| template.contains(text);
        if says("<|channel|>") || (has_token("<|channel|>") && has_token("<|message|>") && has_token("<|call|>")) {
            Some(ToolFormat::Harmony)
        } else if says("<｜tool▁calls▁begin｜>") {
            let fenced = says("```json") || says("'function<｜tool▁sep｜>") || says("['type']");
            Some(if fenced { ToolFormat::DeepSeekFenced } else { ToolFormat::DeepSeek })
        } else if says("[TOOL_CALLS]") {
            Some(if says("[ARGS]") { ToolFormat::Mistral } else { ToolFormat::MistralList })
        } else if says("<tool_call>") {
            Some(ToolFormat::Hermes)
        } else if says("<|python_start|>") || says("func_name1(") || says("[func_name(") {
            Some(ToolFormat::Pythonic)
        } else if says("<|python_tag|>") || says(r#""parameters": "#) && has_token("<|eom_id|>") {
            Some(ToolFormat::Llama3)
        } else if says("tool_code") || (has_token("<start_of_turn>") && has_token("<end_of_turn>")) {
            Some(ToolFormat::Gemma)
        } else if has_token("[TOOL_CALLS]") {
            Some(if has_token("[ARGS]") { ToolFormat::Mistral } else { ToolFormat::MistralList })
        } else if has_token("<tool_call>") {
            Some(ToolFormat::Hermes)
        } else {
            None
        }
    }

    /// The format of a model file; `has_token` says whether its vocabulary holds a token of this text.
    pub fn of_meta(meta: &Meta, has_token: &dyn Fn(&str) -> bool) -> Option<ToolFormat> {
        let template = meta.opt_str("tokenizer.chat_template").ok().flatten().unwrap_or("");
        ToolFormat::detect(template, has_token)
    }

    /// The control tokens of a vocabulary that a [`ToolParser`](super::ToolParser) or a
    /// [`ThinkSplitter`](crate::text::chat::ThinkSplitter) must see, ascending: decode them to their text, while other
    /// control tokens (`<|im_end|>`) stay hidden.
    pub fn token_ids(tokenizer: &Tokenizer) -> Vec<u32> {
        let mut ids: Vec<u32> = MARKS.iter().filter_map(|m| tokenizer.id_of(m)).collect();
        ids.retain(|id| tokenizer.is_control(*id));
        ids.sort_unstable();
        ids
    }
}
