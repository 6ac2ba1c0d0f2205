//! One file: ranges at once into a file made as long as it will be, with a journal, and its SHA-256 while it comes.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use reqwest::header::{self, HeaderName};
use reqwest::{Method, Response, StatusCode, Url};

use crate::digest::Digest;
use crate::disk::{self, Lock};
use crate::error::{Error, Kind, Result};
use crate::hasher::Hasher;
use crate::http::{Http, Retry, Trouble};
use crate::partial::Partial;
use crate::plan::Blob;
use crate::progress::{Event, Shared};
use crate::store::Store;

/// A range has at most so many bytes, so that the parts that come at once lie close together.
const MAX_RANGE: u64 = 128 << 20;

/// Bytes that are left free on a disk.
const RESERVE: u64 = 64 << 20;

/// Fetches a file, unless it is here; gives its digest and size.
pub(crate) async fn fetch(store: &Store, http: &Http, blob: &Blob, shared: &Shared) -> Result<(Digest, u64)> {
    let id = blob.id();
    let _lock = lock(store, http, &id, shared).await?;
    shared.step(Event {
        status: format!("pulling {}", &id[..12]),
        digest: blob.digest.map(|d| d.to_string()),
        total: blob.size,
        completed: None,
    });
    if let Some(digest) = blob.digest
        && store.has_blob(&digest, blob.size)?
    {
        let size = disk::regular(&store.blob(&digest))?.map_or(0, |m| m.len());
        shared.completed(size, Some(size));
        return Ok((digest, size));
    }
    let path = store.own("partial", &id)?;
    let mut again = true;
    loop {
        let partial = Partial::open(&path, &blob.identity(), blob.size)?;
        let resumed = partial.done.sum() > 0;
        let (digest, size) = Job::new(http, blob, shared, partial).run().await?;
        if blob.digest.is_none_or(|wanted| wanted == digest) {
            return keep(store, &path, &digest, size).map(|()| (digest, size));
        }
        Partial::discard(&path)?;
        // What an earlier process left may have been spoiled by a crash of the machine; what came now has not.
        if !std::mem::take(&mut again) || !resumed {
            let wanted = blob.digest.map(|d| d.to_string()).unwrap_or_default();
            let host = blob.url.host_str().unwrap_or("");
            return Err(Error::corrupt(format!(
                "{host} was to send {wanted} and sent {digest}: it was deleted; pull again, and if it happens again, do not \
                 trust that copy"
            )));
        }
    }
}

/// The lock of a file that is fetched; waits while another process has it.
async fn lock(store: &Store, http: &Http, id: &str, shared: &Shared) -> Result<Lock> {
    let path = store.own("locks", id)?;
    let mut told = false;
    loop {
        // Under the store's lock, since whoever collects may remove the file.
        let attempt = {
            let _store = store.lock()?;
            Lock::attempt(&path)?
        };
        if let Some(lock) = attempt {
            return Ok(lock);
        }
        if !std::mem::replace(&mut told, true) {
            shared.status("waiting for another process that fetches it");
        }
        http.tick().await?;
    }
}

/// Whether the disk has room for what is missing of all files.
///
/// # Errors
/// [`Kind::Space`], with how much is needed.
pub(crate) fn room(store: &Store, blobs: &[Blob]) -> Result {
    let mut needed = RESERVE;
    for blob in blobs {
        let (Some(size), reserved) = (blob.size, store.own("partial", &blob.id())?) else { continue };
        let reserved = disk::regular(&reserved)?.is_some_and(|m| m.len() == size);
        let here = blob.digest.is_some_and(|d| store.has_blob(&d, Some(size)).unwrap_or(false));
        if !reserved && !here {
            needed = needed.saturating_add(size);
        }
    }
    let Ok(free) = fs4::available_space(&store.settings.root) else { return Ok(()) };
    if needed > RESERVE && needed > free {
        let what = format!(
            "{} has {} MB free, and the model needs {} MB there: make room, or name another folder in IR_MODELS",
            store.settings.root.display(),
            free / 1_000_000,
            needed / 1_000_000
        );
        return Err(Error::new(Kind::Space, what));
    }
    Ok(())
}

/// Makes a blob of a file that is whole.
fn keep(store: &Store, path: &std::path::Path, digest: &Digest, size: u64) -> Result {
    disk::make_folders(&store.settings.root, &["blobs"])?;
    let blob = store.blob(digest);
    if !store.has_blob(digest, Some(size))? {
        std::fs::rename(path, &blob).map_err(|e| Error::disk("write", &blob, &e))?;
    }
    Partial::discard(path)
}

/// A file under way.
struct Job<'a> {
    http: &'a Http,
    blob: &'a Blob,
    shared: &'a Shared,
    partial: RefCell<Partial>,
    /// Ranges that nobody fetches yet, the last first.
    waiting: RefCell<Vec<Range<u64>>>,
    /// Where the redirects led last.
    target: RefCell<Option<Url>>,
    /// Bytes that are here, those not in the journal too.
    here: Cell<u64>,
    hasher: Hasher,
}

impl<'a> Job<'a> {
    fn new(http: &'a Http, blob: &'a Blob, shared: &'a Shared, partial: Partial) -> Job<'a> {
        let hasher = Hasher::new(&partial.path);
        let here = Cell::new(partial.done.sum());
        let (waiting, target) = (RefCell::default(), RefCell::default());
        Job { http, blob, shared, partial: RefCell::new(partial), waiting, target, here, hasher }
    }

    /// Fetches what is missing; gives what the file is then.
    async fn run(mut self) -> Result<(Digest, u64)> {
        self.shared.completed(self.here.get(), self.blob.size);
        let size = match self.blob.size {
            Some(size) if self.blob.can_resume() => match self.ranges(size).await {
                Ok(()) => size,
                Err(None) => self.whole().await?,
                Err(Some(error)) => return Err(error),
            },
            _ => self.whole().await?,
        };
        self.partial.borrow_mut().finish(size)?;
        let digest = self.hasher.finish(size);
        loop {
            if let Some(digest) = digest.ready()? {
                return Ok((digest, size));
            }
            self.http.tick().await?;
        }
    }

    /// Fetches the missing ranges, several at once. `Err(None)`: the other side sends whole files only.
    async fn ranges(&self, size: u64) -> std::result::Result<(), Option<Error>> {
        let tuning = &self.http.tuning;
        let streams = tuning.streams.clamp(1, 64);
        let step = (size / (streams as u64 * 4)).clamp(tuning.min_range.max(1), MAX_RANGE.max(tuning.min_range));
        let mut waiting = Vec::new();
        for missing in self.partial.borrow().done.missing(size) {
            let mut at = missing.start;
            while at < missing.end {
                let end = missing.end.min(at.saturating_add(step));
                waiting.push(at..end);
                at = end;
            }
        }
        waiting.reverse();
        self.waiting.replace(waiting);
        self.hasher.advance(self.partial.borrow().done.prefix());
        let workers = (0..streams).map(|_| self.work(size));
        futures_util::future::try_join_all(workers).await.map(|_| ())
    }

    async fn work(&self, size: u64) -> std::result::Result<(), Option<Error>> {
        loop {
            let Some(range) = self.waiting.borrow_mut().pop() else { return Ok(()) };
            let (mut at, mut retry) = (range.start, Retry::new(self.http));
            while at < range.end {
                let before = at;
                let result = self.range(&mut at, range.end, size).await;
                if at > before {
                    retry.progressed();
                }
                match result {
                    Ok(()) => {}
                    Err(Trouble::NoRanges) => return Err(None),
                    // A signed address runs out: the hub gives another.
                    Err(Trouble::Never(e)) if passes(&e) && self.target.take().is_some() => {
                        retry.after(Trouble::Later(e, None)).await?;
                    }
                    Err(trouble) => {
                        self.target.take();
                        retry.after(trouble).await?;
                    }
                }
            }
        }
    }

    /// Fetches a range from `at` on, as far as it comes.
    async fn range(&self, at: &mut u64, end: u64, size: u64) -> std::result::Result<(), Trouble> {
        let url = self.target.borrow().clone();
        let (url, auth) = match &url {
            Some(url) => (url, None),
            None => (&self.blob.url, self.blob.auth.as_deref()),
        };
        let mut headers = vec![(header::RANGE, format!("bytes={}-{}", *at, end - 1))];
        if let Some(etag) = self.blob.etag.clone().filter(|_| self.blob.digest.is_none()) {
            headers.push((header::IF_RANGE, etag));
        }
        let answer = self.http.send(Method::GET, url, auth, &headers, None).await?;
        if answer.response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(Trouble::NoRanges);
        }
        if answer.url != self.blob.url {
            self.target.replace(Some(answer.url.clone()));
        }
        let host = answer.url.host_str().unwrap_or("").to_owned();
        check_range(&answer.response, &host, *at..end, size)?;
        match self.body(answer.response, &host, at, end).await? {
            Body::Full => Ok(()),
            Body::Ended if *at == end => Ok(()),
            Body::Ended => Err(too_early(&host, end - *at)),
        }
    }

    /// Writes what comes to its place, and notes it in steps and at the end, whatever that is.
    async fn body(
        &self,
        mut response: Response,
        host: &str,
        at: &mut u64,
        end: u64,
    ) -> std::result::Result<Body, Trouble> {
        let mut note = Note { job: self, range: *at..*at };
        while *at < end {
            let Some(chunk) = self.http.within(host, response.chunk()).await? else { return Ok(Body::Ended) };
            let fits = chunk.len().min(usize::try_from(end - *at).unwrap_or(usize::MAX));
            self.partial.borrow_mut().write(*at, &chunk[..fits]).map_err(Trouble::Never)?;
            *at += fits as u64;
            note.range.end = *at;
            self.here.set(self.here.get() + fits as u64);
            self.shared.completed(self.here.get(), self.blob.size);
            if note.range.end - note.range.start >= self.http.tuning.journal_step {
                let range = std::mem::replace(&mut note.range, *at..*at);
                self.note(range).map_err(Trouble::Never)?;
            }
        }
        Ok(Body::Full)
    }

    fn note(&self, range: Range<u64>) -> Result {
        let mut partial = self.partial.borrow_mut();
        partial.note(range)?;
        self.hasher.advance(partial.done.prefix());
        Ok(())
    }

    /// Fetches the file in one answer, anew whenever it breaks.
    async fn whole(&mut self) -> Result<u64> {
        let mut retry = Retry::new(self.http);
        loop {
            self.partial.borrow_mut().reset()?;
            let path = self.partial.borrow().path.clone();
            self.hasher = Hasher::new(&path);
            self.here.set(0);
            match self.attempt().await {
                Ok(size) => return Ok(size),
                Err(trouble) => retry.after(trouble).await?,
            }
        }
    }

    async fn attempt(&self) -> std::result::Result<u64, Trouble> {
        let (url, auth) = (&self.blob.url, self.blob.auth.as_deref());
        let answer = self.http.send(Method::GET, url, auth, &[], None).await?;
        let host = answer.url.host_str().unwrap_or("").to_owned();
        let length = answer.response.content_length();
        if let (Some(said), Some(size)) = (length, self.blob.size)
            && said != size
        {
            return Err(Trouble::Never(Error::corrupt(format!("{host} sends {said} bytes of a file of {size}"))));
        }
        let chunked = has(&answer.response, header::TRANSFER_ENCODING, "chunked");
        let size = self.blob.size.or(length);
        if size.is_none() && !chunked && self.blob.digest.is_none() {
            let what = format!("{host} does not say how long the file is, so nobody could tell whether it came whole");
            return Err(Trouble::Never(Error::corrupt(what)));
        }
        let most = match size {
            Some(size) => size,
            None => self.space(),
        };
        let mut at = 0;
        // One byte more than there may be, so that too many are seen.
        match self.body(answer.response, &host, &mut at, most.saturating_add(1)).await? {
            Body::Ended if size.is_some() && at < most => Err(too_early(&host, most - at)),
            Body::Ended => Ok(at),
            Body::Full => {
                let what = format!("{host} sends more than the {most} bytes that the file may have");
                Err(Trouble::Never(Error::corrupt(what)))
            }
        }
    }

    /// Bytes that a file of unknown length may have here.
    fn space(&self) -> u64 {
        let folder = self.partial.borrow().path.parent().map(std::path::Path::to_owned).unwrap_or_default();
        fs4::available_space(folder).unwrap_or(1 << 40).saturating_sub(RESERVE)
    }
}

/// How a body ended: as long as it may be, or by itself.
enum Body {
    Full,
    Ended,
}

/// Notes in the journal what has come, however its reading ends.
struct Note<'a, 'b> {
    job: &'a Job<'b>,
    range: Range<u64>,
}

impl Drop for Note<'_, '_> {
    fn drop(&mut self) {
        // What cannot be noted is fetched again.
        let _ = self.job.note(self.range.clone());
    }
}

fn too_early(host: &str, missing: u64) -> Trouble {
    Trouble::Later(Error::network(format!("{host} ended the answer {missing} bytes too early")), None)
}

/// Whether a refusal may come from an address that was good for a time only.
fn passes(error: &Error) -> bool {
    matches!(error.kind, Kind::Denied | Kind::NotFound | Kind::Network)
}

fn has(response: &Response, name: HeaderName, word: &str) -> bool {
    response.headers().get(name).and_then(|v| v.to_str().ok()).is_some_and(|v| v.eq_ignore_ascii_case(word))
}

/// Whether an answer is the range that was asked for, or its beginning.
fn check_range(response: &Response, host: &str, asked: Range<u64>, size: u64) -> std::result::Result<(), Trouble> {
    let text = response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let parse = || {
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let total = if total == "*" { size } else { total.parse().ok()? };
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, total))
    };
    match parse() {
        Some((first, last, total)) if first == asked.start && last < asked.end && last >= first && total == size => {
            Ok(())
        }
        Some((_, _, total)) if total != size => Err(Trouble::Never(Error::corrupt(format!(
            "{host} has a file of {total} bytes where {size} were announced"
        )))),
        _ => {
            Err(Trouble::Never(Error::corrupt(format!("{host} sends another range than it was asked for ({text:?})"))))
        }
    }
}
