//! Items of every kind as turns.

use super::*;
use crate::api::common::ignored::Ignored;

fn read_all(tools: Json, input: Json) -> Result<Vec<Message>, ApiError> {
    let (ignored, mut offered) = (Ignored::default(), Offered::default());
    let parsed: Vec<Known<ResponseTool>> = crate::api::common::body::parse(tools.to_string().as_bytes())?;
    offered.add("tools", &parsed, false, &ignored)?;
    let items: Items = crate::api::common::body::parse(input.to_string().as_bytes())?;
    let reading = Reading::new("m", &ignored);
    later_tools(&items, &mut offered, reading)?;
    messages(items, 0, &offered.finish(), reading)
}

fn read(input: Json) -> Result<Vec<Message>, ApiError> {
    read_all(json!([]), input)
}

#[test]
fn an_assistants_items_are_one_turn() {
    let all = read(json!([
        {"role": "user", "content": [{"type": "input_text", "text": "1+2?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
         "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}]},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{\"a\":1}"},
        {"type": "function_call", "call_id": "c2", "name": "now", "arguments": ""},
        {"type": "function_call", "call_id": "c3", "name": "cut", "arguments": "{\"a\":"},
        {"type": "function_call_output", "call_id": "c1", "output": "3"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "noon"}]},
        {"type": "function_call_output", "call_id": "c3", "output": {"ok": false}},
    ]))
    .unwrap();
    let roles: Vec<_> = all.iter().map(|m| m.role.as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "tool", "tool"]);
    let turn = &all[1];
    assert_eq!((turn.content.as_deref(), turn.reasoning_content.as_deref()), (Some("Let me see."), Some("hm")));
    let calls: Vec<_> = turn.tool_calls.iter().map(|c| (c.name.as_str(), c.arguments.to_string())).collect();
    assert_eq!(calls, [("add", "{\"a\":1}".into()), ("now", "{}".into()), ("cut", json!("{\"a\":").to_string())]);
    assert_eq!((all[3].content.as_deref(), all[4].content.as_deref()), (Some("noon"), Some("{\"ok\":false}")));
}

#[test]
fn calls_of_every_kind_are_calls_or_a_line() {
    let function = json!({"type": "function", "name": "wait"});
    let namespaces = json!([{"type": "namespace", "name": "a", "tools": [function]}]);
    let found = json!([{"type": "namespace", "name": "b", "tools": [function]}]);
    let all = read_all(
        namespaces,
        json!([
            {"role": "user", "content": "go"},
            {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": "*** Begin"},
            {"type": "function_call", "call_id": "c2", "name": "wait", "namespace": "a", "arguments": "{}"},
            {"type": "tool_search_call", "call_id": "c3", "execution": "client", "arguments": {"query": "q"}},
            {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"query": "weather"}},
            {"type": "local_shell_call", "id": "l", "call_id": "c4", "action": {"command": ["ls"]}},
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
            {"type": "tool_search_output", "call_id": "c3", "tools": found},
            {"type": "local_shell_call_output", "call_id": "c4", "output": "a.txt"},
            {"type": "compaction", "encrypted_content": "x"},
            {"type": "brand_new", "text": "hello"},
        ]),
    )
    .unwrap();
    let roles: Vec<_> = all.iter().map(|m| m.role.as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "tool", "tool", "user"]);
    let calls: Vec<_> = all[1].tool_calls.iter().map(|c| (c.name.as_str(), c.arguments.to_string())).collect();
    let want = [
        ("patch", "{\"input\":\"*** Begin\"}"),
        ("a__wait", "{}"),
        ("tool_search", "{\"query\":\"q\"}"),
        ("local_shell", "{\"command\":[\"ls\"]}"),
    ];
    assert_eq!(calls, want.map(|(name, arguments)| (name, arguments.to_owned())));
    assert_eq!(all[1].content.as_deref(), Some("[web_search_call {\"action\":{\"query\":\"weather\"}}]"));
    assert!(all[3].content.as_deref().unwrap().contains("\"wait\""));
    assert_eq!(all[5].content.as_deref(), Some("hello"));
}

#[test]
fn images_are_refused_where_they_are_asked_about_and_a_line_elsewhere() {
    let image = json!({"type": "input_image", "image_url": "data:image/png;base64,aGk="});
    let line = "[image left out: this model reads text only]";
    let asked = read(json!([{"role": "user", "content": [image]}])).unwrap_err();
    assert_eq!(asked.param.as_deref(), Some("input[0].content[0]"));
    let all = read(json!([
        {"role": "user", "content": [image, {"type": "input_text", "text": "What is it?"}]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "And now?"},
        {"type": "function_call", "call_id": "c1", "name": "view", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": [image]},
    ]))
    .unwrap();
    assert_eq!(all[0].content.as_deref(), Some(format!("{line}\nWhat is it?").as_str()));
    assert_eq!(all.last().unwrap().content.as_deref(), Some(line));
}

#[test]
fn what_is_missing_has_its_place() {
    for (item, param) in [
        (json!({"content": "x"}), "input[0].role"),
        (json!({"role": "poet", "content": "x"}), "[0].role"),
        (json!({"type": "function_call", "call_id": "c"}), "input[0].name"),
        (json!({"role": "user", "content": [{"type": "input_file"}]}), "input[0].content[0]"),
        (json!({"role": "user", "content": [{"type": "input_text", "text": 5}]}), "[0].content[0].text"),
    ] {
        assert_eq!(read(json!([item])).unwrap_err().param.as_deref(), Some(param), "{item}");
    }
}

#[test]
fn references_are_what_they_refer_to() {
    let items: Items = serde_json::from_value(json!([
        {"role": "user", "content": "hi"},
        {"type": "item_reference", "id": "msg_1"},
    ]))
    .unwrap();
    let said: Items =
        serde_json::from_value(json!([{"id": "msg_1", "role": "assistant", "content": "Hello."}])).unwrap();
    let all = resolved(items.clone(), |id| if id == "msg_1" { Ok(said.clone()) } else { Err(ApiError::not_found(id)) });
    assert!(all.is_ok_and(|all| all.len() == 2 && all[1] == said[0]));
    assert!(resolved(items, |id| Err(ApiError::not_found(id))).is_err());
}
