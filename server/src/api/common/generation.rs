//! The one path of everything that generates: a job is checked against its model, started, and its outputs are written by
//! the encoder of its API, as a stream or as a whole.

use axum::response::Response;

use super::body::json;
use super::stream::{self, EventEncoder};
use super::util::check_chat;
use crate::engine::error::ApiError;
use crate::generate::hub::Hub;
use crate::generate::job::Job;
use crate::generate::running::Running;

/// Starts a job and answers with it; `encoder` makes what writes its outputs.
///
/// # Errors
/// What loading the model, [`check_chat`] and the start of the job refuse; what it failed with, unless it is streamed.
pub(crate) async fn generate<S: EventEncoder>(
    hub: &Hub,
    job: Job,
    stream: bool,
    encoder: impl FnOnce(&Running) -> S,
) -> Result<Response, ApiError> {
    let n = job.n;
    // Held until the job has its own: a model with keep_alive 0 would be loaded twice.
    let lease = hub.open(&job.model).await?;
    check_chat(&lease, &job)?;
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
