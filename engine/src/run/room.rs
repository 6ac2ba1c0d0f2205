//! How much an engine takes: limits of its steps, and how the cache's budget is shared out over pages, windows and states.

use super::engine::EngineOptions;
use super::scheduler::Limits;
use crate::device::{Device, RunnerOptions};
use crate::error::{Error, Result};
use crate::model::{Model, OutputKind};
use crate::plan::{CacheLayout, PAGE};

/// What an engine with these options has room for.
///
/// # Errors
/// A budget that does not hold the context asked for, or two tokens.
pub(crate) fn room(model: &Model, device: &Device, options: &EngineOptions) -> Result<(Limits, RunnerOptions)> {
    let plan = model.plan();
    let what = match model.spec().output {
        OutputKind::Text => None,
        OutputKind::Sound => Some("makes sound, not text"),
        OutputKind::Masked => Some("fills masked places of a text in rounds (diffusion)"),
    };
    if let Some(what) = what {
        return Err(Error::unsupported(format!(
            "this {} model {what}: its logits can be computed (ir logits), but no text generated",
            model.spec().family
        )));
    }
    if plan.n_token_ids() < plan.n_vocab() {
        return Err(Error::format("the model can choose tokens that it has no embedding for: the file is damaged"));
    }
    expect_room(model, options)?;
    let (mut limits, layout) = (limits(model, options), CacheLayout::of(plan, options.kv));
    let most_states = device.max_states(plan);
    // Each running sequence has two.
    limits.seqs = limits.seqs.min(most_states / 2).max(1);
    let n_states = n_states(layout.state_bytes, &limits, options.kv_budget)?.min(most_states);
    let budget = options.kv_budget.saturating_sub(layout.state_bytes.saturating_mul(n_states as u64));
    let most = device.max_pages(plan, options.kv);
    let [n_pages, n_window_pages] = n_pages(&layout, &limits, options, budget)?.map(|n| n.min(most));
    // The context that remains says which rotations a plan has.
    if layout.groups.first().is_some_and(|group| group.window.is_none()) {
        limits.context = limits.context.min(n_pages.saturating_mul(PAGE));
    }
    let (max_tokens, max_outputs) = (limits.rows, limits.seqs);
    Ok((limits, RunnerOptions { max_tokens, max_outputs, kv: options.kv, n_pages, n_window_pages, n_states }))
}

/// Tokens of a text at most that a model which reads it in one step takes unless asked for more: a step's buffers are made
/// for it.
const WHOLE_TEXT: usize = 8192;

/// Refuses a context beyond the model's table of positions.
fn expect_room(model: &Model, options: &EngineOptions) -> Result<()> {
    match (options.context, model.plan().n_positions()) {
        (Some(context), n) if context > n => Err(Error::limit(format!(
            "the model has {n} positions: ask for a context of {n} tokens at most, not {context}"
        ))),
        _ => Ok(()),
    }
}

fn limits(model: &Model, options: &EngineOptions) -> Limits {
    let (plan, n_context) = (model.plan(), model.spec().n_context);
    let whole = plan.reads_both_ways();
    let own = if whole { n_context.min(WHOLE_TEXT) } else { n_context };
    let context = options.context.unwrap_or(own).min(plan.n_positions()).min(u32::MAX as usize);
    let seqs = options.max_sequences.clamp(1, 1024);
    let in_one = whole || plan.reads_source();
    let rows = options.max_rows.max(if in_one { context.min(WHOLE_TEXT.max(options.context.unwrap_or(0))) } else { 0 });
    let rows = rows.clamp(1, 1 << 16);
    let chunk = options.chunk.clamp(1, rows);
    Limits { rows, chunk, seqs: seqs.min(rows), context, reuse: options.reuse && !whole, whole }
}

/// Pages of the first group and of each further one: enough for every sequence's whole context, and for what is kept one
/// context more, and in groups with a window two windows more for each sequence, if the budget allows. Else all groups
/// get their share, those with a window at least what the longest sequence needs that the budget allows.
fn n_pages(layout: &CacheLayout, limits: &Limits, options: &EngineOptions, budget: u64) -> Result<[usize; 2]> {
    let Limits { context, chunk, seqs, .. } = *limits;
    let bytes = |with: bool| layout.groups.iter().filter(|g| g.window.is_some() == with).map(|g| g.page_bytes).sum();
    let (page, window_page): (u64, u64) = (bytes(false), bytes(true));
    let windows = || layout.groups.iter().filter(|g| g.window.is_some());
    let all = context.div_ceil(PAGE) as u64;
    let held =
        |pages: u64| windows().map(|g| g.pages((pages as usize).saturating_mul(PAGE), chunk)).max().unwrap_or(0) as u64;
    let sequence = |pages: u64| (pages.saturating_mul(page), held(pages).saturating_mul(window_page));
    let kept = windows().filter_map(|g| g.window_pages()).max().unwrap_or(0) as u64;
    let (need, need_windows) = sequence(all);
    if let Some(context) = options.context
        && need.saturating_add(need_windows) > budget
    {
        let (need, budget) = (need.saturating_add(need_windows).div_ceil(1 << 20), budget >> 20);
        return Err(Error::limit(format!(
            "a context of {context} tokens needs {need} MiB of cache and the budget is {budget} MiB: \
             ask for a shorter context or allow more"
        )));
    }
    let fits = |pages: u64| {
        let (need, need_windows) = sequence(pages);
        need.saturating_add(need_windows) <= budget
    };
    let (need, need_windows) = sequence(longest(all, fits));
    let seqs = seqs as u64;
    let wanted = (seqs * held(all) + 2 * (seqs + 1) * kept).min(all * (seqs + 1));
    let share = u128::from(budget) * u128::from(need_windows) / u128::from(need.saturating_add(need_windows).max(1));
    let share = (share as u64).max(need_windows.min(budget));
    let n_windows = (share / window_page.max(1)).min(wanted);
    let left = budget - n_windows.saturating_mul(window_page).min(budget);
    let n_all = (left / page.max(1)).min(all * (seqs + 1));
    let has_all = layout.groups.iter().any(|g| g.window.is_none());
    let counts = if has_all { [n_all, n_windows] } else { [n_windows, n_windows] };
    let several = layout.groups.len() > 1;
    if counts[0] == 0 || several && counts[1] == 0 || context < 2 {
        return Err(Error::limit("the cache must hold two tokens at least: raise its budget or the context"));
    }
    let [first, more] = counts.map(|n| n.min(1 << 30) as usize);
    Ok([first, if several { more } else { 0 }])
}

/// The largest number up to `most` that fits, if all below one that fits do; 0 if none does.
fn longest(most: u64, fits: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = high - (high - low) / 2;
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

/// The largest number of snapshots of states.
const MOST_SNAPSHOTS: u64 = 64;

/// Slots for states of `bytes`: two for each running sequence, two snapshots, and more that take at most an eighth of what is
/// left of the cache's budget.
///
/// # Errors
/// If the slots of the running sequences alone exceed the budget.
fn n_states(bytes: u64, limits: &Limits, budget: u64) -> Result<usize> {
    if bytes == 0 {
        return Ok(0);
    }
    let running = 2 * limits.seqs as u64;
    if bytes.saturating_mul(running) > budget {
        return Err(Error::limit(format!(
            "the states of {} sequences need {} MiB and the cache's budget is {} MiB: allow fewer at once or more memory",
            limits.seqs,
            bytes.saturating_mul(running).div_ceil(1 << 20),
            budget >> 20
        )));
    }
    let left = (budget - bytes * running).saturating_sub(2 * bytes);
    Ok((running + 2 + (left / 8 / bytes).min(MOST_SNAPSHOTS - 2)) as usize)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::plan::{CacheGroup, KvKind};

    fn layout(groups: &[(Option<u32>, u64)]) -> CacheLayout {
        let group = |(window, page_bytes): &(Option<u32>, u64)| CacheGroup {
            window: *window,
            n_layers: 1,
            page_bytes: *page_bytes,
        };
        CacheLayout { kind: KvKind::F16, groups: groups.iter().map(group).collect(), state_bytes: 0 }
    }

    /// Of 26 layers four see everything and 22 a window of 1,024, as in Gemma 3.
    #[test]
    fn a_long_context_costs_what_its_full_layers_and_its_windows_cost() {
        let token = 2 * 256 * 2;
        let layout = layout(&[(None, 4 * token * 16), (Some(1024), 22 * token * 16)]);
        let (context, ideal) = (32_768, (4 * 32_768 + 22 * 1024) * token);
        for rows in [1, 512] {
            let held = layout.sequence_bytes(context, rows);
            assert!(held as f64 <= 1.15 * ideal as f64, "{held} bytes are held, {ideal} would do");
        }
        assert_eq!(layout.bytes_per_token(), 4 * token);
    }

    #[test]
    fn groups_share_the_budget() {
        let sizes = layout(&[(None, 1000), (Some(64), 4000)]);
        let limits = Limits { rows: 32, chunk: 32, seqs: 4, context: 1600, reuse: true, whole: false };
        let options = EngineOptions::default();
        // A sequence holds 100 pages and 7 of the window; all that could be wanted is five contexts.
        assert_eq!(n_pages(&sizes, &limits, &options, 1 << 30).unwrap(), [500, 4 * 7 + 2 * 5 * 5]);
        // A budget of two sequences gives each group its share.
        assert_eq!(n_pages(&sizes, &limits, &options, 2 * 128_000).unwrap(), [200, 14]);
        // A window is whole even where the context is not.
        assert_eq!(n_pages(&sizes, &limits, &options, 48_000).unwrap(), [20, 7]);
        let asked = EngineOptions { context: Some(1600), ..EngineOptions::default() };
        assert!(n_pages(&sizes, &limits, &asked, 127_999).unwrap_err().to_string().contains("a context of 1600"));
        // Where not even that fits, both are shorter alike: a window alone would be of no use.
        assert_eq!(n_pages(&sizes, &limits, &options, 28_000).unwrap(), [8, 5]);
        assert!(n_pages(&sizes, &limits, &options, 4_999).is_err(), "no page for each");
        let window = layout(&[(Some(64), 4000)]);
        assert_eq!(n_pages(&window, &limits, &options, 40_000).unwrap(), [10, 0]);
    }
}
