//! [`Hub::embed`]: texts become vectors, computed beside whatever is generated on the same engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ir_engine::run::EmbedRequest;

use super::hub::Hub;
use crate::engine::error::{ApiError, panicked, unloaded};
use crate::engine::output_queue::{End, OutputQueue};
use crate::engine::stats;
use crate::engine::worker::{Submission, Work};
use crate::generate::job::{EmbedJob, Embedded, MAX_INPUTS, Usage};
use crate::generate::request;
use crate::models::loaded::Lease;

/// Cancels what an output queue waits for when it is dropped.
struct Leaving(Arc<OutputQueue>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Hub {
    /// Embeds texts.
    ///
    /// # Errors
    /// A full queue, an unknown model, an input that is empty or too long, dimensions that the model does not have.
    pub async fn embed(&self, job: EmbedJob) -> Result<Embedded, ApiError> {
        let started = Instant::now();
        if job.inputs.len() > MAX_INPUTS {
            let n = job.inputs.len();
            return Err(ApiError::param("input", format!("there are {n} inputs: send at most {MAX_INPUTS} at once")));
        }
        let _place = self.place(1)?;
        self.in_time(self.deadline(started, None), self.embed_all(job, started)).await
    }

    async fn embed_all(&self, job: EmbedJob, started: Instant) -> Result<Embedded, ApiError> {
        let lease = self.opened_by_name(&job.model).await?;
        let loaded = Arc::clone(&lease.loaded);
        let (requests, truncated) = self.prepared(move || request::embed(&loaded, &job)).await?;
        let prompt_tokens = requests.iter().map(|r| r.prompt.len()).sum();
        let mut vectors = Vec::with_capacity(requests.len());
        // Not all at once: others get their turns in between.
        for some in requests.chunks(self.parallel()) {
            vectors.extend(self.embed_some(&lease, some).await?);
        }
        Ok(Embedded { vectors, prompt_tokens, truncated, total: started.elapsed(), load: lease.load })
    }

    async fn embed_some(&self, lease: &Lease, requests: &[EmbedRequest]) -> Result<Vec<Vec<f32>>, ApiError> {
        let output_queue = Leaving(Arc::new(OutputQueue::new(requests.len())));
        let submission = |(place, request): (usize, &EmbedRequest)| Submission {
            work: Work::Embed(request.clone()),
            output_queue: Arc::clone(&output_queue.0),
            place,
        };
        lease.submit(requests.iter().enumerate().map(submission).collect()).await?;
        let counters = &lease.shared.counters;
        let mut vectors = vec![Vec::new(); requests.len()];
        for _ in requests {
            let (place, batch) = output_queue.0.take().await;
            match batch.end {
                Some(End::Embedded(values, usage)) => {
                    let seconds = |s: f64| Duration::try_from_secs_f64(s.max(0.0)).unwrap_or_default();
                    counters.prompt(&Usage {
                        prompt_tokens: usage.prompt_tokens,
                        cached_tokens: usage.cached_tokens,
                        queued: seconds(usage.queued),
                        prompt: seconds(usage.prompt),
                        ..Usage::default()
                    });
                    counters.end(stats::End::Embedded);
                    *vectors.get_mut(place).ok_or_else(panicked)? = values;
                }
                Some(End::Failed(error)) => {
                    counters.end(stats::End::Failed);
                    return Err(error);
                }
                // The engine ends a text with nothing else unless its model went away.
                Some(End::Done(..)) | None => return Err(unloaded()),
            }
        }
        Ok(vectors)
    }
}
