//! Server-sent events: a running job, written by an [`EventEncoder`] in the form of its API. Encoders are pure: what they write
//! follows from what they are given.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::{BoxStream, select_all, unfold};
use serde::Serialize;

use crate::engine::error::ApiError;
use crate::generate::job::{Answer, Delta, Done, Event, Output};
use crate::generate::running::Running;

/// A client that hears nothing for this long gets a sign that the server lives.
pub(crate) const IDLE: Duration = Duration::from_secs(15);

/// Events in their wire form.
#[derive(Debug, Default)]
pub(crate) struct Frames(String);

impl Frames {
    /// An event without a name.
    pub(crate) fn data(&mut self, value: &impl Serialize) {
        self.0.push_str("data: ");
        self.json(value);
    }

    /// An event with a name.
    pub(crate) fn event(&mut self, name: &str, value: &impl Serialize) {
        for part in ["event: ", name, "\ndata: "] {
            self.0.push_str(part);
        }
        self.json(value);
    }

    /// The event that ends OpenAI's streams.
    pub(crate) fn done(&mut self) {
        self.0.push_str("data: [DONE]\n\n");
    }

    /// What clients pass over.
    pub(crate) fn comment(&mut self) {
        self.0.push_str(": still working\n\n");
    }

    /// One object to a line, as Ollama streams.
    pub(crate) fn line(&mut self, value: &impl Serialize) {
        self.0.push_str(&serde_json::to_string(value).unwrap_or_default());
        self.0.push('\n');
    }

    /// Their text.
    pub(crate) fn into_text(self) -> String {
        self.0
    }

    /// Events that are all there already, as a response.
    pub(crate) fn response(self) -> Response {
        let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
        (headers, self.0).into_response()
    }

    fn json(&mut self, value: &impl Serialize) {
        // Plain data always has a JSON form; JSON on one line has no line breaks that would end the event.
        self.line(value);
        self.0.push('\n');
    }
}

/// Writes down a job in an API's events.
pub(crate) trait EventEncoder: Send + 'static {
    /// What a stream of it is.
    const CONTENT_TYPE: &'static str = "text/event-stream";
    /// The answer as one object.
    type Whole: Serialize;

    /// The answer that jobs give, when all have ended.
    fn whole(self, running: Vec<Running>) -> impl Future<Output = Result<Self::Whole, ApiError>> + Send;
    /// The job has begun.
    fn begin(&mut self, out: &mut Frames);
    /// A completion grew.
    fn delta(&mut self, choice: usize, delta: Delta, out: &mut Frames);
    /// A completion is complete.
    fn done(&mut self, choice: usize, done: Done, out: &mut Frames);
    /// All completions are complete.
    fn end(&mut self, out: &mut Frames);
    /// The job failed; nothing follows.
    fn failed(&mut self, error: &ApiError, out: &mut Frames);
    /// Nothing has happened for a while.
    fn idle(&mut self, out: &mut Frames) {
        out.comment();
    }
}

/// What jobs that run side by side put out, their completions counted through. All have `n` completions.
pub(crate) fn outputs(running: Vec<Running>, n: usize) -> BoxStream<'static, Output> {
    let streams = running.into_iter().enumerate().map(|(i, running)| {
        let outputs =
            unfold(running, |mut running| async move { running.next().await.map(|output| (output, running)) });
        outputs.map(move |output| Output { choice: output.choice + i * n, ..output }).boxed()
    });
    select_all(streams).boxed()
}

/// Jobs as a response of events. Dropping the response cancels them.
pub(crate) fn respond<S: EventEncoder>(outputs: BoxStream<'static, Output>, encoder: S) -> Response {
    let content_type = S::CONTENT_TYPE;
    let body = Body::from_stream(frames(outputs, encoder, IDLE).map(Ok::<_, Infallible>));
    let mut response = ([(header::CONTENT_TYPE, content_type)], body).into_response();
    if content_type == "text/event-stream" {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    response
}

/// One job given to its end to the encoder that would write its events, so that both forms agree; the events go nowhere.
///
/// # Errors
/// What the job failed with.
pub(crate) async fn encoded<S: EventEncoder>(running: Vec<Running>, mut encoder: S) -> Result<S, ApiError> {
    for mut running in running {
        while let Some(output) = running.next().await {
            match output.event {
                Event::Delta(delta) => encoder.delta(output.choice, delta, &mut Frames::default()),
                Event::Done(done) => encoder.done(output.choice, done, &mut Frames::default()),
                Event::Failed(error) => return Err(error),
            }
        }
    }
    Ok(encoder)
}

/// The completions of jobs, one job after the other.
///
/// # Errors
/// What the first that failed did so with.
pub(crate) async fn answers(running: Vec<Running>) -> Result<Vec<Answer>, ApiError> {
    let all = try_join_all(running.into_iter().map(Running::collect)).await?;
    Ok(all.into_iter().flatten().collect())
}

/// The wire's text, piece by piece.
fn frames<S: EventEncoder>(
    outputs: BoxStream<'static, Output>,
    mut encoder: S,
    idle: Duration,
) -> BoxStream<'static, String> {
    let mut first = Frames::default();
    encoder.begin(&mut first);
    let rest = unfold(Some((outputs, encoder)), move |state| async move {
        let (mut outputs, mut encoder) = state?;
        let mut out = Frames::default();
        while out.0.is_empty() {
            match tokio::time::timeout(idle, outputs.next()).await {
                Err(_) => encoder.idle(&mut out),
                Ok(Some(Output { choice, event: Event::Delta(delta) })) => encoder.delta(choice, delta, &mut out),
                Ok(Some(Output { choice, event: Event::Done(done) })) => encoder.done(choice, done, &mut out),
                Ok(Some(Output { event: Event::Failed(error), .. })) => {
                    encoder.failed(&error, &mut out);
                    return Some((out.0, None));
                }
                Ok(None) => {
                    encoder.end(&mut out);
                    return Some((out.0, None));
                }
            }
        }
        Some((out.0, Some((outputs, encoder))))
    });
    let first = Some(first.0).filter(|text| !text.is_empty());
    futures_util::stream::iter(first).chain(rest).boxed()
}

/// What an encoder makes of invented outputs, event by event: name (where it has one) and JSON.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use serde_json::Value as Json;

    /// Runs an encoder over a job's whole life.
    pub(crate) fn encoded<S: EventEncoder>(mut encoder: S, events: Vec<(usize, Event)>) -> Vec<(String, Json)> {
        let mut out = Frames::default();
        encoder.begin(&mut out);
        for (choice, event) in events {
            match event {
                Event::Delta(delta) => encoder.delta(choice, delta, &mut out),
                Event::Done(done) => encoder.done(choice, done, &mut out),
                Event::Failed(error) => {
                    encoder.failed(&error, &mut out);
                    return read(&out.0);
                }
            }
        }
        encoder.end(&mut out);
        read(&out.0)
    }

    /// Events in the wire's text; `[DONE]` is read as a JSON string.
    pub(crate) fn read(text: &str) -> Vec<(String, Json)> {
        let mut all = Vec::new();
        assert!(text.is_empty() || text.ends_with("\n\n"), "{text:?}");
        for event in text.split("\n\n").filter(|e| !e.is_empty() && !e.starts_with(':')) {
            let name = event.lines().find_map(|l| l.strip_prefix("event: ")).unwrap_or("");
            let data = event.lines().find_map(|l| l.strip_prefix("data: ")).unwrap_or_else(|| panic!("{event}"));
            let json = if data == "[DONE]" {
                Json::from(data)
            } else {
                serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}"))
            };
            all.push((name.to_owned(), json));
        }
        all
    }

    /// A delta of these parts.
    pub(crate) fn delta(parts: Vec<crate::generate::job::Part>) -> Event {
        Event::Delta(Delta { parts, ..Delta::default() })
    }

    /// The end of a completion of 7 prompt tokens, 3 of them cached, and `completion` generated ones.
    pub(crate) fn done(reason: crate::generate::job::Reason, completion: usize) -> Event {
        let usage = crate::generate::job::Usage {
            prompt_tokens: 7,
            cached_tokens: 3,
            completion_tokens: completion,
            thinking_tokens: 2,
            ..Default::default()
        };
        Event::Done(Done { reason, stop_string: None, usage, tokens: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain;

    impl EventEncoder for Plain {
        type Whole = ();

        async fn whole(self, _: Vec<Running>) -> Result<(), ApiError> {
            Ok(())
        }
        fn begin(&mut self, out: &mut Frames) {
            out.data(&"begin");
        }
        fn delta(&mut self, choice: usize, _: Delta, out: &mut Frames) {
            if choice > 0 {
                out.event("delta", &choice);
            }
        }
        fn done(&mut self, _: usize, _: Done, _: &mut Frames) {}
        fn end(&mut self, out: &mut Frames) {
            out.done();
        }
        fn failed(&mut self, error: &ApiError, out: &mut Frames) {
            out.data(&error.message);
        }
    }

    fn delta(choice: usize) -> Output {
        Output { choice, event: Event::Delta(Delta::default()) }
    }

    #[tokio::test]
    async fn a_failure_ends_the_stream_and_silence_does_not() {
        let encoded =
            |outputs: Vec<Output>| frames(futures_util::stream::iter(outputs).boxed(), Plain, IDLE).collect::<Vec<_>>();
        let whole = encoded(vec![delta(0), delta(2)]).await;
        assert_eq!(whole, ["data: \"begin\"\n\n", "event: delta\ndata: 2\n\n", "data: [DONE]\n\n"]);
        let error = Output { choice: 0, event: Event::Failed(ApiError::invalid("no")) };
        assert_eq!(encoded(vec![error, delta(1)]).await, ["data: \"begin\"\n\n", "data: \"no\"\n\n"]);
        let late = unfold(0, |n| async move {
            tokio::time::sleep(Duration::from_millis(if n == 0 { 300 } else { 0 })).await;
            (n == 0).then(|| (delta(1), 1))
        });
        let heard: Vec<String> = frames(late.boxed(), Plain, Duration::from_millis(20)).collect().await;
        assert!(heard.iter().filter(|f| f.starts_with(": still")).count() >= 2, "{heard:?}");
        assert!(heard.contains(&"event: delta\ndata: 1\n\n".to_owned()), "{heard:?}");
    }
}
