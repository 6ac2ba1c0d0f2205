//! [`ResponseBuilder`]: from a running job to a response and the events of its stream.

use std::collections::HashSet;
use std::time::SystemTime;

use serde_json::{Value as Json, json};

use super::output::{
    Incomplete, OutputItem, OutputText, ResponseError, ResponseObject, ResponseUsage, Status, SummaryText,
};
use crate::api::common::stream::{EventEncoder, Frames, encoded};
use crate::api::common::util::{TokenLogprob, new_id, token_logprobs, unix_seconds};
use crate::engine::error::{ApiError, Kind};
use crate::generate::job::{Delta, Done, Part, Reason};
use crate::generate::running::Running;

/// Builds a response item by item and gives an event for each step. One item is open at a time: the last.
#[derive(Debug)]
pub(super) struct ResponseBuilder {
    response: ResponseObject,
    n_events: u64,
    items: Vec<OutputItem>,
    open: bool,
    /// Items that turned out to be no calls.
    broken: HashSet<usize>,
    /// Of tokens whose text is still to come.
    logprobs: Vec<TokenLogprob>,
}

impl ResponseBuilder {
    /// Of a response that has not begun.
    pub(super) fn new(response: ResponseObject) -> ResponseBuilder {
        let (items, logprobs) = (Vec::new(), Vec::new());
        ResponseBuilder { response, n_events: 0, items, open: false, broken: HashSet::new(), logprobs }
    }

    /// An event of this kind with these fields.
    fn emit(&mut self, kind: &str, fields: Json, out: &mut Frames) {
        let mut event = json!({"type": kind, "sequence_number": self.n_events});
        if let (Json::Object(event), Json::Object(fields)) = (&mut event, fields) {
            event.extend(fields);
        }
        self.n_events += 1;
        out.event(kind, &event);
    }

    fn emit_response(&mut self, kind: &str, out: &mut Frames) {
        let response = json!({"response": self.response});
        self.emit(kind, response, out);
    }

    /// Where the open item is, and its name.
    fn place(&self) -> (usize, &str) {
        let id = match self.items.last() {
            Some(
                OutputItem::Reasoning { id, .. } | OutputItem::Message { id, .. } | OutputItem::FunctionCall { id, .. },
            ) => id,
            None => "",
        };
        (self.items.len().saturating_sub(1), id)
    }

    /// An event about the open item, or about a part of it.
    fn emit_item(&mut self, kind: &str, part: Option<&str>, fields: Json, out: &mut Frames) {
        let (index, id) = self.place();
        let mut all = json!({"item_id": id, "output_index": index});
        if let (Json::Object(all), Json::Object(fields)) = (&mut all, fields) {
            if let Some(part) = part {
                all.insert(part.into(), 0.into());
            }
            all.extend(fields);
        }
        self.emit(kind, all, out);
    }

    fn open(&mut self, item: OutputItem, out: &mut Frames) {
        self.close(Status::Completed, out);
        let index = self.items.len();
        // What is added is empty yet: its parts follow one by one.
        let mut shown = json!(item);
        for field in ["content", "summary"] {
            if shown.get(field).is_some() {
                shown[field] = json!([]);
            }
        }
        self.emit("response.output_item.added", json!({"output_index": index, "item": shown}), out);
        self.items.push(item);
        self.open = true;
        match self.items.last() {
            Some(OutputItem::Reasoning { .. }) => {
                let part = json!({"part": SummaryText::new(String::new())});
                self.emit_item("response.reasoning_summary_part.added", Some("summary_index"), part, out);
            }
            Some(OutputItem::Message { .. }) => {
                let part = json!({"part": OutputText::new(String::new())});
                self.emit_item("response.content_part.added", Some("content_index"), part, out);
            }
            _ => {}
        }
    }

    /// Closes the open item, if there is one.
    fn close(&mut self, end: Status, out: &mut Frames) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let Some(item) = self.items.last_mut() else { return };
        match item {
            OutputItem::Reasoning { summary, status, .. } => {
                *status = end;
                let part = summary.first().cloned().unwrap_or_else(|| SummaryText::new(String::new()));
                let (text, part) = (json!({"text": part.text}), json!({"part": part}));
                self.emit_item("response.reasoning_summary_text.done", Some("summary_index"), text, out);
                self.emit_item("response.reasoning_summary_part.done", Some("summary_index"), part, out);
            }
            OutputItem::Message { content, status, .. } => {
                *status = end;
                let part = content.first().cloned().unwrap_or_else(|| OutputText::new(String::new()));
                let (text, part) = (json!({"text": part.text, "logprobs": part.logprobs}), json!({"part": part}));
                self.emit_item("response.output_text.done", Some("content_index"), text, out);
                self.emit_item("response.content_part.done", Some("content_index"), part, out);
            }
            OutputItem::FunctionCall { arguments, name, status, .. } => {
                *status = end;
                let all = json!({"arguments": arguments, "name": name});
                self.emit_item("response.function_call_arguments.done", None, all, out);
            }
        }
        let index = self.items.len() - 1;
        let item = json!({"output_index": index, "item": self.items[index]});
        self.emit("response.output_item.done", item, out);
    }

    fn text(&mut self, text: &str, out: &mut Frames) {
        if !self.open || !matches!(self.items.last(), Some(OutputItem::Message { .. })) {
            let content = vec![OutputText::new(String::new())];
            let id = new_id("msg_");
            self.open(OutputItem::Message { id, role: "assistant", status: Status::InProgress, content }, out);
        }
        let logprobs = std::mem::take(&mut self.logprobs);
        let delta = json!({"delta": text, "logprobs": logprobs});
        if let Some(OutputItem::Message { content, .. }) = self.items.last_mut()
            && let Some(part) = content.first_mut()
        {
            part.text.push_str(text);
            part.logprobs.extend(logprobs);
        }
        self.emit_item("response.output_text.delta", Some("content_index"), delta, out);
    }

    fn thinking(&mut self, text: &str, out: &mut Frames) {
        if !self.open || !matches!(self.items.last(), Some(OutputItem::Reasoning { .. })) {
            let summary = vec![SummaryText::new(String::new())];
            self.open(OutputItem::Reasoning { id: new_id("rs_"), summary, status: Status::InProgress }, out);
        }
        if let Some(OutputItem::Reasoning { summary, .. }) = self.items.last_mut()
            && let Some(part) = summary.first_mut()
        {
            part.text.push_str(text);
        }
        let delta = json!({"delta": text});
        self.emit_item("response.reasoning_summary_text.delta", Some("summary_index"), delta, out);
    }

    fn arguments(&mut self, fragment: &str, out: &mut Frames) {
        if let Some(OutputItem::FunctionCall { arguments, .. }) = self.items.last_mut() {
            arguments.push_str(fragment);
            self.emit_item("response.function_call_arguments.delta", None, json!({"delta": fragment}), out);
        }
    }

    /// What the response says at its end: all items but those that are no calls.
    fn finish(&mut self) {
        let kept = self.items.iter().enumerate().filter(|(i, _)| !self.broken.contains(i));
        self.response.output = kept.map(|(_, item)| item.clone()).collect();
        self.response.completed_at = Some(unix_seconds(SystemTime::now()));
    }
}

impl EventEncoder for ResponseBuilder {
    type Whole = ResponseObject;

    async fn whole(self, running: Vec<Running>) -> Result<ResponseObject, ApiError> {
        Ok(encoded(running, self).await?.response)
    }

    fn begin(&mut self, out: &mut Frames) {
        self.emit_response("response.created", out);
        self.emit_response("response.in_progress", out);
    }

    fn delta(&mut self, _: usize, delta: Delta, out: &mut Frames) {
        self.logprobs.extend(token_logprobs(&delta.logprobs));
        for part in delta.parts {
            match part {
                Part::Text(text) => self.text(&text, out),
                Part::Thinking(text) => {
                    // Log-probabilities are of the answer's text.
                    self.logprobs.clear();
                    self.thinking(&text, out);
                }
                Part::CallStart { id: call_id, name, .. } => {
                    self.logprobs.clear();
                    let (id, arguments) = (new_id("fc_"), String::new());
                    let status = Status::InProgress;
                    self.open(OutputItem::FunctionCall { id, call_id, name, arguments, status }, out);
                }
                Part::CallArguments { fragment, .. } => self.arguments(&fragment, out),
                Part::CallEnd { .. } => self.close(Status::Completed, out),
                Part::CallBroken { .. } => {
                    self.broken.insert(self.items.len().saturating_sub(1));
                    self.close(Status::Incomplete, out);
                }
            }
        }
    }

    fn done(&mut self, _: usize, done: Done, out: &mut Frames) {
        let cut = done.reason == Reason::Length;
        if self.items.is_empty() {
            // An answer always has a message, if only an empty one.
            self.text("", out);
        }
        let status = if cut { Status::Incomplete } else { Status::Completed };
        self.close(status, out);
        self.finish();
        self.response.status = status;
        self.response.usage = Some(ResponseUsage::from(&done.usage));
        self.response.incomplete_details = cut.then_some(Incomplete { reason: "max_output_tokens" });
        self.emit_response(if cut { "response.incomplete" } else { "response.completed" }, out);
    }

    fn end(&mut self, _: &mut Frames) {}

    fn failed(&mut self, error: &ApiError, out: &mut Frames) {
        self.close(Status::Incomplete, out);
        self.finish();
        let code = if error.kind == Kind::Invalid { "invalid_prompt" } else { "server_error" };
        self.response.status = Status::Failed;
        self.response.error = Some(ResponseError { code, message: error.message.clone() });
        self.emit_response("response.failed", out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::common::fields::Common;
    use crate::api::common::stream::testing::{self, delta, done};
    use crate::api::responses::ResponseFields;
    use crate::generate::job::Event;
    use ir_engine::text::chat::ToolCall;

    fn builder() -> ResponseBuilder {
        ResponseBuilder::new(ResponseObject::new(&Common::default(), &ResponseFields::default()))
    }

    fn events_of(events: Vec<Event>) -> Vec<(String, Json)> {
        let encoded = testing::encoded(builder(), events.into_iter().map(|e| (0, e)).collect());
        for (i, (name, event)) in encoded.iter().enumerate() {
            assert_eq!(
                (event["sequence_number"].as_u64(), event["type"].as_str()),
                (Some(i as u64), Some(name.as_str()))
            );
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
            delta(vec![
                Part::CallArguments { index: 0, fragment: "{\"a\":1}".into() },
                Part::CallEnd { index: 0, call },
            ]),
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
    fn what_is_no_call_is_left_out_at_the_end() {
        let encoded = events_of(vec![
            delta(vec![Part::CallStart { index: 0, id: "call_1".into(), name: "add".into() }]),
            delta(vec![Part::CallBroken { index: 0 }, Part::Text("<tool_call>".into())]),
            done(Reason::Length, 4),
        ]);
        let last = &encoded.last().map(|(_, e)| e["response"].clone()).unwrap_or_default();
        assert_eq!(
            (last["output"].as_array().map(Vec::len), &last["output"][0]["status"]),
            (Some(1), &json!("incomplete"))
        );
        assert_eq!(
            (&last["status"], &last["incomplete_details"]["reason"]),
            (&json!("incomplete"), &json!("max_output_tokens"))
        );
        assert_eq!(names(&encoded).last(), Some(&"incomplete"));
    }

    #[test]
    fn nothing_said_is_an_empty_message_and_failures_say_why() {
        let encoded = events_of(vec![done(Reason::Stop, 1)]);
        assert_eq!(
            encoded.last().map(|(_, e)| e["response"]["output"][0]["content"][0]["text"].clone()),
            Some(json!(""))
        );
        let encoded =
            events_of(vec![delta(vec![Part::Text("a".into())]), Event::Failed(ApiError::new(Kind::Deadline, "late"))]);
        let last = encoded.last().map(|(_, e)| e["response"].clone()).unwrap_or_default();
        assert_eq!((&last["status"], &last["error"]["message"]), (&json!("failed"), &json!("late")));
        assert_eq!(names(&encoded)[names(&encoded).len() - 2], "output_item.done");
    }
}
