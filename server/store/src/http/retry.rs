//! How often something is tried again, and how long is waited in between.

use std::hash::{BuildHasher, Hasher};

use super::{Http, Trouble};
use crate::error::{Error, Result};

/// Tries of what somebody waits for.
pub(crate) const ASKED: u32 = 3;

/// Tries in a row that brought nothing, and the waits between them.
pub(crate) struct Retry<'a> {
    http: &'a Http,
    tries: u32,
    most: u32,
}

impl Retry<'_> {
    pub(crate) fn new(http: &Http) -> Retry<'_> {
        Retry { http, tries: 0, most: http.tuning.attempts }
    }

    /// For what is asked first: somebody waits, and nothing of the other side was seen yet.
    pub(crate) fn first(http: &Http) -> Retry<'_> {
        Retry { most: http.tuning.attempts.min(ASKED), ..Retry::new(http) }
    }

    /// Something came: it begins anew.
    pub(crate) fn progressed(&mut self) {
        self.tries = 0;
    }

    /// Waits before the next try; longer each time, and by chance, so that many do not come at once.
    ///
    /// # Errors
    /// It is no use, or was tried often enough.
    pub(crate) async fn after(&mut self, trouble: Trouble) -> Result {
        let tuning = &self.http.tuning;
        let (error, asked) = match trouble {
            Trouble::Never(error) => return Err(error),
            Trouble::NoRanges => return Err(Error::corrupt("the other side does not send ranges of files")),
            Trouble::Later(error, asked) => (error, asked),
        };
        self.tries += 1;
        if self.tries >= self.most {
            let what =
                format!("{} ({} tries); what has arrived is kept, and the next pull goes on", error.what, self.tries);
            return Err(Error { what, ..error });
        }
        let wait = tuning.first_wait.saturating_mul(1 << (self.tries - 1).min(16)).min(tuning.longest_wait);
        let chance = std::hash::RandomState::new().build_hasher().finish() % 1000;
        let wait = wait.mul_f64(0.5 + chance as f64 / 2000.0);
        self.http.pause(asked.map_or(wait, |asked| asked.min(tuning.longest_wait).max(wait))).await
    }
}
