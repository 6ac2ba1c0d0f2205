//! [`ResponseBuilder`]: from a running job to a response and the events of its stream.

use std::sync::Arc;
use std::time::SystemTime;

use axum::response::Response;
use serde_json::{Value as Json, json};

use super::output::{
    Incomplete, OutputItem, OutputText, ResponseError, ResponseObject, ResponseUsage, Status, SummaryText,
};
use super::store::{Kept, ResponseStore};
use super::tools::{CallKind, Offered};
use crate::api::common::body::json as json_response;
use crate::api::common::openai_error::openai_error_message;
use crate::api::common::stream::{EventEncoder, Frames, encoded};
use crate::api::common::tools::text_argument;
use crate::api::common::util::{TokenLogprob, new_id, token_logprobs, unix_seconds};
use crate::engine::error::{ApiError, Kind};
use crate::generate::job::{Delta, Done, Part, Reason, Usage};
use crate::generate::running::Running;

/// Builds a response item by item and gives an event for each step. One item is open at a time: the last.
#[derive(Debug)]
pub(super) struct ResponseBuilder {
    response: ResponseObject,
    n_events: u64,
    items: Vec<OutputItem>,
    open: bool,
    /// Of tokens whose text is still to come.
    logprobs: Vec<TokenLogprob>,
    /// What calls mean.
    offered: Offered,
    /// Where the response is kept at its end.
    keep: Option<Keep>,
}

/// What a response is kept with.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) store: Arc<ResponseStore>,
    /// The response that it goes on from.
    pub(super) previous: Option<String>,
    /// The JSON of what was asked.
    pub(super) input: String,
}

impl ResponseBuilder {
    /// Of a response that has not begun.
    pub(super) fn new(response: ResponseObject, offered: Offered, keep: Option<Keep>) -> ResponseBuilder {
        let (items, logprobs) = (Vec::new(), Vec::new());
        ResponseBuilder { response, n_events: 0, items, open: false, logprobs, offered, keep }
    }

    /// The answer where there is nothing to answer: a response without output, or its events.
    pub(super) fn nothing(self, stream: bool) -> Response {
        let (mut builder, mut out) = (self.at(SystemTime::now()), Frames::default());
        builder.begin(&mut out);
        builder.end_with(Status::Completed, Some(ResponseUsage::from(&Usage::default())), &mut out);
        if stream { out.response() } else { json_response(&builder.response) }
    }

    /// The response at the time when it was asked for.
    pub(super) fn at(mut self, created: SystemTime) -> ResponseBuilder {
        self.response = self.response.at(created);
        self
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
        (self.items.len().saturating_sub(1), self.items.last().map_or("", OutputItem::id))
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
            OutputItem::CustomToolCall { input, status, .. } => {
                *status = end;
                let all = json!({"input": input});
                self.emit_item("response.custom_tool_call_input.done", None, all, out);
            }
            OutputItem::ToolSearchCall { status, .. } => *status = end,
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

    /// A call begins: an item of the kind that its tool has.
    fn call(&mut self, call_id: String, shown: String, out: &mut Frames) {
        let tool = self.offered.called(&shown);
        let (kind, namespace) = tool.map_or((CallKind::Function, None), |t| (t.kind, t.namespace.clone()));
        let name = tool.map_or(shown, |t| t.name.clone());
        let status = Status::InProgress;
        let item = match kind {
            CallKind::Function => {
                let (id, arguments) = (new_id("fc_"), String::new());
                OutputItem::FunctionCall { id, call_id, name, namespace, arguments, status }
            }
            CallKind::Custom => {
                let (id, input) = (new_id("ctc_"), String::new());
                OutputItem::CustomToolCall { id, call_id, name, namespace, input, status }
            }
            CallKind::Search => {
                let (id, arguments) = (new_id("tsc_"), json!({}));
                OutputItem::ToolSearchCall { id, call_id, execution: "client", arguments, status }
            }
        };
        self.open(item, out);
    }

    fn arguments(&mut self, fragment: &str, out: &mut Frames) {
        // What stands for a text is sent when it is whole: till then it is JSON.
        if let Some(OutputItem::FunctionCall { arguments, .. }) = self.items.last_mut() {
            arguments.push_str(fragment);
            self.emit_item("response.function_call_arguments.delta", None, json!({"delta": fragment}), out);
        }
    }

    /// A call is whole.
    fn called(&mut self, given: Json, out: &mut Frames) {
        match self.items.last_mut() {
            Some(OutputItem::CustomToolCall { input, .. }) => {
                *input = text_argument(&given);
                let delta = json!({"delta": input});
                self.emit_item("response.custom_tool_call_input.delta", None, delta, out);
            }
            Some(OutputItem::ToolSearchCall { arguments, .. }) => *arguments = given,
            _ => {}
        }
        self.close(Status::Completed, out);
    }

    /// The response's end; where it is kept, it can be asked for from now on.
    fn end_with(&mut self, status: Status, usage: Option<ResponseUsage>, out: &mut Frames) {
        self.response.output = self.items.clone();
        self.response.completed_at = Some(unix_seconds(SystemTime::now()));
        self.response.status = status;
        self.response.usage = usage;
        if status != Status::Failed
            && let Some(Keep { store, previous, input }) = self.keep.take()
        {
            let item_ids = self.items.iter().map(|item| item.id().to_owned()).collect();
            let response = serde_json::to_string(&self.response).unwrap_or_default();
            store.put(self.response.id().to_owned(), Kept { previous, input, response, item_ids });
        }
        let event = match status {
            Status::Failed => "response.failed",
            Status::Incomplete => "response.incomplete",
            Status::InProgress | Status::Completed => "response.completed",
        };
        self.emit_response(event, out);
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
                Part::CallStart { id, name, .. } => {
                    self.logprobs.clear();
                    self.call(id, name, out);
                }
                Part::CallArguments { fragment, .. } => self.arguments(&fragment, out),
                Part::CallEnd { call, .. } => self.called(call.arguments, out),
                // It has been told as far as it came, and stays so.
                Part::CallBroken { .. } => self.close(Status::Incomplete, out),
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
        self.response.incomplete_details = cut.then_some(Incomplete { reason: "max_output_tokens" });
        self.end_with(status, Some(ResponseUsage::from(&done.usage)), out);
    }

    fn end(&mut self, _: &mut Frames) {}

    fn failed(&mut self, error: &ApiError, out: &mut Frames) {
        self.close(Status::Incomplete, out);
        let code = match error.kind {
            Kind::ContextLength { .. } => "context_length_exceeded",
            Kind::Invalid => "invalid_prompt",
            _ => "server_error",
        };
        let message = openai_error_message(error);
        self.response.error = Some(ResponseError { code, message });
        self.end_with(Status::Failed, None, out);
    }
}

#[cfg(test)]
mod tests;
