//! [`Mailbox`]: from the engine's thread to one request. The engine never waits for a reader: what it adds to a slow
//! reader's box is joined to what lies there, and a box that grows beyond [`MAX_UNREAD`] ends its sequence.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ir_engine::run::{Finish, Logprobs, Usage};
use tokio::sync::Notify;

use crate::error::{ApiError, Kind};

/// Bytes that may lie unread in one completion's box.
pub(crate) const MAX_UNREAD: usize = 4 << 20;

/// How a sequence ended.
#[derive(Debug)]
pub(crate) enum End {
    /// By itself.
    Done(Finish, Usage),
    /// It was a text to embed.
    Embedded(Vec<f32>, Usage),
    /// By an error.
    Failed(ApiError),
}

/// What lies in a box for one completion.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    pub(crate) text: String,
    /// Ids, and where in `text` the text ends that each made certain.
    pub(crate) tokens: Vec<(u32, usize)>,
    /// One for each token, where they were asked for.
    pub(crate) logprobs: Vec<Logprobs>,
    pub(crate) end: Option<End>,
    bytes: usize,
}

impl Letters {
    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.end.is_none()
    }
}

/// The box of one request, with a place for each completion.
#[derive(Debug)]
pub(crate) struct Mailbox {
    places: Mutex<Vec<Letters>>,
    notify: Notify,
    gone: AtomicBool,
}

impl Mailbox {
    pub(crate) fn new(n: usize) -> Mailbox {
        let places = Mutex::new((0..n).map(|_| Letters::default()).collect());
        Mailbox { places, notify: Notify::new(), gone: AtomicBool::new(false) }
    }

    /// The reader left: its sequences are to be cancelled.
    pub(crate) fn leave(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// Whether the reader left.
    pub(crate) fn is_left(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Adds a token. `false` where the box is full: its sequence has ended with an error.
    pub(crate) fn token(&self, place: usize, id: u32, text: &str, logprobs: Option<Box<Logprobs>>) -> bool {
        let mut places = lock(&self.places);
        let Some(letters) = places.get_mut(place).filter(|l| l.end.is_none()) else { return false };
        letters.bytes += text.len() + size_of::<(u32, usize)>() + logprobs.as_deref().map_or(0, size);
        letters.text.push_str(text);
        letters.tokens.push((id, letters.text.len()));
        letters.logprobs.extend(logprobs.map(|l| *l));
        let full = letters.bytes > MAX_UNREAD;
        if full {
            let what = format!("the client reads too slowly: {MAX_UNREAD} bytes wait for it");
            letters.end = Some(End::Failed(ApiError::new(Kind::Slow, what)));
        }
        drop(places);
        self.notify.notify_one();
        !full
    }

    /// Ends a completion; the first end counts.
    pub(crate) fn end(&self, place: usize, end: End) {
        if let Some(letters) = lock(&self.places).get_mut(place) {
            letters.end.get_or_insert(end);
        }
        self.notify.notify_one();
    }

    /// What came for any completion, waited for. One reader only.
    pub(crate) async fn take(&self) -> (usize, Letters) {
        loop {
            let found = lock(&self.places)
                .iter_mut()
                .enumerate()
                .find(|(_, l)| !l.is_empty())
                .map(|(i, l)| (i, std::mem::take(l)));
            match found {
                Some(found) => return found,
                None => self.notify.notified().await,
            }
        }
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
        let mailbox = Mailbox::new(2);
        for (id, text) in [(1, "a"), (2, ""), (3, "bc")] {
            assert!(mailbox.token(1, id, text, None));
        }
        mailbox.end(1, End::Done(Finish::Stop, Usage::default()));
        let (place, letters) = mailbox.take().await;
        assert_eq!(
            (place, letters.text.as_str(), letters.tokens.as_slice()),
            (1, "abc", &[(1, 1), (2, 1), (3, 3)][..])
        );
        assert!(matches!(letters.end, Some(End::Done(Finish::Stop, _))));
    }

    #[tokio::test]
    async fn a_reader_that_never_reads_ends_its_sequence() {
        let mailbox = Mailbox::new(1);
        let text = "x".repeat(1 << 20);
        let n = (0..100).take_while(|_| mailbox.token(0, 7, &text, None)).count();
        assert!(n <= 4, "{n} MiB were kept");
        let (_, letters) = mailbox.take().await;
        assert!(letters.text.len() <= MAX_UNREAD + text.len());
        assert!(matches!(letters.end, Some(End::Failed(_))));
    }
}
