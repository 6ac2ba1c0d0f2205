//! [`MicroBatches`]: into how many micro-batches a step is cut. More of them keep more devices busy, and each reads the weights
//! once more: which is faster is learnt from the times of steps, apart for few rows and many. No clock here.

/// Micro-batches that are tried.
const COUNTS: [usize; 3] = [1, 2, 4];
/// Steps between two attempts with a count that was slower.
const PATIENCE: usize = 64;
/// How much a new measurement counts.
const NEW: f64 = 0.25;
/// Kinds of steps: the binary logarithm of their rows.
const KINDS: usize = 17;

/// What is known of steps with about so many rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Kind {
    /// Seconds for each row, by count.
    seconds: [Option<f64>; COUNTS.len()],
    steps: usize,
}

/// The number of micro-batches of the next step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MicroBatches {
    fixed: Option<usize>,
    kinds: [Kind; KINDS],
    /// Rows of the step under way, and the place of its count.
    under_way: Option<(usize, usize)>,
}

fn kind(rows: usize) -> usize {
    (rows.max(1).ilog2() as usize).min(KINDS - 1)
}

impl MicroBatches {
    /// `fixed` is what the caller wants, whatever steps take.
    pub(super) fn new(fixed: Option<usize>) -> MicroBatches {
        MicroBatches { fixed: fixed.map(|n| n.max(1)), kinds: [Kind::default(); KINDS], under_way: None }
    }

    /// Into how many a step of so many rows is to be cut.
    pub(super) fn next(&mut self, rows: usize) -> usize {
        if let Some(n) = self.fixed {
            return n;
        }
        let Kind { seconds, steps } = self.kinds[kind(rows)];
        let possible = || (0..COUNTS.len()).filter(|i| COUNTS[*i] <= rows);
        if let Some(unknown) = possible().find(|i| seconds[*i].is_none()) {
            return COUNTS[unknown];
        }
        let best = possible().min_by(|a, b| seconds[*a].unwrap_or(0.0).total_cmp(&seconds[*b].unwrap_or(0.0)));
        let best = best.unwrap_or(0);
        // Neighbours on the machine and the length of contexts change: the others are measured again now and then.
        let others: Vec<usize> = possible().filter(|i| *i != best).collect();
        let again = others.get((steps / PATIENCE) % others.len().max(1)).filter(|_| steps % PATIENCE == PATIENCE - 1);
        COUNTS[again.copied().unwrap_or(best)]
    }

    /// A step of so many rows was wanted in `wanted` micro-batches and begun in `n`.
    pub(super) fn begun(&mut self, rows: usize, wanted: usize, n: usize) {
        let place = COUNTS.iter().position(|count| *count == wanted);
        let known = &mut self.kinds[kind(rows)].seconds;
        // One that cannot be cut so teaches nothing of those that can, and its kind is not asked for it again and again.
        if let (Some(place), true) = (place, n != wanted) {
            known[place].get_or_insert(f64::INFINITY);
        }
        self.under_way = place.filter(|_| n == wanted).map(|place| (rows, place));
    }

    /// Learns that the step under way took so many seconds.
    pub(super) fn took(&mut self, seconds: f64) {
        let Some((rows, place)) = self.under_way.take().filter(|_| seconds.is_finite() && seconds > 0.0) else {
            return;
        };
        let kind = &mut self.kinds[kind(rows)];
        let each = seconds / rows.max(1) as f64;
        let known = kind.seconds[place].filter(|known| known.is_finite());
        kind.seconds[place] = Some(known.map_or(each, |known| known + NEW * (each - known)));
        kind.steps += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The counts of `n` steps of `rows` rows on devices that take `time` for a count.
    fn counts(rows: usize, n: usize, time: impl Fn(usize) -> f64) -> Vec<usize> {
        let mut micro = MicroBatches::new(None);
        let step = |_| {
            let count = micro.next(rows);
            micro.begun(rows, count, count);
            micro.took(time(count));
            count
        };
        (0..n).map(step).collect()
    }

    #[test]
    fn what_is_faster_is_found_and_measured_again() {
        let prompts = counts(512, 200, |n| (n + 1) as f64 / n as f64);
        let decoding = counts(8, 200, |n| (n + 1) as f64);
        assert_eq!((prompts[..3].to_vec(), decoding[..3].to_vec()), (vec![1, 2, 4], vec![1, 2, 4]));
        let share = |all: &[usize], n| all.iter().filter(|count| **count == n).count();
        assert!(share(&prompts, 4) > 190 && share(&decoding, 1) > 190, "{prompts:?}");
        assert!(share(&prompts[3..], 1) > 0 && share(&decoding[3..], 2) > 0, "times change");
        assert_eq!(counts(1, 5, |_| 1.0), vec![1; 5], "one row is not cut");
        assert_eq!(MicroBatches::new(Some(3)).next(1), 3);
    }

    #[test]
    fn what_cannot_be_cut_and_nonsense_teach_nothing() {
        let mut micro = MicroBatches::new(None);
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            micro.begun(8, 1, 1);
            micro.took(seconds);
            assert_eq!(micro.next(8), 1);
        }
        micro.begun(8, 1, 1);
        micro.took(1.0);
        // A single sequence of a recurrent model stays whole.
        for wanted in [2, 4] {
            assert_eq!(micro.next(8), wanted);
            micro.begun(8, wanted, 1);
            micro.took(0.5);
        }
        assert_eq!(micro.next(8), 1);
    }
}
