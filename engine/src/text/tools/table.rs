//! A list: the formats of calls, a row each: how a model writes them, how they are read, and how a grammar of them is
//! written.

use super::ToolFormat;
use super::body::{Forms, Head};
use super::fields::Fields;
use super::nested::Nested;

/// A format.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) format: ToolFormat,
    /// Tags before calls; the more telling first.
    pub(super) open: &'static [&'static str],
    /// Tags behind them, in this order, each of which may be missing.
    pub(super) close: &'static [&'static str],
    /// Tags around calls and between them, which say nothing.
    pub(super) around: &'static [&'static str],
    /// What an answer that is no call begins with.
    pub(super) lead: Option<&'static str>,
    pub(super) kind: Kind,
    /// An answer may begin with a call without a tag, of these forms.
    pub(super) bare: Option<Forms>,
    /// Texts that a template's call holds in this format, where others are read by the same rules.
    pub(super) sign: &'static str,
    /// Texts in a template's source that point to the format: any of these lists, all of its texts.
    pub(super) source: &'static [&'static [&'static str]],
    /// How a grammar writes calls; `None`: it does not.
    #[cfg_attr(not(feature = "constrain"), allow(dead_code, reason = "only grammars read it"))]
    pub(crate) written: Option<Written>,
}

/// How what stands behind a tag is read.
#[derive(Debug)]
pub(super) enum Kind {
    Forms(Forms),
    Fields(Fields),
    /// Up to this tag.
    Nested(Nested, &'static str),
    /// Messages with headers; arguments in an object, or behind a text in tags.
    Channels(Option<&'static (&'static str, Fields)>),
}

/// How an answer of calls is written. In `call`: `{N}` is the name, `{A}` the arguments as JSON, `{O:KEY:KEY}` an object of the
/// name and the arguments under these keys, `{M}` one of the arguments under the name, `{Y}` keywords as Python has them, `{F}`
/// parameters as `field` has them, `{I}` a number, `{D}` an identifier, `{J}` one as a last key or none, `{C}` one behind
/// `[CALL_ID]` or none, `{S}` a space or none, `{W}` some white space or none. In
/// `field`: `{K}` is the key, `{V}` the value.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "constrain"), allow(dead_code, reason = "only grammars read it"))]
pub(crate) struct Written {
    pub(crate) begin: &'static str,
    pub(crate) call: &'static str,
    pub(crate) between: &'static str,
    pub(crate) end: &'static str,
    pub(crate) field: &'static str,
    /// Behind this text of the answer a call has begun, where one may only be recognised by it; the text is the beginning of
    /// `begin` and `call`.
    pub(crate) trigger: &'static str,
}

/// A row of the usual kind.
const ROW: Row = Row {
    format: ToolFormat::Hermes,
    open: &[],
    close: &[],
    around: &[],
    lead: None,
    kind: Kind::Forms(OBJECTS),
    bare: None,
    sign: "",
    source: &[],
    written: None,
};
const WRITTEN: Written = Written { begin: "", call: "", between: "", end: "", field: "", trigger: "" };

pub(super) const OBJECTS: Forms = Forms { objects: true, python: false, head: None, known_only: false };
const EITHER: Forms = Forms { objects: true, python: true, head: None, known_only: true };
const KNOWN: Forms = Forms { known_only: true, ..OBJECTS };
const PYTHON: Forms = Forms { objects: false, python: true, ..OBJECTS };

const fn named(separators: &'static [&'static str], last: bool) -> Forms {
    Forms { objects: false, head: Some(Head { separators, last }), ..OBJECTS }
}

const DEEPSEEK: Forms = named(&["<｜tool▁sep｜>", "```json"], true);
const MISTRAL: Forms = Forms { head: Some(Head { separators: &["[CALL_ID]", "[ARGS]"], last: false }), ..OBJECTS };
const RECIPIENT: Forms = Forms { known_only: true, ..named(&["\n"], false) };

const fn attributes(key: &'static str, close: &'static str, end: &'static str) -> Fields {
    Fields { name: (&["\""], ">"), key: (key, "\"", ">"), value: ("", close), end }
}

const FUNCTION: Fields =
    Fields { name: (&[">"], ">"), key: ("<parameter=", ">", ""), value: ("", "</parameter>"), end: "</function>" };

/// Calls in tags behind the header of a message.
static ATEM: (&str, Fields) =
    ("<atem:invoke name=\"", attributes("<atem:parameter name=\"", "</atem:parameter>", "</atem:invoke>"));

/// The formats; where several could be meant, the first is.
pub(crate) static TABLE: &[Row] = &[
    Row {
        format: ToolFormat::Harmony,
        kind: Kind::Channels(None),
        sign: "<|channel|>",
        source: &[&["<|channel|>"]],
        written: Some(Written {
            call: "<|channel|>commentary to=functions.{N} <|constrain|>json<|message|>{A}",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::Recipients,
        kind: Kind::Channels(Some(&ATEM)),
        sign: "<atem:",
        source: &[&["<atem:invoke"]],
        ..ROW
    },
    Row {
        format: ToolFormat::DeepSeekFenced,
        open: &["<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", "<｜tool▁call▁begin｜>"],
        close: &["```", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"],
        kind: Kind::Forms(DEEPSEEK),
        sign: "```json",
        source: &[
            &["<｜tool▁calls▁begin｜>", "```json"],
            &["<｜tool▁calls▁begin｜>", "'function<｜tool▁sep｜>"],
            &["<｜tool▁calls▁begin｜>", "['type']"],
        ],
        written: Some(Written {
            begin: "<｜tool▁calls▁begin｜>",
            call: "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{N}\n```json\n{A}\n```<｜tool▁call▁end｜>",
            between: "\n",
            end: "<｜tool▁calls▁end｜>",
            trigger: "<｜tool▁calls▁begin｜>",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::DeepSeek,
        open: &["<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", "<｜tool▁call▁begin｜>"],
        close: &["```", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"],
        kind: Kind::Forms(DEEPSEEK),
        source: &[&["<｜tool▁calls▁begin｜>"]],
        written: Some(Written {
            begin: "<｜tool▁calls▁begin｜>",
            call: "<｜tool▁call▁begin｜>{N}<｜tool▁sep｜>{A}<｜tool▁call▁end｜>",
            end: "<｜tool▁calls▁end｜>",
            trigger: "<｜tool▁calls▁begin｜>",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::Mistral,
        open: &["[TOOL_CALLS]"],
        kind: Kind::Forms(MISTRAL),
        sign: "[ARGS]",
        source: &[&["[TOOL_CALLS]", "[ARGS]"]],
        written: Some(Written { call: "[TOOL_CALLS]{N}{C}[ARGS]{A}", trigger: "[TOOL_CALLS]", ..WRITTEN }),
        ..ROW
    },
    Row {
        format: ToolFormat::MistralList,
        open: &["[TOOL_CALLS]"],
        kind: Kind::Forms(MISTRAL),
        source: &[&["[TOOL_CALLS]"]],
        written: Some(Written {
            begin: "[TOOL_CALLS]{S}[",
            call: "{\"name\": \"{N}\", \"arguments\": {A}{J}}",
            between: ", ",
            end: "]",
            trigger: "[TOOL_CALLS]",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::Sections,
        open: &["<|tool_call_begin|>"],
        close: &["<|tool_call_end|>"],
        around: &["<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"],
        kind: Kind::Forms(named(&["<|tool_call_argument_begin|>"], true)),
        source: &[&["<|tool_call_begin|>"]],
        written: Some(Written {
            begin: "<|tool_calls_section_begin|>",
            call: "<|tool_call_begin|>functions.{N}:{I}<|tool_call_argument_begin|>{A}<|tool_call_end|>",
            end: "<|tool_calls_section_end|>",
            trigger: "<|tool_calls_section_begin|>",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::Numbered,
        open: &["<|tool_call:begin|>"],
        close: &["<|tool_call:end|>"],
        around: &["<|tool_calls|>"],
        kind: Kind::Forms(named(&["<|tool_call:name|>", "<|tool_call:args|>"], true)),
        source: &[&["<|tool_call:begin|>"]],
        written: Some(Written {
            begin: "<|tool_calls|>",
            call: "<|tool_call:begin|>{D}<|tool_call:name|>{N}<|tool_call:args|>{A}<|tool_call:end|>",
            trigger: "<|tool_calls|>",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::Quoted,
        open: &["<|tool_call>call:"],
        kind: Kind::Nested(Nested::Quoted("<|\"|>"), "<tool_call|>"),
        source: &[&["<|tool_call>call:"], &["<|tool_call>", "call:"]],
        ..ROW
    },
    Row {
        format: ToolFormat::Elements,
        open: &["]<]minimax[>[<invoke name=\""],
        around: &["]<]minimax[>[<tool_call>", "]<]minimax[>[</tool_call>"],
        kind: Kind::Nested(Nested::Elements("]<]minimax[>["), "</invoke>"),
        source: &[&["]<]minimax[>["]],
        ..ROW
    },
    Row {
        format: ToolFormat::Open,
        open: &["<|open|>call tool=\""],
        around: &[
            "<|open|>tools<|sep|>",
            "<|close|>tools<|sep|>",
            "<|open|>response<|sep|>",
            "<|close|>response<|sep|>",
            "<|close|>message<|sep|>",
        ],
        kind: Kind::Fields(Fields {
            name: (&["\""], "<|sep|>"),
            key: ("<|open|>argument key=\"", "\"", "<|sep|>"),
            value: ("", "<|close|>argument<|sep|>"),
            end: "<|close|>call<|sep|>",
        }),
        source: &[&["<|open|>", "<|sep|>", "argument"]],
        ..ROW
    },
    Row {
        format: ToolFormat::Invoke,
        open: &["<｜DSML｜invoke name=\""],
        around: &[
            "<｜DSML｜function_calls>",
            "</｜DSML｜function_calls>",
            "<｜DSML｜tool_calls>",
            "</｜DSML｜tool_calls>",
        ],
        kind: Kind::Fields(attributes("<｜DSML｜parameter name=\"", "</｜DSML｜parameter>", "</｜DSML｜invoke>")),
        source: &[&["｜DSML｜", "invoke"]],
        ..ROW
    },
    Row {
        format: ToolFormat::InvokeTags,
        open: &["<invoke name=\""],
        around: &["<minimax:tool_call>", "</minimax:tool_call>", "<function_calls>", "</function_calls>"],
        kind: Kind::Fields(attributes("<parameter name=\"", "</parameter>", "</invoke>")),
        source: &[&["<invoke name="]],
        written: Some(Written {
            begin: "<minimax:tool_call>\n",
            call: "<invoke name=\"{N}\">\n{F}</invoke>\n",
            end: "</minimax:tool_call>",
            field: "<parameter name=\"{K}\">{V}</parameter>\n",
            trigger: "<minimax:tool_call>",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::FunctionParams,
        open: &["<function name=\""],
        kind: Kind::Fields(attributes("<param name=\"", "</param>", "</function>")),
        source: &[&["<function name=", "<param name="]],
        written: Some(Written {
            call: "<function name=\"{N}\">{F}</function>",
            between: "\n",
            field: "<param name=\"{K}\">{V}</param>",
            trigger: "<function name=\"",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::SeedTags,
        open: &["<function="],
        around: &["<seed:tool_call>", "</seed:tool_call>"],
        kind: Kind::Fields(FUNCTION),
        sign: "<seed:tool_call>",
        source: &[&["<seed:tool_call>"]],
        written: Some(Written {
            call: "<seed:tool_call>\n<function={N}>\n{F}</function>\n</seed:tool_call>",
            between: "\n",
            field: "<parameter={K}>{V}</parameter>\n",
            trigger: "<function=",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::FunctionTags,
        open: &["<function="],
        around: &["<tool_call>", "</tool_call>"],
        kind: Kind::Fields(FUNCTION),
        source: &[&["<function=", "<parameter="]],
        written: Some(Written {
            call: "<tool_call>\n<function={N}>\n{F}</function>\n</tool_call>",
            between: "\n",
            field: "<parameter={K}>\n{V}\n</parameter>\n",
            trigger: "<function=",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::FunctionTag,
        open: &["<function="],
        close: &["</function>"],
        kind: Kind::Forms(named(&[">"], false)),
        source: &[&["<function="]],
        written: Some(Written { call: "<function={N}>{A}</function>", trigger: "<function=", ..WRITTEN }),
        ..ROW
    },
    Row {
        format: ToolFormat::Pairs,
        open: &["<tool_call>"],
        kind: Kind::Fields(Fields {
            name: (&["\n", "<"], ""),
            key: ("<arg_key>", "</arg_key>", ""),
            value: ("<arg_value>", "</arg_value>"),
            end: "</tool_call>",
        }),
        source: &[&["<tool_call>", "<arg_key>"]],
        written: Some(Written {
            call: "<tool_call>{N}{W}{F}</tool_call>",
            between: "\n",
            field: "<arg_key>{K}</arg_key>{W}<arg_value>{V}</arg_value>{W}",
            trigger: "<tool_call>",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::PairsOpensource,
        open: &["<tool_call:opensource>"],
        around: &["<tool_calls:opensource>", "</tool_calls:opensource>"],
        kind: Kind::Fields(Fields {
            name: (&["<tool_sep:opensource>"], "<tool_sep:opensource>"),
            key: ("<arg_key:opensource>", "</arg_key:opensource>", ""),
            value: ("<arg_value:opensource>", "</arg_value:opensource>"),
            end: "</tool_call:opensource>",
        }),
        source: &[&["<tool_call:opensource>"]],
        written: Some(Written {
            begin: "<tool_calls:opensource>\n",
            call: "<tool_call:opensource>{N}<tool_sep:opensource>\n{F}</tool_call:opensource>\n",
            end: "</tool_calls:opensource>",
            field: "<arg_key:opensource>{K}</arg_key:opensource>\n<arg_value:opensource>{V}</arg_value:opensource>\n",
            trigger: "<tool_calls:opensource>",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::Hermes,
        open: &["<tool_call>"],
        close: &["</tool_call>"],
        source: &[&["<tool_call>"]],
        written: Some(Written {
            call: "<tool_call>\n{O:name:arguments}\n</tool_call>",
            between: "\n",
            trigger: "<tool_call>",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::Lines,
        open: &["<tool_calls>"],
        close: &["</tool_calls>"],
        sign: "<tool_calls>\n{",
        written: Some(Written {
            begin: "<tool_calls>\n",
            call: "{O:name:arguments}",
            between: "\n",
            end: "\n</tool_calls>",
            trigger: "<tool_calls>",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::Lists,
        open: &["<tool_calls>"],
        close: &["</tool_calls>"],
        source: &[&["<tool_calls>"]],
        written: Some(Written {
            begin: "<tool_calls>[",
            call: "{O:name:arguments}",
            between: ", ",
            end: "]</tool_calls>",
            trigger: "<tool_calls>",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::UpperLists,
        open: &["<TOOLCALL>"],
        close: &["</TOOLCALL>"],
        source: &[&["<TOOLCALL>"]],
        written: Some(Written {
            begin: "<TOOLCALL>[",
            call: "{O:name:arguments}",
            between: ", ",
            end: "]</TOOLCALL>",
            trigger: "<TOOLCALL>",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::Prefixed,
        open: &["<|tools_prefix|>"],
        close: &["<|tools_suffix|>"],
        source: &[&["<|tools_prefix|>"]],
        written: Some(Written {
            begin: "<|tools_prefix|>[",
            call: "{M}",
            between: ", ",
            end: "]<|tools_suffix|>",
            trigger: "<|tools_prefix|>",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::Actions,
        open: &["<|START_ACTION|>"],
        close: &["<|END_ACTION|>"],
        source: &[&["<|START_ACTION|>"]],
        written: Some(Written {
            begin: "<|START_ACTION|>[\n    ",
            call: "{\"tool_call_id\": \"{I}\", \"tool_name\": \"{N}\", \"parameters\": {A}}",
            between: ",\n    ",
            end: "\n]<|END_ACTION|>",
            trigger: "<|START_ACTION|>",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::ActionFence,
        open: &["Action:\n```json", "Action: ```json"],
        close: &["```"],
        kind: Kind::Forms(KNOWN),
        source: &[&["Action:", "```json"]],
        written: Some(Written {
            begin: "Action:\n```json\n[\n",
            call: "{O:tool_name:parameters}",
            between: ",\n",
            end: "\n]\n```",
            trigger: "Action:\n```json",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::FunctionCall,
        open: &["<|function_call|>"],
        source: &[&["<|function_call|>"]],
        written: Some(Written { call: "<|function_call|>{O:name:arguments}", trigger: "<|function_call|>", ..WRITTEN }),
        ..ROW
    },
    Row {
        format: ToolFormat::FunctionTurn,
        open: &["function call<|role_sep|>"],
        around: &["<|message_sep|>"],
        source: &[&["function call", "<|role_sep|>"]],
        written: Some(Written {
            call: "function call<|role_sep|>\n{O:name:arguments}",
            trigger: "function call<|role_sep|>",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::Functools,
        open: &["functools"],
        kind: Kind::Forms(KNOWN),
        source: &[&["functools["]],
        written: Some(Written {
            begin: "functools[",
            call: "{O:name:arguments}",
            between: ", ",
            end: "]",
            trigger: "functools[",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::ToolCallToken,
        open: &["<|tool_call|>"],
        source: &[&["<|tool_call|>"]],
        written: Some(Written {
            begin: "<|tool_call|>[",
            call: "{O:name:arguments}",
            between: ", ",
            end: "]",
            trigger: "<|tool_call|>",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::PythonTagged,
        open: &["<|tool_call_start|>"],
        close: &["<|tool_call_end|>"],
        kind: Kind::Forms(Forms { objects: true, ..PYTHON }),
        source: &[&["<|tool_call_start|>"]],
        written: Some(Written {
            begin: "<|tool_call_start|>[",
            call: "{N}({Y})",
            between: ", ",
            end: "]<|tool_call_end|>",
            trigger: "<|tool_call_start|>",
            ..WRITTEN
        }),
        ..ROW
    },
    Row {
        format: ToolFormat::Recipient,
        open: &[">>>"],
        around: &[">>>all\n"],
        lead: Some("all\n"),
        kind: Kind::Forms(RECIPIENT),
        bare: Some(RECIPIENT),
        source: &[&[">>>all"], &["'>>>'"]],
        written: Some(Written { call: "{N}\n{A}", between: ">>>", ..WRITTEN }),
        ..ROW
    },
    Row {
        format: ToolFormat::Pythonic,
        open: &["<|python_tag|>", "<|python_start|>"],
        close: &["<|python_end|>"],
        kind: Kind::Forms(Forms { known_only: false, ..EITHER }),
        bare: Some(EITHER),
        sign: "probe_tool(",
        source: &[&["<|python_start|>"], &["func_name1("], &["[func_name("]],
        written: Some(Written { begin: "[", call: "{N}({Y})", between: ", ", end: "]", ..WRITTEN }),
        ..ROW
    },
    Row {
        format: ToolFormat::Llama3,
        open: &["<|python_tag|>", "<|python_start|>"],
        close: &["<|python_end|>"],
        kind: Kind::Forms(Forms { known_only: false, ..EITHER }),
        bare: Some(EITHER),
        sign: "{",
        source: &[&["<|python_tag|>"]],
        written: Some(Written { call: "{O:name:parameters}", between: "; ", ..WRITTEN }),
        ..ROW
    },
    Row {
        format: ToolFormat::Gemma,
        open: &["```tool_code", "```tool_call", "```json"],
        close: &["```"],
        kind: Kind::Forms(EITHER),
        bare: Some(EITHER),
        source: &[&["tool_code"]],
        written: Some(Written { begin: "```tool_code\n", call: "{N}({Y})", between: "\n", end: "\n```", ..WRITTEN }),
        ..ROW
    },
];

/// Special tokens that mark calls in some format, and reasoning.
pub(crate) const MARKS: [&str; 62] = [
    "<tool_call>",
    "</tool_call>",
    "<tool_calls>",
    "</tool_calls>",
    "<seed:tool_call>",
    "</seed:tool_call>",
    "<minimax:tool_call>",
    "</minimax:tool_call>",
    "<tool_calls:opensource>",
    "</tool_calls:opensource>",
    "<tool_call:opensource>",
    "</tool_call:opensource>",
    "<tool_sep:opensource>",
    "<arg_key:opensource>",
    "</arg_key:opensource>",
    "<arg_value:opensource>",
    "</arg_value:opensource>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "<|tools_prefix|>",
    "<|tools_suffix|>",
    "<|START_ACTION|>",
    "<|END_ACTION|>",
    "<|function_call|>",
    "<|role_sep|>",
    "<|tool_call|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|\"|>",
    "<|tool_call_start|>",
    "<|tool_call_end|>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_calls|>",
    "<|tool_call:begin|>",
    "<|tool_call:name|>",
    "<|tool_call:args|>",
    "<|tool_call:end|>",
    "<|open|>",
    "<|close|>",
    "<|sep|>",
    "]<]minimax[>[",
    "｜DSML｜",
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
];

/// Special tokens that end a message or mark its reasoning.
pub(crate) const ENDS: [&str; 16] = [
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|eom|>",
    "[THINK]",
    "[/THINK]",
    "<think>",
    "</think>",
    "<mm:think>",
    "</mm:think>",
    "<|START_THINKING|>",
    "<|END_THINKING|>",
    "<seed:think>",
    "</seed:think>",
    "<|channel>",
    "<channel|>",
];
