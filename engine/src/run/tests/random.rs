//! Random requests, texts and groups of caches for the traces.

use super::Lcg;
use super::fake::{N_VOCAB, WIDTH};
use crate::model::Pooling;
use crate::plan::PAGE;
use crate::run::{EmbedRequest, Marks, Request, Sampling};

pub(super) fn random_prompt(rng: &mut Lcg, most: usize) -> Vec<u32> {
    // Few roots, so that prefixes are shared, forks happen inside pages, and whole prompts repeat.
    let root = rng.below(3);
    let longest = [8, 40, 100][rng.below(3)].min(most);
    let len = 1 + rng.below(longest);
    let fork = rng.below(len + 1);
    let mut prompt: Vec<u32> = (0..len).map(|i| (4 + (i * 7 + root) % (N_VOCAB - 4)) as u32).collect();
    if rng.below(2) == 0 {
        prompt[fork..].iter_mut().for_each(|t| *t = rng.below(N_VOCAB) as u32);
    }
    prompt
}

/// Groups of caches as models have them: all layers see everything, or some or all a window; the pool of a window is as
/// small as can be, or larger.
pub(super) fn random_groups(rng: &mut Lcg, n_pages: usize) -> Vec<(Option<u32>, usize)> {
    let mut window = || {
        let (wide, more) = ([3, 20, 70][rng.below(3)], [2, 10, 60][rng.below(3)]);
        let window = 2 + rng.below(wide);
        (Some(window as u32), 1 + (window - 1).div_ceil(PAGE) + rng.below(more))
    };
    let windows: Vec<_> = (0..3).map(|_| window()).collect();
    match rng.below(4) {
        0 | 1 => vec![(None, n_pages)],
        2 => [&[(None, n_pages)], &windows[..1 + rng.below(2)]].concat(),
        _ => windows[..1 + rng.below(2)].to_vec(),
    }
}

pub(super) fn random_text(rng: &mut Lcg, context: usize) -> EmbedRequest {
    EmbedRequest {
        prompt: random_prompt(rng, context),
        pooling: Some([Pooling::None, Pooling::Mean, Pooling::Cls, Pooling::Last][rng.below(4)]),
        dimensions: [None, Some(1), Some(WIDTH)][rng.below(3)],
        normalize: rng.below(2) == 0,
        adapters: None,
    }
}

pub(super) fn random_request(rng: &mut Lcg, context: usize) -> Request {
    let prompt = random_prompt(rng, context - 1);
    let sampling = match rng.below(3) {
        0 => Sampling::greedy(),
        1 => Sampling { seed: rng.below(4) as u64, repeat_penalty: 1.2, ..Sampling::default() },
        _ => Sampling { seed: rng.below(1000) as u64, top_k: 0, top_p: 1.0, min_p: 0.0, ..Sampling::default() },
    };
    let mut mark = || (rng.below(2) == 0).then(|| rng.below(prompt.len() + 1));
    let marks = Marks { last_user: mark(), messages_end: mark() };
    Request {
        prompt,
        marks,
        max_tokens: [None, Some(0), Some(1), Some(rng.below(80))][rng.below(4)],
        sampling,
        stop: (0..[0, 0, 0, 1, 2][rng.below(5)]).map(|_| ["ab", "c", "éa", "aba"][rng.below(4)].to_string()).collect(),
        ignore_eos: rng.below(5) > 0,
        show_special: rng.below(4) == 0,
        show: Vec::new(),
        logprobs: (rng.below(8) == 0).then_some(2),
        ..Request::default()
    }
}
