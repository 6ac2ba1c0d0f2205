//! How a template writes a call tells the format: one is put into a chat, and the format whose parser reads it back is it.

use serde_json::{Value as Json, json};

use super::table::{Row, TABLE};
use super::{Piece, ToolFormat, ToolParser};
use crate::text::chat::{ChatTemplate, Message, ToolCall};

const NAME: &str = "probe_tool";
const ASKED: &str = "PROBE-7c1?";

/// The format in which a template writes calls; `None` where it writes none, or in no known one.
pub(super) fn format(template: &ChatTemplate) -> Option<ToolFormat> {
    let arguments = json!({"city": "Pr obe", "days": 2});
    let properties = json!({"city": {"type": "string"}, "days": {"type": "integer"}});
    let parameters = json!({"type": "object", "properties": properties, "required": ["city"]});
    let function = json!({"name": NAME, "description": "x", "parameters": parameters.clone()});
    let tools = [json!({"type": "function", "function": function})];
    let call = ToolCall { id: Some("probe1234".into()), name: NAME.into(), arguments: arguments.clone() };
    let asked = Message::new("user", ASKED);
    let called = Message { role: "assistant".into(), tool_calls: vec![call], ..Message::default() };
    let result =
        Message { tool_call_id: Some("probe1234".into()), tool_name: Some(NAME.into()), ..Message::new("tool", "R") };
    let opened = template.render_unfolded(std::slice::from_ref(&asked), &tools, true).unwrap_or_default();
    let mut chat = vec![asked, called];
    for _ in 0..2 {
        if let Some(text) = template.render_unfolded(&chat, &tools, false)
            && let Some((_, written)) = text.rsplit_once(ASKED)
            && written.contains(NAME)
        {
            let behind = text.strip_prefix(&opened[..]).unwrap_or(written);
            let reads = |row: &&Row| {
                written.contains(row.sign)
                    && [written, behind].iter().any(|text| is_read(row, text, &parameters, &arguments))
            };
            if let Some(row) = TABLE.iter().find(reads) {
                return Some(row.format);
            }
        }
        chat.push(result.clone());
    }
    None
}

/// Whether a format's parser finds the call, and nothing else that is one, in a text.
fn is_read(row: &Row, text: &str, parameters: &Json, arguments: &Json) -> bool {
    let mut parser = ToolParser::with_schemas(row.format, vec![(NAME.to_owned(), Some(parameters.clone()))], 0);
    let pieces = parser.push(text).into_iter().chain(parser.finish());
    let calls: Vec<_> =
        pieces.filter_map(|p| if let Piece::CallEnd { call, .. } = p { Some(call) } else { None }).collect();
    matches!(&calls[..], [call] if call.name == NAME && call.arguments == *arguments)
}
