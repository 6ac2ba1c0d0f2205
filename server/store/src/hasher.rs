//! [`Hasher`]: the SHA-256 of a file that is still arriving, on a thread of its own, which reads what is there from the
//! beginning on.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::locked;

#[derive(Debug, Default)]
struct State {
    /// Bytes from the beginning on that may be read.
    there: u64,
    /// The file's length, once it is whole.
    size: Option<u64>,
    stop: bool,
    result: Option<Result<Digest>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A running sum.
#[derive(Debug)]
pub(crate) struct Hasher(Arc<Shared>);

impl Hasher {
    /// Begins; the file must exist when the first bytes are announced.
    pub(crate) fn new(path: &Path) -> Hasher {
        let shared = Arc::new(Shared::default());
        let (theirs, path) = (Arc::clone(&shared), path.to_owned());
        let started = std::thread::Builder::new().name("ir-hash".into()).spawn(move || {
            let result = run(&theirs, &path);
            locked(&theirs.state).result = result.transpose();
        });
        if let Err(e) = started {
            locked(&shared.state).result = Some(Err(Error::unsupported(format!("cannot start a thread: {e}"))));
        }
        Hasher(shared)
    }

    /// So many bytes from the beginning on are there.
    pub(crate) fn advance(&self, there: u64) {
        locked(&self.0.state).there = there;
        self.0.changed.notify_all();
    }

    /// The file is whole.
    pub(crate) fn finish(&self, size: u64) -> &Hasher {
        let mut state = locked(&self.0.state);
        (state.there, state.size) = (size, Some(size));
        self.0.changed.notify_all();
        drop(state);
        self
    }

    /// The digest, once it is known.
    pub(crate) fn ready(&self) -> Result<Option<Digest>> {
        locked(&self.0.state).result.clone().transpose()
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        locked(&self.0.state).stop = true;
        self.0.changed.notify_all();
    }
}

/// `None` if it was told to stop.
fn run(shared: &Shared, path: &Path) -> Result<Option<Digest>> {
    use sha2::Digest as _;
    let failed = |e: std::io::Error| Error::disk("read", path, &e);
    let (mut hash, mut at, mut file) = (sha2::Sha256::new(), 0u64, None);
    let mut buffer = vec![0; 1 << 18];
    loop {
        let (there, size) = {
            let idle = |s: &mut State| !s.stop && s.there <= at && s.size != Some(at);
            let state = shared.changed.wait_while(locked(&shared.state), idle);
            let state = state.unwrap_or_else(PoisonError::into_inner);
            if state.stop {
                return Ok(None);
            }
            (state.there, state.size)
        };
        if size == Some(at) {
            return Ok(Some(Digest::finish(hash)));
        }
        let file = match &mut file {
            Some(file) => file,
            None => file.insert(File::open(path).map_err(failed)?),
        };
        let most = usize::try_from(there - at).unwrap_or(usize::MAX).min(buffer.len());
        let n = file.read(&mut buffer[..most]).map_err(failed)?;
        if n == 0 {
            return Err(Error::corrupt(format!("{} became shorter while it was read", path.display())));
        }
        hash.update(&buffer[..n]);
        at += n as u64;
    }
}
