//! [`Hub::embed`] and [`Hub::rank`]: texts become vectors or scores, computed beside whatever is generated on the same
//! engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hub::Hub;
use crate::engine::error::{ApiError, panicked, unloaded};
use crate::engine::output_queue::{End, OutputQueue};
use crate::engine::stats;
use crate::engine::worker::{Submission, Work};
use crate::generate::job::{EmbedJob, Embedded, MAX_INPUTS, RankJob, Ranked, Usage};
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
        let works = requests.into_iter().map(Work::Embed).collect();
        let vectors = self.pooled(&lease, works).await?;
        Ok(Embedded { vectors, prompt_tokens, truncated, total: started.elapsed(), load: lease.load })
    }

    /// Scores texts by how well they answer a query.
    ///
    /// # Errors
    /// A full queue, an unknown model or one that does not rank, a text that is too long.
    pub async fn rank(&self, job: RankJob) -> Result<Ranked, ApiError> {
        let started = Instant::now();
        if job.documents.len() > MAX_INPUTS {
            let n = job.documents.len();
            return Err(ApiError::param(
                "documents",
                format!("there are {n} documents: send at most {MAX_INPUTS} at once"),
            ));
        }
        let _place = self.place(1)?;
        self.in_time(self.deadline(started, None), self.rank_all(job)).await
    }

    async fn rank_all(&self, job: RankJob) -> Result<Ranked, ApiError> {
        let lease = self.opened_by_name(&job.model).await?;
        let loaded = Arc::clone(&lease.loaded);
        let pairs = self.prepared(move || request::rank(&loaded, &job)).await?;
        let prompt_tokens = pairs.iter().map(|pair| pair.prompt.len()).sum();
        let scores = self.pooled(&lease, pairs.into_iter().map(Work::Rank).collect()).await?;
        let scores = scores.into_iter().map(|row| row.first().copied().unwrap_or_default()).collect();
        Ok(Ranked { scores, prompt_tokens })
    }

    /// What comes of all these, in their order.
    async fn pooled(&self, lease: &Lease, mut works: Vec<Work>) -> Result<Vec<Vec<f32>>, ApiError> {
        let mut rows = Vec::with_capacity(works.len());
        // Not all at once: others get their turns in between.
        while !works.is_empty() {
            let rest = works.split_off(self.parallel().min(works.len()));
            rows.extend(self.pooled_some(lease, std::mem::replace(&mut works, rest)).await?);
        }
        Ok(rows)
    }

    async fn pooled_some(&self, lease: &Lease, works: Vec<Work>) -> Result<Vec<Vec<f32>>, ApiError> {
        let n = works.len();
        let output_queue = Leaving(Arc::new(OutputQueue::new(n)));
        let submission =
            |(place, work): (usize, Work)| Submission { work, output_queue: Arc::clone(&output_queue.0), place };
        lease.submit(works.into_iter().enumerate().map(submission).collect()).await?;
        let counters = &lease.shared.counters;
        let mut vectors = vec![Vec::new(); n];
        for _ in 0..n {
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
