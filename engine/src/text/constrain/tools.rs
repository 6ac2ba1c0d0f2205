//! Grammars of tool calls, written as a model's [`ToolFormat`] has them, so that
//! [`ToolParser`](crate::text::tools::ToolParser) reads them back: an answer that is nothing but calls, one that is calls or
//! something else, and a call that has begun.

use std::fmt::Write;

use serde_json::Value as Json;

use super::Grammar;
use super::arguments::{arguments, inner, lengths, plain_properties, words_of};
use super::trie::Marks;
use crate::error::{Error, Result};
use crate::text::tools::table::{ENDS, MARKS, Written};
use crate::text::tools::{ToolFormat, allows_text, is_name};

/// What a message of Harmony ends with.
const END: &str = "<|end|>";
/// Tools of a request at most.
const MAX_TOOLS: usize = 512;

/// A tool that may be called.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tool<'a> {
    /// Its name.
    pub name: &'a str,
    /// The schema of its arguments, an object; `None` where it takes none. What no grammar can hold to is passed over.
    pub parameters: Option<&'a Json>,
}

/// Which calls an answer must make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolChoice<'a> {
    /// At least one, of any tool.
    Required,
    /// Of the tool of this name.
    Named(&'a str),
}

/// A grammar of calls whose tags become tokens where a vocabulary has them.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolGrammar {
    /// Lark, but for the tags: `tag0`, `tag1`, ... and the texts up to tags: `till0`, `till1`, ...
    lark: String,
    tags: Vec<&'static str>,
    /// Values that are plain text.
    tills: Vec<Till>,
    /// What the answer may be as well.
    or: Option<Box<Grammar>>,
}

/// A value that is plain text.
#[derive(Debug, Clone, PartialEq)]
struct Till {
    /// What stands behind it.
    close: String,
    /// Its characters: at least, at most.
    lengths: (usize, Option<usize>),
}

impl Till {
    /// Its rule, of this number; `control` gives the id of a mark that is a control token.
    fn rule(&self, i: usize, control: impl Fn(&'static str) -> Option<u32>) -> String {
        let text = match self.lengths {
            (0, None) => "(.|\\n)*".to_owned(),
            (least, most) => format!("(.|\\n){{{least},{}}}", most.map_or(String::new(), |n| n.to_string())),
        };
        // Texts match no control token: such a one ends the value.
        let close = self.close.as_str();
        let token = MARKS.iter().chain(&ENDS).filter_map(|mark| Some((close.find(mark)?, *mark, control(mark)?)));
        if let Some((at, mark, id)) = token.min_by_key(|(at, ..)| *at) {
            let (before, after) = (&close[..at], &close[at + mark.len()..]);
            let before: String = before.chars().map(escaped).collect();
            let after = if after.is_empty() { String::new() } else { literal(after) };
            return format!("till{i}: /{text}{before}/ <[{id}]> {after}");
        }
        if self.lengths == (0, None) {
            return format!("till{i}[suffix={}]: /{text}/", literal(close));
        }
        let inside: String = close.chars().map(escaped).collect();
        let close = literal(close);
        format!("till{i}: TILL{i}\nTILL{i}: (/{text}/ & ~/(.|\\n)*{inside}(.|\\n)*/) {close}")
    }
}

impl ToolGrammar {
    /// What the answer may be beside calls.
    pub(super) fn or(&self) -> Option<&Grammar> {
        self.or.as_deref()
    }

    /// Whether its values are JSON throughout.
    pub(super) fn is_json(&self) -> bool {
        self.tills.is_empty()
    }

    /// The grammar for a vocabulary. What the answer may be as well is the grammar `or`.
    pub(super) fn to_lark(&self, marks: &Marks) -> String {
        let mut out = self.lark.clone();
        let start = if self.or.is_some() { "calls | @or" } else { "calls" };
        let _ = writeln!(out, "start: {start}");
        for (i, tag) in self.tags.iter().enumerate() {
            let _ = match marks.get(*tag) {
                Some((id, _)) => writeln!(out, "tag{i}: <[{id}]>"),
                None => writeln!(out, "tag{i}: {}", literal(tag)),
            };
        }
        let control = |mark: &'static str| marks.get(mark).filter(|(_, control)| *control).map(|(id, _)| *id);
        for (i, till) in self.tills.iter().enumerate() {
            out.push_str(&till.rule(i, control));
            out.push('\n');
        }
        if self.tags.contains(&END) {
            // Marks that are tokens are spelled like texts: none of them begins within a thought.
            let text = if marks.contains_key(END) { "([^<]|<[^|])*" } else { "[^<]*" };
            let _ = writeln!(out, "thinking: /{text}/");
        }
        out
    }
}

/// The grammar of an answer that calls tools and says nothing else; `parallel` allows several calls where the format has
/// them in one answer.
///
/// # Errors
/// No tools, a choice that is not among them, a name that the format cannot write, a schema of arguments that is no
/// object.
pub fn tool_grammar(format: ToolFormat, tools: &[Tool], choice: ToolChoice, parallel: bool) -> Result<Grammar> {
    let mut chosen: Vec<&Tool> = tools.iter().collect();
    if let ToolChoice::Named(name) = choice {
        chosen.retain(|tool| tool.name == name);
        if chosen.is_empty() {
            return Err(Error::request(format!("tool_choice names {name:?}, which is not among the tools")));
        }
    }
    if chosen.is_empty() || chosen.len() > MAX_TOOLS {
        return Err(Error::request(format!("a call is required: give 1 to {MAX_TOOLS} tools")));
    }
    let written = format.row().written.ok_or_else(|| {
        Error::unsupported(
            "calls cannot be demanded of this model, whose form of calls no grammar writes: leave tool_choice",
        )
    })?;
    calls(format, written, &chosen, parallel, None).map(Grammar::Tools)
}

/// The grammar of an answer that either calls tools or is `other`.
///
/// # Errors
/// As [`tool_grammar`].
pub fn tools_or(format: ToolFormat, tools: &[Tool], parallel: bool, other: Grammar) -> Result<Grammar> {
    match tool_grammar(format, tools, ToolChoice::Required, parallel)? {
        Grammar::Tools(calls) => Ok(Grammar::Tools(ToolGrammar { or: Some(Box::new(other)), ..calls })),
        calls => Ok(calls),
    }
}

/// What shows that a call has begun in an answer of free text, and the grammar of what follows up to the call's end;
/// `None` where a format marks calls by nothing that is never text.
///
/// # Errors
/// As [`tool_grammar`].
pub fn begun_call(format: ToolFormat, tools: &[Tool]) -> Result<Option<(&'static str, Grammar)>> {
    let Some(written) = format.row().written.filter(|w| !w.trigger.is_empty()) else { return Ok(None) };
    let all: Vec<&Tool> = tools.iter().collect();
    if all.is_empty() || all.len() > MAX_TOOLS {
        return Ok(None);
    }
    calls(format, written, &all, true, Some(written.trigger))
        .map(|calls| Some((written.trigger, Grammar::Tools(calls))))
}

/// The grammar of calls of these tools; with `begun`, behind that text.
fn calls(
    format: ToolFormat,
    written: Written,
    tools: &[&Tool],
    parallel: bool,
    begun: Option<&str>,
) -> Result<ToolGrammar> {
    let mut writer = Writer::default();
    // What is common to all calls and was written already.
    let behind = |text: &'static str| begun.and_then(|begun| text.split_once(begun)).map(|(_, rest)| rest);
    let (begin, first) = match (behind(written.begin), behind(written.call)) {
        (Some(begin), _) => (begin, written.call),
        (None, Some(call)) => (written.begin, call),
        (None, None) => (written.begin, written.call),
    };
    let whole = first == written.call;
    let bodies = tools.iter().map(|tool| writer.call(tool, first, written.field)).collect::<Result<Vec<_>>>()?;
    writer.rule("call", &bodies.join(" | "));
    let several = match written.between {
        // Behind a call that began by itself others may follow.
        _ if !whole => {
            let more = tools.iter().map(|tool| writer.call(tool, written.call, written.field));
            let more = more.collect::<Result<Vec<_>>>()?;
            writer.rule("more", &more.join(" | "));
            let space = writer.words("{W}");
            format!("call ({space} more)* {space}")
        }
        _ if !parallel || format == ToolFormat::Harmony => "call".to_owned(),
        "" => "call+".to_owned(),
        between => format!("call ({} call)*", writer.words(between)),
    };
    let thought = if format == ToolFormat::Harmony { writer.thought() } else { "" };
    let (begin, end) = (writer.words(begin), writer.words(if whole { written.end } else { "" }));
    writer.rule("calls", &format!("{thought} {begin} {several} {end}"));
    let Writer { lark, tags, tills, .. } = writer;
    Ok(ToolGrammar { lark, tags, tills, or: None })
}

#[derive(Default)]
struct Writer {
    lark: String,
    tags: Vec<&'static str>,
    tills: Vec<Till>,
    n_rules: usize,
}

impl Writer {
    fn rule(&mut self, name: &str, body: &str) {
        let _ = writeln!(self.lark, "{name}: {body}");
    }

    /// A rule of its own for this body; gives its name.
    fn part(&mut self, body: &str) -> String {
        let name = format!("p{}", self.n_rules);
        self.n_rules += 1;
        self.rule(&name, body);
        name
    }

    /// The name of a tag's rule.
    fn tag(&mut self, tag: &'static str) -> String {
        let at = self.tags.iter().position(|t| *t == tag).unwrap_or_else(|| {
            self.tags.push(tag);
            self.tags.len() - 1
        });
        format!("tag{at}")
    }

    /// A text in which tags may stand.
    fn words(&mut self, text: &str) -> String {
        let mut out: Vec<String> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let marks = MARKS.iter().chain(&ENDS).filter_map(|mark| Some((rest.find(mark)?, *mark)));
            let (at, mark) = marks.min_by_key(|(at, mark)| (*at, usize::MAX - mark.len())).unwrap_or((rest.len(), ""));
            let mut text = rest[..at].to_owned();
            while let Some(space) = text.find("{S}").into_iter().chain(text.find("{W}")).min() {
                out.extend((space > 0).then(|| literal(&text[..space])));
                out.push(if text[space..].starts_with("{S}") { "/[ ]?/" } else { "/[ \\n]{0,3}/" }.to_owned());
                text.drain(..space + 3);
            }
            out.extend((!text.is_empty()).then(|| literal(&text)));
            if !mark.is_empty() {
                out.push(self.tag(mark));
            }
            rest = &rest[at + mark.len()..];
        }
        out.join(" ")
    }

    /// Reasoning, which in channels may come before a call.
    fn thought(&mut self) -> &'static str {
        let thought = self.words("<|channel|>analysis<|message|>{T}<|end|><|start|>assistant");
        self.rule("thought", &thought.replace(&literal("{T}"), "thinking"));
        "thought?"
    }

    /// A call of a tool; gives the name of its rule.
    fn call(&mut self, tool: &Tool, pattern: &str, field: &str) -> Result<String> {
        let name = tool.name;
        let parameters = arguments(tool)?;
        if name.is_empty() || name.len() > 256 || (pattern.contains("{N}") && !is_name(name)) {
            return Err(Error::request(format!(
                "the tool's name {name:?} cannot be written in this model's calls: use letters, digits, _ and -"
            )));
        }
        let (mut out, mut rest) = (Vec::new(), pattern);
        while let Some((before, hole, after)) = hole(rest) {
            let (kind, keys) = hole.split_once(':').unwrap_or((hole, ""));
            let json = format!("%json {parameters}");
            let filled = match kind {
                "N" => literal(name),
                "A" => json,
                "O" => {
                    let (name_key, key) = keys.split_once(':').unwrap_or(("name", "arguments"));
                    let head = format!("{{\"{name_key}\": {}, \"{key}\": ", Json::from(name));
                    format!("{} {json} \"}}\"", literal(&head))
                }
                "M" => format!("{} {json} \"}}\"", literal(&format!("{{{}: ", Json::from(name)))),
                "Y" => self.keywords(name, &parameters)?,
                "F" => self.fields(name, &parameters, field)?,
                "C" => format!("({} /[a-zA-Z0-9]{{1,12}}/)?", self.tag("[CALL_ID]")),
                "J" => format!("({} /[a-zA-Z0-9]{{1,12}}/ \"\\\"\")?", literal(", \"id\": \"")),
                "D" => "/[a-zA-Z0-9_-]{1,40}/".to_owned(),
                _ => "/[0-9]{1,3}/".to_owned(),
            };
            out.extend([self.words(before), filled]);
            rest = after;
        }
        out.push(self.words(rest));
        Ok(self.part(&out.join(" ")))
    }

    /// Arguments in tags of their own, in the schema's order.
    fn fields(&mut self, tool: &str, parameters: &Json, pattern: &str) -> Result<String> {
        let mut items = Vec::new();
        for (key, value, required) in plain_properties(tool, parameters)? {
            let pattern = pattern.replace("{K}", &key);
            let (head, tail) = pattern.split_once("{V}").unwrap_or((&pattern, ""));
            let head = self.words(head);
            let body = if let Some(words) = words_of(&value) {
                let words: Vec<String> = words.iter().map(|word| literal(word)).collect();
                format!("{head} ({}) {}", words.join(" | "), self.words(tail))
            } else if allows_text(&value, parameters) {
                // Up to the closing tag, with the line's end behind it.
                let close = tail.trim_end();
                let close = close.replace("{W}", "");
                let after = &tail[tail.find(close.as_str()).map_or(tail.len(), |at| at + close.len())..];
                self.tills.push(Till { close, lengths: lengths(&value) });
                format!("{head} till{} {}", self.tills.len() - 1, self.words(after))
            } else {
                format!("{head} %json {} {}", inner(parameters, &value), self.words(tail))
            };
            items.push((self.part(&body), required));
        }
        Ok(self.list(&items, ""))
    }

    /// Arguments as keywords of a Python call, in the schema's order; values are written as JSON, whose literals Python's
    /// reader takes too.
    fn keywords(&mut self, tool: &str, parameters: &Json) -> Result<String> {
        let mut items = Vec::new();
        for (key, value, required) in plain_properties(tool, parameters)? {
            // Literals as Python writes them, too.
            let more = match value.get("type").and_then(Json::as_str) {
                Some("boolean") => " | \"True\" | \"False\"",
                _ if allows_text(&value, parameters) => r" | /'([^'\\\n]|\\['\\nt])*'/",
                _ => "",
            };
            let value = self.part(&format!("%json {}{more}", inner(parameters, &value)));
            items.push((self.part(&format!("{} {value}", literal(&format!("{key}=")))), required));
        }
        Ok(self.list(&items, "\", \""))
    }

    /// Items in order with this between them, of which some may be left out.
    fn list(&mut self, items: &[(String, bool)], comma: &str) -> String {
        // For each place from the last on: what may follow behind an item, and at the start.
        let (mut behind, mut first) = (r#""""#.to_owned(), r#""""#.to_owned());
        for (item, required) in items.iter().rev() {
            let with = format!("{item} {behind}");
            let next = if *required { self.part(&with) } else { self.part(&format!("{with} | {first}")) };
            let with = format!("{comma} {item} {behind}");
            behind = if *required { self.part(&with) } else { self.part(&format!("{with} | {behind}")) };
            first = next;
        }
        first
    }
}

/// The first hole of a pattern, with what stands before and behind it.
fn hole(pattern: &str) -> Option<(&str, &str, &str)> {
    let from = pattern.match_indices('{').map(|(at, _)| at).find(|at| {
        let inner = &pattern[at + 1..];
        inner.starts_with(|c: char| c.is_ascii_uppercase() && !"SW".contains(c))
            && matches!(inner.as_bytes().get(1), Some(b'}' | b':'))
    })?;
    let to = from + pattern[from..].find('}')?;
    Some((&pattern[..from], &pattern[from + 1..to], &pattern[to + 1..]))
}

/// A character within a regular expression.
fn escaped(c: char) -> String {
    match c {
        '\n' => "\\n".into(),
        // `\<` and `\>` are the edges of words.
        c if c.is_ascii_punctuation() && !"<>".contains(c) => format!("\\{c}"),
        c => c.into(),
    }
}

/// A text as Lark writes it.
fn literal(text: &str) -> String {
    Json::from(text).to_string()
}
