//! What is seen of each HTTP request: an id that goes in and out with it, a line in the log when its answer has gone out,
//! and a count for the dashboards.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tracing::Instrument;

use crate::engine::output_queue::lock;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of an id that a client brings, at most.
const MAX_ID: usize = 128;

/// Answers counted by address (as routes name it), method and status.
#[derive(Debug, Default)]
pub(crate) struct RequestCounts(Mutex<BTreeMap<(String, &'static str, u16), u64>>);

impl RequestCounts {
    fn add(&self, path: &str, method: &'static str, status: u16) {
        *lock(&self.0).entry((path.to_owned(), method, status)).or_default() += 1;
    }

    pub(crate) fn all(&self) -> Vec<((String, &'static str, u16), u64)> {
        lock(&self.0).iter().map(|(key, n)| (key.clone(), *n)).collect()
    }
}

/// The layer.
pub(crate) async fn access_log(State(requests): State<Arc<RequestCounts>>, request: Request, next: Next) -> Response {
    let id = given(&request).unwrap_or_else(fresh);
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or(""));
    let route = request.extensions().get::<MatchedPath>().map_or("other".to_owned(), |p| p.as_str().to_owned());
    let (method, path) = (name(request.method()), request.uri().path().to_owned());
    let started = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    response.headers_mut().insert(REQUEST_ID, id);
    let status = response.status().as_u16();
    requests.add(&route, method, status);
    let access = Access { span, method, path, status, started, head: started.elapsed(), bytes: 0 };
    response.map(|body| Body::new(LoggedBody { body, access: Some(access) }))
}

fn given(request: &Request) -> Option<HeaderValue> {
    let id = request.headers().get(REQUEST_ID)?;
    let plain = id.as_bytes().iter().all(|b| b.is_ascii_graphic());
    (plain && (1..=MAX_ID).contains(&id.len())).then(|| id.clone())
}

fn fresh() -> HeaderValue {
    let id = format!("{:016x}", crate::generate::request::random_number());
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
}

/// Methods that clients invent are all one to the counts.
fn name(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
    known.into_iter().find(|m| method == *m).unwrap_or("OTHER")
}

/// What the log says of an answer.
struct Access {
    span: tracing::Span,
    method: &'static str,
    path: String,
    status: u16,
    started: Instant,
    /// Until the answer began.
    head: Duration,
    bytes: u64,
}

/// A body that has its line written when it is over.
struct LoggedBody {
    body: Body,
    access: Option<Access>,
}

impl HttpBody for LoggedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let n = frame.data_ref().map_or(0, |d| d.len() as u64);
                self.access.iter_mut().for_each(|a| a.bytes += n);
            }
            Some(Err(_)) => self.write(false),
            None => self.write(true),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl LoggedBody {
    fn write(&mut self, whole: bool) {
        let Some(Access { span, method, path, status, started, head, bytes }) = self.access.take() else { return };
        let ms = |time: Duration| (time.as_secs_f64() * 1e5).round() / 100.0;
        let _in = span.enter();
        let path = crate::engine::error::cut(&path, 200);
        let (first_ms, ms) = (ms(head), ms(started.elapsed()));
        if whole {
            tracing::info!(method, path, status, first_ms, ms, bytes, "answered");
        } else {
            tracing::info!(method, path, status, first_ms, ms, bytes, "the client left");
        }
    }
}

impl Drop for LoggedBody {
    fn drop(&mut self) {
        let whole = self.body.is_end_stream();
        self.write(whole);
    }
}
