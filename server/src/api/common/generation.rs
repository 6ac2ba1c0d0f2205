//! The one path of everything that generates: parameters become a job, which is checked against its model and started, and
//! its outputs are written by the encoder of its API, as a stream or as a whole.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::json;
use super::ignored::Ignored;
use super::params::GenerationParams;
use super::stream::{self, EventEncoder};
use super::util::check_chat;
use crate::engine::error::ApiError;
use crate::generate::hub::Hub;
use crate::generate::job::Job;
use crate::generate::running::Running;
use crate::generate::{prompt, recipe};

/// Starts what is asked and answers with it; `encoder` makes what writes its outputs.
///
/// # Errors
/// A field that is wrong; what loading the model, [`check_chat`] and the start of the job refuse; what it failed with,
/// unless it is streamed.
pub(crate) async fn generate<S: EventEncoder>(
    hub: &Hub,
    params: GenerationParams,
    stream: bool,
    encoder: impl FnOnce(&Running) -> S,
) -> Result<Response, ApiError> {
    let (ignored, refuse) = (params.client.ignored.clone(), params.think_or_refuse);
    run(hub, params.job()?, refuse, &ignored, stream, encoder).await
}

/// As [`generate`], of a job whose prompt took a look at its model.
pub(crate) async fn run<S: EventEncoder>(
    hub: &Hub,
    mut job: Job,
    think_or_refuse: bool,
    ignored: &Ignored,
    stream: bool,
    encoder: impl FnOnce(&Running) -> S,
) -> Result<Response, ApiError> {
    let n = job.n;
    // Held until the job has its own: a model with keep_alive 0 would be loaded twice.
    let lease = hub.open(&job.model).await?;
    check_chat(&lease, &mut job, think_or_refuse, ignored)?;
    let running = hub.run(job).await?;
    drop(lease);
    let encoder = encoder(&running);
    reply(vec![running], n, stream, encoder).await
}

/// Jobs that run side by side, each with `n` completions, as one response.
///
/// # Errors
/// What one of them failed with, unless they are streamed.
pub(crate) async fn reply<S: EventEncoder>(
    running: Vec<Running>,
    n: usize,
    stream: bool,
    encoder: S,
) -> Result<Response, ApiError> {
    if stream {
        return Ok(stream::respond(stream::outputs(running, n), encoder));
    }
    Ok(json(&encoder.whole(running).await?))
}

/// How many tokens the prompt of what is asked has.
///
/// # Errors
/// As [`generate`], but that no prompt is too long to be counted.
pub(crate) async fn count(hub: &Hub, params: GenerationParams) -> Result<usize, ApiError> {
    let (ignored, refuse) = (params.client.ignored.clone(), params.think_or_refuse);
    let mut job = params.job()?;
    let lease = hub.open(&job.model).await?;
    check_chat(&lease, &mut job, refuse, &ignored)?;
    recipe::apply(&lease.recipe, &mut job);
    let model = lease.model().clone();
    hub.prepared(move || prompt::prepare(&model, &job, usize::MAX, 0).map(|turn| turn.ids.len())).await
}

/// A handler that generates, with its place in the OpenAPI document: what is behind the arguments' names is the handler's own.
macro_rules! generating {
    ($(#[$doc:meta])* $name:ident: $path:literal $tag:literal $errors:ident $request:ident => $answer:ident;
     ($hub:ident, $client:ident, $body:pat $(, $more:ident: $kind:ty)?) $work:block) => {
        $(#[$doc])*
        #[utoipa::path(post, path = $path, tag = $tag, request_body = $request, responses(
            (status = 200, description = "The answer, or its events", content(
                ($answer = "application/json"),
                (serde_json::Value = "text/event-stream"),
            )),
            $errors,
        ))]
        pub(crate) async fn $name(
            axum::extract::State($hub): axum::extract::State<$crate::generate::hub::Hub>,
            $(axum::extract::Extension($more): axum::extract::Extension<$kind>,)?
            $client: $crate::api::common::body::Client,
            $body: $request,
        ) -> Result<axum::response::Response, $crate::engine::error::ApiError> $work
    };
}
pub(crate) use generating;

/// A handler that counts the tokens of a prompt, likewise.
macro_rules! counting {
    ($(#[$doc:meta])* $name:ident: $path:literal $tag:literal $errors:ident $request:ident => $answer:ident;
     ($client:ident, $body:pat $(, $more:ident: $kind:ty)?) $params:expr) => {
        $(#[$doc])*
        #[utoipa::path(post, path = $path, tag = $tag, request_body = $request, responses(
            (status = 200, description = "The count", body = $answer),
            $errors,
        ))]
        pub(crate) async fn $name(
            axum::extract::State(hub): axum::extract::State<$crate::generate::hub::Hub>,
            $(axum::extract::Extension($more): axum::extract::Extension<$kind>,)?
            $client: $crate::api::common::body::Client,
            $body: $request,
        ) -> Result<axum::response::Response, $crate::engine::error::ApiError> {
            let n = $crate::api::common::generation::count(&hub, $params).await?;
            Ok($crate::api::common::body::json(&$answer::new(n)))
        }
    };
}
pub(crate) use counting;

/// How many tokens an input has, as OpenAI's clients read it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenCount {
    object: &'static str,
    input_tokens: usize,
}

impl TokenCount {
    /// So many.
    pub(crate) fn new(input_tokens: usize) -> TokenCount {
        TokenCount { object: "response.input_tokens", input_tokens }
    }
}
