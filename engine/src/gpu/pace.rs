//! How much work goes into one submission, so that watchdogs and compositors are not kept waiting: a guess at first, then
//! what steps of its kind were measured to take. No clock here: the caller tells what a step took.

/// Seconds that a submission should take at most: half of what a watchdog, or a page's compositor, puts up with.
const SECONDS: f64 = if cfg!(target_arch = "wasm32") { 0.025 } else { 0.25 };
/// Arithmetic operations per second of a GPU that was not measured yet: a slow one.
const GUESS: f64 = 5e11;
/// However slow a device seems, submissions are not cut further: each costs the host, too.
const LEAST: u64 = (GUESS * SECONDS / 1000.0) as u64;
/// Rows of a step that are computed together at least, however slow: fewer would read the weights more often.
const LEAST_ROWS: usize = 16;

/// The work of one submission, for steps of few and of many rows, whose kernels differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    most: [u64; 2],
    fixed: bool,
}

impl Pace {
    /// `fixed` is what the caller wants of every submission, whatever they take.
    pub(super) fn new(fixed: Option<u64>) -> Pace {
        Pace { most: [fixed.unwrap_or((GUESS * SECONDS) as u64); 2], fixed: fixed.is_some() }
    }

    /// Operations that one submission may take.
    pub(super) fn most(&self, many: bool) -> u64 {
        self.most[usize::from(many)]
    }

    /// Rows of which the largest dispatch fits one submission, where it takes `per_row` operations for each.
    pub(super) fn rows(&self, per_row: u64) -> usize {
        if self.fixed {
            return usize::MAX;
        }
        usize::try_from(self.most(true) / per_row.max(1)).unwrap_or(usize::MAX).max(LEAST_ROWS)
    }

    /// Learns from a step of so many operations that took so long from its submission to its results. Small steps teach
    /// nothing, for they wait more than they compute. A slower device is believed at once, a faster one by doubling.
    pub(super) fn took(&mut self, many: bool, work: u64, seconds: f64) {
        let most = &mut self.most[usize::from(many)];
        let teaches = !self.fixed && work >= *most / 8 && seconds.is_finite() && seconds > 0.0;
        if teaches {
            let measured = (work as f64 / seconds * SECONDS) as u64;
            *most = measured.clamp(LEAST, most.saturating_mul(2).max(LEAST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device of so many operations per second takes a prompt of this many.
    fn learnt(rate: f64, work: u64, steps: usize) -> Pace {
        let mut pace = Pace::new(None);
        (0..steps).for_each(|_| pace.took(true, work, work as f64 / rate));
        pace
    }

    #[test]
    fn submissions_take_their_time_on_any_device() {
        for rate in [2e9, 1e11, 5e11, 2e13] {
            let pace = learnt(rate, 2_000_000_000_000, 12);
            let seconds = pace.most(true) as f64 / rate;
            assert!((0.9..=1.01).contains(&(seconds / SECONDS)), "{rate}: {seconds} s");
            assert_eq!(pace.most(false), Pace::new(None).most(false), "steps of few rows were not measured");
        }
        // One step is enough to see that a device is slow.
        assert!(learnt(1e10, 2_000_000_000_000, 1).most(true) as f64 / 1e10 <= SECONDS);
    }

    #[test]
    fn rows_fit_a_submission_and_nothing_unmeasurable_is_believed() {
        let slow = learnt(1e10, 1 << 40, 1);
        assert_eq!(slow.rows(slow.most(true) / 100), 100);
        assert_eq!(slow.rows(u64::MAX), LEAST_ROWS);
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let mut pace = slow;
            pace.took(true, 1 << 40, seconds);
            assert_eq!(pace, slow);
        }
        let mut pace = slow;
        pace.took(true, pace.most(true) / 9, 1e-9);
        assert_eq!(pace, slow, "a small step teaches nothing");
        pace.took(true, 1 << 40, 1e9);
        assert_eq!(pace.most(true), LEAST);
        let mut fixed = Pace::new(Some(7));
        fixed.took(true, 1 << 40, 1.0);
        assert_eq!((fixed.most(true), fixed.rows(1)), (7, usize::MAX));
    }
}
