//! [`ToolFormat`]: how a family writes its calls, and how to tell from what a model's template writes.

use super::probe;
use super::table::{ENDS, MARKS, Row, TABLE};
use crate::meta::Meta;
use crate::text::Tokenizer;
use crate::text::chat::ChatTemplate;

/// How a model writes tool calls: a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ToolFormat {
    /// `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`: Hermes, Qwen, SmolLM, ir-tiny.
    Hermes,
    /// `<tool_calls>[{"name": ..., "arguments": {...}}]</tool_calls>`: Apriel.
    Lists,
    /// The same in lines: MiniMax M1.
    Lines,
    /// The same in `<TOOLCALL>`: Nemotron Nano.
    UpperLists,
    /// `<|tool_call|>[{"name": ..., "arguments": {...}}]`: Granite 3.
    ToolCallToken,
    /// `<|tools_prefix|>[{"f": {...}}]<|tools_suffix|>`: Apertus.
    Prefixed,
    /// `<|START_ACTION|>[{"tool_name": ..., "parameters": {...}}]<|END_ACTION|>`: Command R7B and later.
    Actions,
    /// The same in a fence behind `Action:`: Command R.
    ActionFence,
    /// `<|function_call|>{"name": ..., "arguments": {...}}`: GigaChat 3.1.
    FunctionCall,
    /// A turn of the role `function call`: GigaChat 3.
    FunctionTurn,
    /// `functools[{"name": ..., "arguments": {...}}]`: Firefunction.
    Functools,
    /// `{"name": ..., "parameters": {...}}` alone or behind `<|python_tag|>`: Llama 3.
    Llama3,
    /// `[f(a=1), g(b="x")]`: Llama 3.2 and 4.
    Pythonic,
    /// The same in `<|tool_call_start|>`: LFM2.
    PythonTagged,
    /// `[TOOL_CALLS]f[ARGS]{...}`: Mistral since tokenizer v11.
    Mistral,
    /// `[TOOL_CALLS][{"name": ..., "arguments": {...}}]`: older Mistral.
    MistralList,
    /// `<｜tool▁call▁begin｜>f<｜tool▁sep｜>{...}<｜tool▁call▁end｜>`: DeepSeek V3.1.
    DeepSeek,
    /// The same with a type before the name and a fence around the arguments: DeepSeek V3 and R1.
    DeepSeekFenced,
    /// `<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{...}`: Kimi K2.
    Sections,
    /// `<|tool_call:begin|>1<|tool_call:name|>f<|tool_call:args|>{...}`: Solar.
    Numbered,
    /// `<function=f>{...}</function>`: functionary 3.1, tunes of Llama 3.
    FunctionTag,
    /// `>>>f` and the arguments in the next line: functionary 3.2.
    Recipient,
    /// `<function=f><parameter=a>1</parameter></function>`: Qwen3-Coder, Qwen3.5, Nemotron 3.
    FunctionTags,
    /// The same in `<seed:tool_call>`: Seed.
    SeedTags,
    /// `<function name="f"><param name="a">1</param></function>`: MiniCPM5.
    FunctionParams,
    /// `<invoke name="f"><parameter name="a">1</parameter></invoke>`: MiniMax M2.
    InvokeTags,
    /// The same in tags with `｜DSML｜`: DeepSeek V3.2 and later.
    Invoke,
    /// `<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>`: GLM 4.5 and later, Laguna, Ling.
    Pairs,
    /// The same in tags with `:opensource`: Hunyuan 3.
    PairsOpensource,
    /// `<|open|>call tool="f"<|sep|>...`: Kimi K3.
    Open,
    /// Elements within elements: MiniMax M3.
    Elements,
    /// `<|tool_call>call:f{a:<|"|>x<|"|>}<tool_call|>`: Gemma 4.
    Quoted,
    /// Channels with recipients: gpt-oss.
    Harmony,
    /// Recipients without channels, arguments in tags.
    Recipients,
    /// A fence of `tool_code` or `json`: Gemma.
    Gemma,
}

impl ToolFormat {
    /// The row of the table.
    pub(crate) fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.format == self).unwrap_or(&TABLE[0])
    }

    /// All formats.
    pub fn all() -> impl Iterator<Item = ToolFormat> {
        TABLE.iter().map(|row| row.format)
    }

    /// Whether every answer is written in the format's markup, with tools or without.
    pub fn frames_answers(self) -> bool {
        !self.frame().is_empty()
    }

    /// What leads to an answer's text in such a format.
    pub(crate) fn frame(self) -> &'static str {
        match self {
            ToolFormat::Harmony => "<|channel|>final<|message|>",
            ToolFormat::Recipients => " to=user<|message|>",
            ToolFormat::Open => "<|open|>response<|sep|>",
            ToolFormat::Recipient => "all\n",
            _ => "",
        }
    }

    /// The format of a model with this template and these tokens; `None` where nothing points to one. Then a server
    /// does best to refuse tools, or to take [`ToolFormat::Hermes`] and describe it in the prompt. A template that writes calls
    /// tells by how it does; else its source does, and the vocabulary.
    pub fn of(template: Option<&ChatTemplate>, has_token: &dyn Fn(&str) -> bool) -> Option<ToolFormat> {
        let written =
            template.and_then(|template| template.tool_format.get_or_init(|| probe::format(template)).as_ref());
        written.copied().or_else(|| ToolFormat::detect(template.map_or("", ChatTemplate::text), has_token))
    }

    /// The format that a template's source and a vocabulary point to.
    pub fn detect(source: &str, has_token: &dyn Fn(&str) -> bool) -> Option<ToolFormat> {
        let says = |texts: &&[&str]| texts.iter().all(|text| source.contains(text));
        let of = |row: &&Row| {
            let channels = row.format == ToolFormat::Harmony
                && ["<|channel|>", "<|message|>", "<|call|>"].iter().all(|token| has_token(token));
            let parameters = row.format == ToolFormat::Llama3 && source.contains(r#""parameters": "#);
            let turns = row.format == ToolFormat::Gemma && has_token("<start_of_turn>") && has_token("<end_of_turn>");
            row.source.iter().any(&says) || channels || turns || (parameters && has_token("<|eom_id|>"))
        };
        let by_token = |row: &&Row| {
            let argued = row.format != ToolFormat::Mistral || has_token("[ARGS]");
            argued && row.open.first().is_some_and(|open| MARKS.contains(open) && has_token(open))
        };
        let usual = [ToolFormat::Mistral, ToolFormat::MistralList, ToolFormat::Hermes];
        let found = TABLE.iter().find(of);
        let found = found.or_else(|| TABLE.iter().filter(|row| usual.contains(&row.format)).find(by_token));
        found.map(|row| row.format)
    }

    /// The format of a model file; `has_token` says whether its vocabulary holds a token of this text.
    pub fn of_meta(meta: &Meta, has_token: &dyn Fn(&str) -> bool) -> Option<ToolFormat> {
        ToolFormat::of(ChatTemplate::from_meta(meta, has_token).ok().flatten().as_ref(), has_token)
    }

    /// The control tokens of a vocabulary that a [`ToolParser`](super::ToolParser) or a
    /// [`ThinkSplitter`](crate::text::chat::ThinkSplitter) must see, ascending: decode them to their text, while other
    /// control tokens (`<|im_end|>`) stay hidden.
    pub fn token_ids(tokenizer: &Tokenizer) -> Vec<u32> {
        let mut ids: Vec<u32> = MARKS.iter().chain(&ENDS).filter_map(|m| tokenizer.id_of(m)).collect();
        ids.retain(|id| tokenizer.is_control(*id));
        ids.sort_unstable();
        ids
    }
}
