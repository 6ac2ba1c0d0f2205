//! [`OutputQueue`]: from the engine's thread to one request. The engine never waits for a reader: what it adds to a slow
//! reader's box is joined to what lies there, and a box that grows beyond [`MAX_UNREAD`] ends its sequence.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ir_engine::run::{FinishReason, Logprobs, Usage};
use tokio::sync::Notify;

use crate::engine::error::{ApiError, Kind};

/// Bytes that may lie unread in one completion's box.
pub(crate) const MAX_UNREAD: usize = 4 << 20;

/// How a sequence ended.
#[derive(Debug)]
pub(crate) enum End {
    /// By itself.
    Done(FinishReason, Usage),
    /// It was a text to embed.
    Embedded(Vec<f32>, Usage),
    /// By an error.
    Failed(ApiError),
}

/// What lies in a box for one completion.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) text: String,
    /// Ids, and where in `text` the text ends that each made certain.
    pub(crate) tokens: Vec<(u32, usize)>,
    /// One for each token, where they were asked for.
    pub(crate) logprobs: Vec<Logprobs>,
    pub(crate) end: Option<End>,
    bytes: usize,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.end.is_none()
    }
}

/// The box of one request, with a place for each completion.
#[derive(Debug)]
pub(crate) struct OutputQueue {
    places: Mutex<Vec<Batch>>,
    notify: Notify,
    gone: AtomicBool,
}

impl OutputQueue {
    pub(crate) fn new(n: usize) -> OutputQueue {
        let places = Mutex::new((0..n).map(|_| Batch::default()).collect());
        OutputQueue { places, notify: Notify::new(), gone: AtomicBool::new(false) }
    }

    /// The reader left: its sequences are to be cancelled.
    pub(crate) fn leave(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// Whether the reader left.
    pub(crate) fn is_closed(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Adds a token. `false` where the box is full: its sequence has ended with an error.
    pub(crate) fn token(&self, place: usize, id: u32, text: &str, logprobs: Option<Box<Logprobs>>) -> bool {
        let mut places = lock(&self.places);
        let Some(batch) = places.get_mut(place).filter(|l| l.end.is_none()) else { return false };
        batch.bytes += text.len() + size_of::<(u32, usize)>() + logprobs.as_deref().map_or(0, size);
        batch.text.push_str(text);
        batch.tokens.push((id, batch.text.len()));
        batch.logprobs.extend(logprobs.map(|l| *l));
        let full = batch.bytes > MAX_UNREAD;
        if full {
            let what = format!("the client reads too slowly: {MAX_UNREAD} bytes wait for it");
            batch.end = Some(End::Failed(ApiError::new(Kind::Slow, what)));
        }
        drop(places);
        self.notify.notify_one();
        !full
    }

    /// Ends a completion; the first end counts.
    pub(crate) fn end(&self, place: usize, end: End) {
        if let Some(batch) = lock(&self.places).get_mut(place) {
            batch.end.get_or_insert(end);
        }
        self.notify.notify_one();
    }

    /// What came for any completion, waited for. One reader only.
    pub(crate) async fn take(&self) -> (usize, Batch) {
        loop {
            match self.try_take() {
                Some(found) => return found,
                None => self.notify.notified().await,
            }
        }
    }

    /// What came for any completion, if anything did.
    pub(crate) fn try_take(&self) -> Option<(usize, Batch)> {
        let mut places = lock(&self.places);
        places.iter_mut().enumerate().find(|(_, l)| !l.is_empty()).map(|(i, l)| (i, std::mem::take(l)))
    }
}

fn size(logprobs: &Logprobs) -> usize {
    let one = |bytes: &Vec<u8>| bytes.len() + 48;
    one(&logprobs.chosen.bytes) + logprobs.top.iter().map(|l| one(&l.bytes)).sum::<usize>()
}

/// A lock whose holder panicked still guards plain data that every holder leaves whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_gets_all_in_one_letter() {
        let output_queue = OutputQueue::new(2);
        for (id, text) in [(1, "a"), (2, ""), (3, "bc")] {
            assert!(output_queue.token(1, id, text, None));
        }
        output_queue.end(1, End::Done(FinishReason::Stop(None), Usage::default()));
        let (place, batch) = output_queue.take().await;
        assert_eq!((place, batch.text.as_str(), batch.tokens.as_slice()), (1, "abc", &[(1, 1), (2, 1), (3, 3)][..]));
        assert!(matches!(batch.end, Some(End::Done(FinishReason::Stop(None), _))));
    }

    #[tokio::test]
    async fn a_reader_that_never_reads_ends_its_sequence() {
        let output_queue = OutputQueue::new(1);
        let text = "x".repeat(1 << 20);
        let n = (0..100).take_while(|_| output_queue.token(0, 7, &text, None)).count();
        assert!(n <= 4, "{n} MiB were kept");
        let (_, batch) = output_queue.take().await;
        assert!(batch.text.len() <= MAX_UNREAD + text.len());
        assert!(matches!(batch.end, Some(End::Failed(_))));
    }
}
