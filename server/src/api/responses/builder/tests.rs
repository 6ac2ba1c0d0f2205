//! Responses of invented jobs, and the events of their streams.

use super::*;
use crate::api::common::fields::Common;
use crate::api::common::ignored::Ignored;
use crate::api::common::known::Known;
use crate::api::common::stream::testing::{self, delta, done};
use crate::api::responses::ResponseFields;
use crate::api::responses::tools::ResponseTool;
use crate::generate::job::Event;
use ir_engine::text::chat::ToolCall;

fn builder() -> ResponseBuilder {
    offering(json!([]))
}

fn offering(tools: Json) -> ResponseBuilder {
    let tools: Vec<Known<ResponseTool>> = serde_json::from_value(tools).unwrap_or_default();
    let (mut offered, object) =
        (Offered::default(), ResponseObject::new(&Common::default(), &ResponseFields::default()));
    assert_eq!(offered.add("tools", &tools, false, &Ignored::default()), Ok(()));
    ResponseBuilder::new(object, offered.finish(), None)
}

fn events_of(events: Vec<Event>) -> Vec<(String, Json)> {
    let encoded = testing::encoded(builder(), events.into_iter().map(|e| (0, e)).collect());
    for (i, (name, event)) in encoded.iter().enumerate() {
        assert_eq!((event["sequence_number"].as_u64(), event["type"].as_str()), (Some(i as u64), Some(name.as_str())));
    }
    encoded
}

fn names(encoded: &[(String, Json)]) -> Vec<&str> {
    encoded.iter().map(|(name, _)| name.strip_prefix("response.").unwrap_or(name)).collect()
}

#[test]
fn reasoning_then_text_in_the_documented_order() {
    let encoded = events_of(vec![
        delta(vec![Part::Thinking("hm".into())]),
        delta(vec![Part::Text("Hel".into())]),
        delta(vec![Part::Text("lo".into())]),
        done(Reason::Stop, 4),
    ]);
    assert_eq!(
        names(&encoded),
        [
            "created",
            "in_progress",
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed"
        ]
    );
    assert_eq!(encoded[2].1["item"]["summary"], json!([]));
    assert_eq!((&encoded[12].1["text"], &encoded[12].1["output_index"]), (&json!("Hello"), &json!(1)));
    assert_eq!(encoded[10].1["item_id"], encoded[14].1["item"]["id"]);
    let response = &encoded[15].1["response"];
    assert_eq!((&response["status"], &response["usage"]["total_tokens"]), (&json!("completed"), &json!(11)));
    assert_eq!(response["output"][1]["content"][0]["text"], "Hello");
    assert_eq!(response["output"][0]["summary"][0], json!({"type": "summary_text", "text": "hm"}));
}

#[test]
fn calls_are_items() {
    let call = ToolCall { id: Some("call_1".into()), name: "add".into(), arguments: json!({"a": 1}) };
    let encoded = events_of(vec![
        delta(vec![Part::CallStart { index: 0, id: "call_1".into(), name: "add".into() }]),
        delta(vec![Part::CallArguments { index: 0, fragment: "{\"a\":1}".into() }, Part::CallEnd { index: 0, call }]),
        done(Reason::ToolCalls, 4),
    ]);
    let want = [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ];
    assert_eq!(names(&encoded)[2..], want);
    let item = &encoded[6].1["response"]["output"][0];
    assert_eq!(
        (&item["call_id"], &item["arguments"], &item["status"]),
        (&json!("call_1"), &json!("{\"a\":1}"), &json!("completed"))
    );
}

#[test]
fn calls_have_the_form_of_their_tools() {
    let wait = json!({"type": "function", "name": "wait"});
    let tools = json!([
        {"type": "namespace", "name": "clock", "tools": [wait, {"type": "custom", "name": "exec"}]},
        {"type": "tool_search", "execution": "client", "parameters": {"type": "object"}},
    ]);
    let mut events = Vec::new();
    for (i, (name, arguments)) in
        [("wait", json!({"ms": 1})), ("exec", json!({"input": "a\nb"})), ("tool_search", json!({"query": "q"}))]
            .into_iter()
            .enumerate()
    {
        let (index, id, name) = (i, format!("call_{i}"), name.to_owned());
        let fragment = arguments.to_string();
        let call = ToolCall { id: Some(id.clone()), name: name.clone(), arguments };
        events.push(delta(vec![Part::CallStart { index, id, name }, Part::CallArguments { index, fragment }]));
        events.push(delta(vec![Part::CallEnd { index, call }]));
    }
    events.push(done(Reason::ToolCalls, 9));
    let encoded = testing::encoded(offering(tools), events.into_iter().map(|e| (0, e)).collect());
    let output = &encoded.last().map(|(_, e)| e["response"]["output"].clone()).unwrap_or_default();
    let told = |item: &Json, field: &str| item[field].as_str().unwrap_or("").to_owned();
    let shown: Vec<_> = output
        .as_array()
        .into_iter()
        .flatten()
        .map(|i| (told(i, "type"), told(i, "name"), told(i, "namespace")))
        .collect();
    let want =
        [("function_call", "wait", "clock"), ("custom_tool_call", "exec", "clock"), ("tool_search_call", "", "")];
    assert_eq!(shown, want.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    assert_eq!((&output[1]["input"], &output[2]["arguments"]), (&json!("a\nb"), &json!({"query": "q"})));
    let input: Vec<_> = names(&encoded).into_iter().filter(|n| n.contains("custom_tool_call_input")).collect();
    assert_eq!(input, ["custom_tool_call_input.delta", "custom_tool_call_input.done"]);
    let finished = encoded.iter().filter(|(name, _)| name == "response.output_item.done").map(|(_, e)| &e["item"]);
    assert_eq!(finished.collect::<Vec<_>>(), output.as_array().into_iter().flatten().collect::<Vec<_>>());
}

#[test]
fn a_call_that_was_cut_is_told_once_as_far_as_it_came() {
    let encoded = events_of(vec![
        delta(vec![
            Part::CallStart { index: 0, id: "call_1".into(), name: "add".into() },
            Part::CallArguments { index: 0, fragment: "{\"a".into() },
        ]),
        delta(vec![Part::CallBroken { index: 0 }]),
        done(Reason::Length, 4),
    ]);
    let last = &encoded.last().map(|(_, e)| e["response"].clone()).unwrap_or_default();
    let finished = encoded.iter().find(|(name, _)| name == "response.output_item.done").map(|(_, e)| &e["item"]);
    assert_eq!((last["output"].as_array().map(Vec::len), Some(&last["output"][0])), (Some(1), finished));
    assert_eq!((&last["output"][0]["status"], &last["output"][0]["arguments"]), (&json!("incomplete"), &json!("{\"a")));
    assert_eq!(
        (&last["status"], &last["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    assert_eq!(names(&encoded).last(), Some(&"incomplete"));
}

#[test]
fn nothing_said_is_an_empty_message_and_failures_say_why() {
    let encoded = events_of(vec![done(Reason::Stop, 1)]);
    assert_eq!(encoded.last().map(|(_, e)| e["response"]["output"][0]["content"][0]["text"].clone()), Some(json!("")));
    let encoded =
        events_of(vec![delta(vec![Part::Text("a".into())]), Event::Failed(ApiError::new(Kind::Deadline, "late"))]);
    let last = encoded.last().map(|(_, e)| e["response"].clone()).unwrap_or_default();
    assert_eq!((&last["status"], &last["error"]["message"]), (&json!("failed"), &json!("late")));
    assert_eq!(names(&encoded)[names(&encoded).len() - 2], "output_item.done");
}
