//! The turns of a chat in Anthropic's form, and how they become the engine's messages. Blocks of types that are not known
//! here, such as those of tools that Anthropic runs, are a line of text or are passed over: they stand in histories.

use ir_engine::text::chat::{Message, ToolCall};
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use utoipa::ToSchema;

use crate::api::common::known::{Known, Tagged, said, type_of};
use crate::api::common::unread::{Part, Reading};
use crate::api::common::util::TextOr;
use crate::engine::error::{ApiError, cut};

/// Characters of a foreign block that the model is shown, at most.
const MAX_SHOWN: usize = 4000;

/// Begins a block that a client changes with every request, which no model needs and no cache could hold.
const BILLING: &str = "x-anthropic-billing-header:";

/// One turn.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Turn {
    role: Speaker,
    content: Option<TextOr<Known<Block>>>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Speaker {
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
    /// Directions in the middle of a chat.
    #[serde(alias = "developer")]
    System,
}

/// A part of a turn. Which fields count depends on its type.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
pub(crate) struct Block {
    /// `text`, `thinking`, `redacted_thinking`, `tool_use`, `tool_result`, `image`, `document`, `search_result`,
    /// `tool_reference`. Others are passed over, or a line of text.
    #[serde(rename = "type")]
    kind: String,
    /// Text.
    text: Option<String>,
    /// The assistant's thinking.
    thinking: Option<String>,
    /// Of a call.
    id: Option<String>,
    /// The tool that is called.
    name: Option<String>,
    /// The call's arguments: an object, or its JSON text.
    #[schema(value_type = Option<Value>)]
    input: Option<Json>,
    /// The call that a result is of.
    tool_use_id: Option<String>,
    /// What a tool gave; what a search found.
    #[schema(no_recursion)]
    content: Option<TextOr<Known<Block>>>,
    /// What a document or an image is made of, or where it is from.
    source: Option<SourceForm>,
    /// Of a document or of what a search found.
    title: Option<String>,
    /// Of a document: what it is about.
    context: Option<String>,
    /// A tool that a search found.
    tool_name: Option<String>,
}

impl Tagged for Block {
    const TYPES: &'static [&'static str] = &[
        "text",
        "thinking",
        "redacted_thinking",
        "tool_use",
        "tool_result",
        "image",
        "document",
        "search_result",
        "tool_reference",
    ];
}

/// How a source may be written.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum SourceForm {
    /// An address or a name.
    Name(String),
    /// The thing itself, or where it is.
    Source(Source),
}

/// What a document is made of.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
pub(crate) struct Source {
    /// `text`, `content`, `base64`, `url` or `file`; the first two are read.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// The text.
    data: Option<String>,
    /// Or blocks of text.
    #[schema(no_recursion)]
    content: Option<TextOr<Known<Block>>>,
}

/// What is read of a turn of blocks.
#[derive(Default)]
struct Read {
    texts: Vec<String>,
    thinking: Vec<String>,
    calls: Vec<ToolCall>,
    results: Vec<Message>,
}

/// Turns as messages: a user's results of tools are turns of their own, in front of what else is said.
///
/// # Errors
/// A block asked about now that no model here reads, with its place.
pub(super) fn add_turns(turns: Vec<Turn>, reading: Reading<'_>, out: &mut Vec<Message>) -> Result<(), ApiError> {
    let answered = turns.iter().rposition(|t| t.role == Speaker::Assistant).map_or(0, |at| at + 1);
    for (i, turn) in turns.into_iter().enumerate() {
        let asked = i >= answered && turn.role == Speaker::User;
        add_turn(i, turn, Reading { asked, ..reading }, out)?;
    }
    Ok(())
}

fn add_turn(i: usize, turn: Turn, reading: Reading<'_>, out: &mut Vec<Message>) -> Result<(), ApiError> {
    let role = match turn.role {
        Speaker::User => "user",
        Speaker::Assistant => "assistant",
        Speaker::System => "system",
    };
    let blocks = match turn.content.unwrap_or_default() {
        TextOr::Text(text) => {
            out.push(Message::new(role, text));
            return Ok(());
        }
        TextOr::List(blocks) => blocks,
    };
    let mut read = Read::default();
    read.blocks(reading, &format!("messages[{i}].content"), blocks)?;
    let only_results = read.texts.is_empty() && !read.results.is_empty();
    out.append(&mut read.results);
    if !only_results {
        let content = (!read.texts.is_empty() || read.calls.is_empty()).then(|| read.texts.join("\n"));
        let reasoning = read.thinking.join("\n");
        out.push(Message {
            content,
            reasoning_content: Some(reasoning).filter(|r| !r.is_empty()),
            tool_calls: read.calls,
            ..Message::new(role, "")
        });
    }
    Ok(())
}

impl Read {
    fn blocks(&mut self, reading: Reading<'_>, place: &str, blocks: Vec<Known<Block>>) -> Result<(), ApiError> {
        for (j, block) in blocks.into_iter().enumerate() {
            match block {
                Known::Read(block) => self.block(reading, &format!("{place}[{j}]"), block)?,
                Known::Unknown(map) => self.unknown(reading, &map),
            }
        }
        Ok(())
    }

    fn block(&mut self, reading: Reading<'_>, place: &str, block: Block) -> Result<(), ApiError> {
        let missing = |field: &str| {
            let field = format!("{place}.{field}");
            ApiError::param(&field, format!("{field}: missing field `{}`", field.rsplit('.').next().unwrap_or("")))
        };
        match block.kind.as_str() {
            "text" => self.texts.extend(block.text),
            "thinking" => self.thinking.extend(block.thinking),
            // Only its author can read it.
            "redacted_thinking" => {}
            "tool_use" => {
                let name = block.name.ok_or_else(|| missing("name"))?;
                self.calls.push(ToolCall::given(block.id, name, block.input.unwrap_or_default()));
            }
            "tool_result" => {
                let id = block.tool_use_id.unwrap_or_default();
                let within = Reading { asked: false, ..reading };
                let text = text(within, &format!("{place}.content"), block.content.unwrap_or_default())?;
                self.results.push(Message { tool_call_id: Some(id), ..Message::new("tool", text) });
            }
            "tool_reference" => self.texts.extend(block.tool_name.map(|name| format!("[tool {name}]"))),
            "image" => self.texts.push(reading.line(place, Part::Image)?),
            _ => {
                let about = [block.title, block.context].into_iter().flatten().filter(|text| !text.is_empty());
                let mut lines: Vec<String> = about.collect();
                lines.extend(match (block.source, block.content) {
                    (_, Some(content)) => text(reading, &format!("{place}.content"), content)?.into(),
                    (Some(SourceForm::Source(source)), None) => source.text(reading, place)?,
                    (Some(SourceForm::Name(_)) | None, None) => None::<String>,
                });
                self.texts.push(lines.join("\n"));
            }
        }
        Ok(())
    }

    /// A block of a type that is not known: what its form says.
    fn unknown(&mut self, reading: Reading<'_>, map: &Map<String, Json>) {
        let kind = type_of(map);
        reading.ignored.note(&format!("content.{kind}"));
        if let Some(text) = said(map) {
            self.texts.push(text);
        } else if kind.ends_with("_use") || kind.ends_with("_result") {
            // A tool that Anthropic runs. What only Anthropic can read is left out.
            self.texts.push(format!("[{kind} {}]", cut(&readable(map).to_string(), MAX_SHOWN)));
        }
    }
}

/// A foreign block without what means nothing to a model.
fn readable(map: &Map<String, Json>) -> Json {
    fn of(value: &Json) -> Json {
        match value {
            Json::Object(map) => readable(map),
            Json::Array(all) => all.iter().map(of).collect(),
            other => other.clone(),
        }
    }
    let told = |(key, value): &(&String, &Json)| {
        let hidden = ["type", "id", "tool_use_id", "cache_control", "caller"].contains(&key.as_str());
        !hidden && !key.starts_with("encrypted") && !value.is_null()
    };
    Json::Object(map.iter().filter(told).map(|(key, value)| (key.clone(), of(value))).collect())
}

impl Source {
    fn text(self, reading: Reading<'_>, place: &str) -> Result<Option<String>, ApiError> {
        match (self.kind.as_deref(), self.data, self.content) {
            (Some("text"), Some(data), _) => Ok(Some(data)),
            (_, _, Some(content)) => text(reading, &format!("{place}.source.content"), content).map(Some),
            _ => reading.line(place, Part::File).map(Some),
        }
    }
}

/// What blocks say.
fn text(reading: Reading<'_>, place: &str, content: TextOr<Known<Block>>) -> Result<String, ApiError> {
    let mut read = Read::default();
    match content {
        TextOr::Text(text) => return Ok(text),
        TextOr::List(blocks) => read.blocks(reading, place, blocks)?,
    }
    Ok(read.texts.join("\n"))
}

/// A system's directions.
///
/// # Errors
/// A block without its text.
pub(super) fn directions(reading: Reading<'_>, content: TextOr<Known<Block>>) -> Result<String, ApiError> {
    let content = match content {
        TextOr::List(mut blocks) => {
            let billing = |b: &Known<Block>| matches!(b, Known::Read(Block { text: Some(text), .. }) if text.starts_with(BILLING));
            blocks.retain(|block| !billing(block));
            TextOr::List(blocks)
        }
        TextOr::Text(text) => TextOr::Text(text),
    };
    text(reading, "system", content)
}

/// The names of tools that a search has found, or that have been called.
pub(super) fn loaded_tools(turns: &[Turn]) -> Vec<String> {
    fn of(blocks: &TextOr<Known<Block>>, out: &mut Vec<String>) {
        let TextOr::List(blocks) = blocks else { return };
        for block in blocks {
            let Known::Read(block) = block else { continue };
            out.extend(block.tool_name.clone());
            out.extend(block.name.clone());
            block.content.iter().for_each(|inner| of(inner, out));
        }
    }
    let mut names = Vec::new();
    turns.iter().filter_map(|t| t.content.as_ref()).for_each(|content| of(content, &mut names));
    names
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use serde_json::json;

    fn messages(body: &Json) -> Result<Vec<Message>, ApiError> {
        fn read<T: serde::de::DeserializeOwned>(value: &Json) -> Result<T, ApiError> {
            crate::api::common::body::parse(value.to_string().as_bytes())
        }
        let ignored = crate::api::common::ignored::Ignored::default();
        let reading = Reading::new("m", &ignored);
        let mut messages = Vec::new();
        if !body["system"].is_null() {
            messages.push(Message::new("system", directions(reading, read(&body["system"])?)?));
        }
        add_turns(read(&body["messages"])?, reading, &mut messages)?;
        Ok(messages)
    }

    #[test]
    fn blocks_of_others_are_a_line_or_nothing() {
        let search = json!({"type": "web_search_result", "url": "http://a", "title": "t", "encrypted_content": "x", "page_age": null});
        let all = messages(&json!({"system": [{"type": "text", "text": "x-anthropic-billing-header: cc_version=1; cch=2;"}, {"type": "text", "text": "Be brief."}],
            "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [
                {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
                {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [search]},
                {"type": "brand_new", "x": 1}, {"type": "newer", "text": "b"},
                {"type": "text", "text": "a", "citations": []},
                {"type": "tool_use", "id": "t1", "name": "f", "input": null}, {"type": "tool_use", "id": "t2", "name": "g", "input": "{\"a\":1}"},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "image", "source": {"type": "base64"}}, {"type": "tool_reference", "tool_name": "X"}]},
                {"type": "tool_result", "tool_use_id": "t2"},
                {"type": "tool_result", "content": {"a": 1}}, {"type": "text", "text": null}, null,
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "A fox."}, "title": "Fables"},
                {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "A drum."}]},
            ]},
            {"role": "system", "content": [{"type": "text", "text": "tokens left"}]},
            {"role": "assistant", "content": null},
        ]}))
        .unwrap();
        let said: Vec<_> = all.iter().map(|m| (m.role.as_str(), m.content.as_deref().unwrap_or("-"))).collect();
        let lines = "[server_tool_use {\"name\":\"web_search\",\"input\":{\"query\":\"q\"}}]\n\
            [web_search_tool_result {\"content\":[{\"url\":\"http://a\",\"title\":\"t\"}]}]\nb\na";
        let want = [
            ("system", "Be brief."),
            ("user", "hi"),
            ("assistant", lines),
            ("tool", "[image left out: this model reads text only]\n[tool X]"),
            ("tool", ""),
            ("tool", "{\"a\":1}"),
            ("user", "Fables\nA fox.\nt\nA drum."),
            ("system", "tokens left"),
            ("assistant", ""),
        ];
        assert_eq!(said, want);
        let calls: Vec<String> = all[2].tool_calls.iter().map(|c| c.arguments.to_string()).collect();
        assert_eq!(calls, ["{}", "{\"a\":1}"]);
    }

    #[test]
    fn turns_of_blocks() {
        let cached = json!({"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}});
        let body = json!({
            "system": [cached, {"type": "text", "text": "Be kind."}],
            "messages": [
                {"role": "user", "content": "1+2?"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"b": 2, "a": 1}},
                ]},
                {"role": "user", "content": [
                    {"type": "text", "text": "Go on."},
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "3"}]},
                ]},
                {"role": "assistant", "content": "It is"},
            ],
        });
        let messages = messages(&body).unwrap();
        let chat = crate::api::common::util::chat_of(messages);
        let said: Vec<_> = chat.messages.iter().map(|m| (m.role.as_str(), m.content.as_deref())).collect();
        let want = [
            ("system", Some("Be brief.\nBe kind.")),
            ("user", Some("1+2?")),
            ("assistant", None),
            ("tool", Some("3")),
            ("user", Some("Go on.")),
            ("assistant", Some("It is")),
        ];
        assert_eq!(said, want);
        assert_eq!(chat.messages[2].tool_calls[0].arguments.to_string(), r#"{"b":2,"a":1}"#);
        assert_eq!(chat.messages[2].reasoning_content.as_deref(), Some("hm"));
    }
}
