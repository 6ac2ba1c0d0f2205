//! Turns of chat: the page gives what the engine's own loop, a session and the server give.

use serde_json::json;

use crate::wire::{self, Answers, Generate};

include!("../../engine/tests/all/common/turns.inc");

#[test]
fn the_page_gives_the_same() {
    all_alike(|conversation| {
        let mut engine = engine(conversation.template);
        let model = std::sync::Arc::clone(engine.model());
        let (temperature, seed) = conversation.sampling;
        let request = json!({
            "messages": conversation.messages, "tools": conversation.tools, "think": conversation.think,
            "maxTokens": conversation.max_tokens, "stop": conversation.stop, "temperature": temperature, "seed": seed,
        });
        let generate: Generate = wire::read(&request.to_string()).unwrap();
        let (turn, request) = generate.into_request(&model, conversation.constraint(&model)).unwrap();
        let mut answers = Answers::default();
        answers.insert(engine.add(request, 0.0).unwrap(), turn.reader());
        let mut heard = Heard::default();
        while heard.reason.is_empty() {
            for event in ir_engine::run::wait(engine.step(&|| 0.0)).unwrap() {
                let event = answers.event(&event);
                heard.text.push_str(event["text"].as_str().unwrap());
                heard.thinking.push_str(event["thinking"].as_str().unwrap());
                for call in event["calls"].as_array().into_iter().flatten().filter(|c| c["type"] == "end") {
                    let (call, text) = (&call["call"], |v: &serde_json::Value| v.as_str().unwrap().to_owned());
                    let function = &call["function"];
                    heard.calls.push((text(&call["id"]), text(&function["name"]), function["arguments"].to_string()));
                }
                if event["type"] == "done" {
                    let reasons = ["stop", "length", "tool_calls", "cancelled"];
                    heard.reason = reasons.into_iter().find(|r| event["reason"] == *r).unwrap();
                    heard.stop = event["stop"].as_u64().map(|place| conversation.stops()[place as usize].clone());
                }
            }
        }
        heard
    });
}
