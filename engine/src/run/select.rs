//! The first few of many candidates without sorting the rest. A vocabulary has up to 256k tokens; a filter keeps a few.

use std::cmp::Ordering;

use super::sampler::Candidate;

/// Larger logit first, among equals the lower id.
pub(crate) fn by_logit(a: &Candidate, b: &Candidate) -> Ordering {
    b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1))
}

/// Writes the `n` largest logits of a row to `out`, largest first. NaN is taken for smaller than anything.
pub(crate) fn largest(row: &[f32], n: usize, out: &mut Vec<Candidate>) {
    out.clear();
    let n = n.min(row.len());
    if n == 0 {
        return;
    }
    // Whatever beats the n-th best so far is kept until the buffer is full; then only the best n stay.
    let room = (2 * n).max(n + 256).min(row.len());
    out.reserve(room);
    let mut threshold = f32::NEG_INFINITY;
    let mut full = false;
    for (at, chunk) in row.chunks(64).enumerate() {
        // Most chunks hold nothing of interest, which one vector comparison tells. Later ids lose against equals.
        if full && !chunk.iter().fold(false, |any, x| any | (*x > threshold)) {
            continue;
        }
        for (i, logit) in chunk.iter().enumerate() {
            if !full || *logit > threshold {
                out.push((if logit.is_nan() { f32::NEG_INFINITY } else { *logit }, (at * 64 + i) as u32));
                if out.len() == room {
                    keep_first(out, n, by_logit);
                    threshold = out.iter().fold(f32::INFINITY, |m, c| m.min(c.0));
                    full = true;
                }
            }
        }
    }
    keep_first(out, n, by_logit);
    out.sort_unstable_by(by_logit);
}

fn keep_first(list: &mut Vec<Candidate>, n: usize, order: impl Fn(&Candidate, &Candidate) -> Ordering) {
    if n < list.len() {
        list.select_nth_unstable_by(n - 1, order);
        list.truncate(n);
    }
}

/// Cuts the list after the first element, in `order`, for which `enough` says so; the rest is never fully sorted.
pub(crate) fn sort_until(
    list: &mut Vec<Candidate>,
    order: impl Fn(&Candidate, &Candidate) -> Ordering,
    mut enough: impl FnMut(&Candidate) -> bool,
) {
    let (mut done, mut step) = (0, 128);
    while done < list.len() {
        let rest = &mut list[done..];
        let n = step.min(rest.len());
        if n < rest.len() {
            rest.select_nth_unstable_by(n - 1, &order);
        }
        rest[..n].sort_unstable_by(&order);
        if let Some(at) = rest[..n].iter().position(&mut enough) {
            list.truncate(done + at + 1);
            return;
        }
        done += n;
        step *= 4;
    }
}
