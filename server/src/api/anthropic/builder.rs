//! [`MessageBuilder`]: from a running job to a message and the events of its stream.

use serde_json::{Map, Value as Json, json};

use super::answer::{AnswerBlock, AnthropicMessage, MessageUsage};
use crate::api::common::stream::{EventEncoder, Frames, encoded};
use crate::engine::error::ApiError;
use crate::generate::job::{Delta, Done, Part, Reason};
use crate::generate::running::Running;

/// Builds a message block by block and gives an event for each step. One block is open at a time: the last.
pub(super) struct MessageBuilder {
    message: AnthropicMessage,
    open: bool,
    /// Blocks that turned out to be no calls.
    broken: Vec<usize>,
}

impl MessageBuilder {
    /// Of a message that has not begun.
    pub(super) fn new(message: AnthropicMessage) -> MessageBuilder {
        MessageBuilder { message, open: false, broken: Vec::new() }
    }

    fn emit(kind: &str, fields: Json, out: &mut Frames) {
        let mut event = json!({"type": kind});
        if let (Json::Object(event), Json::Object(fields)) = (&mut event, fields) {
            event.extend(fields);
        }
        out.event(kind, &event);
    }

    fn emit_delta(&self, delta: Json, out: &mut Frames) {
        let index = self.message.content.len().saturating_sub(1);
        Self::emit("content_block_delta", json!({"index": index, "delta": delta}), out);
    }

    fn open(&mut self, block: AnswerBlock, out: &mut Frames) {
        self.close(out);
        let index = self.message.content.len();
        Self::emit("content_block_start", json!({"index": index, "content_block": block}), out);
        self.message.content.push(block);
        self.open = true;
    }

    fn close(&mut self, out: &mut Frames) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        if let Some(AnswerBlock::Thinking { signature, .. }) = self.message.content.last() {
            self.emit_delta(json!({"type": "signature_delta", "signature": signature}), out);
        }
        let index = self.message.content.len().saturating_sub(1);
        Self::emit("content_block_stop", json!({"index": index}), out);
    }

    fn text(&mut self, new: &str, out: &mut Frames) {
        if !self.open || !matches!(self.message.content.last(), Some(AnswerBlock::Text { .. })) {
            self.open(AnswerBlock::Text { text: String::new() }, out);
        }
        if let Some(AnswerBlock::Text { text }) = self.message.content.last_mut() {
            text.push_str(new);
        }
        self.emit_delta(json!({"type": "text_delta", "text": new}), out);
    }

    fn thinking(&mut self, new: &str, out: &mut Frames) {
        if !self.open || !matches!(self.message.content.last(), Some(AnswerBlock::Thinking { .. })) {
            self.open(AnswerBlock::Thinking { thinking: String::new(), signature: String::new() }, out);
        }
        if let Some(AnswerBlock::Thinking { thinking, .. }) = self.message.content.last_mut() {
            thinking.push_str(new);
        }
        self.emit_delta(json!({"type": "thinking_delta", "thinking": new}), out);
    }

    /// Leaves out what is no call.
    fn finish(&mut self) {
        let mut place = 0;
        self.message.content.retain(|_| {
            place += 1;
            !self.broken.contains(&(place - 1))
        });
    }
}

impl EventEncoder for MessageBuilder {
    type Whole = AnthropicMessage;

    async fn whole(self, running: Vec<Running>) -> Result<AnthropicMessage, ApiError> {
        Ok(encoded(running, self).await?.message)
    }

    fn begin(&mut self, out: &mut Frames) {
        Self::emit("message_start", json!({"message": self.message}), out);
        Self::emit("ping", json!({}), out);
    }

    fn delta(&mut self, _: usize, delta: Delta, out: &mut Frames) {
        for part in delta.parts {
            match part {
                Part::Text(text) => self.text(&text, out),
                Part::Thinking(text) => self.thinking(&text, out),
                Part::CallStart { id, name, .. } => {
                    // Anthropic's own names of calls begin so.
                    let id = format!("toolu_{}", id.strip_prefix("call_").unwrap_or(&id));
                    self.open(AnswerBlock::ToolUse { id, name, input: Json::Object(Map::new()) }, out);
                }
                Part::CallArguments { fragment, .. } => {
                    self.emit_delta(json!({"type": "input_json_delta", "partial_json": fragment}), out);
                }
                Part::CallEnd { call, .. } => {
                    if let Some(AnswerBlock::ToolUse { input, .. }) = self.message.content.last_mut() {
                        *input = call.arguments;
                    }
                    self.close(out);
                }
                Part::CallBroken { .. } => {
                    self.broken.push(self.message.content.len().saturating_sub(1));
                    self.close(out);
                }
            }
        }
    }

    fn done(&mut self, _: usize, done: Done, out: &mut Frames) {
        self.close(out);
        self.finish();
        let stop = done.stop_string;
        let reason = match done.reason {
            Reason::Length => "max_tokens",
            Reason::ToolCalls => "tool_use",
            Reason::Stop if stop.is_some() => "stop_sequence",
            Reason::Stop => "end_turn",
        };
        let message = &mut self.message;
        (message.stop_reason, message.stop_sequence) = (Some(reason), stop);
        message.usage = MessageUsage::from(&done.usage);
        let delta = json!({"stop_reason": reason, "stop_sequence": message.stop_sequence});
        Self::emit("message_delta", json!({"delta": delta, "usage": message.usage}), out);
        Self::emit("message_stop", json!({}), out);
    }

    fn end(&mut self, _: &mut Frames) {}

    fn failed(&mut self, error: &ApiError, out: &mut Frames) {
        out.event("error", &super::error_json(error));
    }

    fn idle(&mut self, out: &mut Frames) {
        Self::emit("ping", json!({}), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::common::stream::testing::{self, delta, done};
    use crate::generate::job::Event;
    use ir_engine::text::chat::ToolCall;

    fn builder() -> MessageBuilder {
        MessageBuilder::new(AnthropicMessage::new("m".into(), 7))
    }

    fn events_of(events: Vec<Event>) -> Vec<(String, Json)> {
        let encoded = testing::encoded(builder(), events.into_iter().map(|e| (0, e)).collect());
        assert!(encoded.iter().all(|(name, event)| event["type"] == name.as_str()), "{encoded:?}");
        encoded
    }

    fn names(encoded: &[(String, Json)]) -> Vec<&str> {
        encoded.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn thinking_then_text_in_the_documented_order() {
        let encoded = events_of(vec![
            delta(vec![Part::Thinking("hm".into())]),
            delta(vec![Part::Text("Hel".into())]),
            delta(vec![Part::Text("lo".into())]),
            done(Reason::Stop, 4),
        ]);
        let want = [
            "message_start",
            "ping",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ];
        assert_eq!(names(&encoded), want);
        assert_eq!(encoded[0].1["message"]["usage"]["input_tokens"], 7);
        assert_eq!(encoded[4].1["delta"], json!({"type": "signature_delta", "signature": ""}));
        assert_eq!(
            encoded[6].1,
            json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}})
        );
        assert_eq!(encoded[10].1["delta"], json!({"stop_reason": "end_turn", "stop_sequence": null}));
        let usage = json!({"input_tokens": 4, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 3, "output_tokens": 4});
        assert_eq!(encoded[10].1["usage"], usage);
    }

    #[test]
    fn calls_are_blocks_of_their_own() {
        let call = ToolCall { id: Some("call_1".into()), name: "add".into(), arguments: json!({"a": 1}) };
        let events = vec![
            delta(vec![
                Part::Text("Let me see.".into()),
                Part::CallStart { index: 0, id: "call_1".into(), name: "add".into() },
            ]),
            delta(vec![
                Part::CallArguments { index: 0, fragment: "{\"a\":1}".into() },
                Part::CallEnd { index: 0, call },
            ]),
            done(Reason::ToolCalls, 4),
        ];
        let mut whole = builder();
        for event in &events {
            match event.clone() {
                Event::Delta(delta) => whole.delta(0, delta, &mut Frames::default()),
                Event::Done(done) => whole.done(0, done, &mut Frames::default()),
                Event::Failed(error) => whole.failed(&error, &mut Frames::default()),
            }
        }
        let blocks = json!(whole.message.content);
        let used = json!({"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1}});
        assert_eq!(blocks, json!([{"type": "text", "text": "Let me see."}, used]));
        let encoded = events_of(events);
        assert_eq!(
            encoded[5].1["content_block"],
            json!({"type": "tool_use", "id": "toolu_1", "name": "add", "input": {}})
        );
        assert_eq!(encoded[6].1["delta"], json!({"type": "input_json_delta", "partial_json": "{\"a\":1}"}));
        assert_eq!(
            (encoded[7].0.as_str(), &encoded[8].1["delta"]["stop_reason"]),
            ("content_block_stop", &json!("tool_use"))
        );
    }

    #[test]
    fn stops_failures_and_what_is_no_call() {
        let Event::Done(end) = done(Reason::Stop, 1) else { unreachable!() };
        let stopped = Event::Done(Done { stop_string: Some("END".into()), ..end });
        let encoded = events_of(vec![delta(vec![Part::Text("a".into())]), stopped]);
        assert_eq!(encoded[5].1["delta"], json!({"stop_reason": "stop_sequence", "stop_sequence": "END"}));
        let encoded = events_of(vec![Event::Failed(ApiError::new(crate::engine::error::Kind::Busy, "full"))]);
        assert_eq!(encoded[2].1, json!({"type": "error", "error": {"type": "overloaded_error", "message": "full"}}));
        let mut broken = builder();
        let start = Part::CallStart { index: 0, id: "call_1".into(), name: "add".into() };
        let parts = vec![start, Part::CallBroken { index: 0 }, Part::Text("<tool_call>".into())];
        broken.delta(0, Delta { parts, ..Delta::default() }, &mut Frames::default());
        let Event::Done(end) = done(Reason::Length, 3) else { unreachable!() };
        broken.done(0, end, &mut Frames::default());
        assert_eq!(json!(broken.message.content), json!([{"type": "text", "text": "<tool_call>"}]));
        assert_eq!(broken.message.stop_reason, Some("max_tokens"));
    }
}
