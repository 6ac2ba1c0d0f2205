//! [`SamplingChanges`]: what a client asks of the sampler, and the number forms that APIs write it in. What the values do is
//! the engine's.

use std::collections::HashMap;

use ir_engine::run::Sampling;

use crate::engine::error::{ApiError, cut};

/// One list of the fields for the struct and what is done with all of them.
macro_rules! changes {
    ($($field:ident: $kind:ty),* $(,)?) => {
        /// What a client asks of the sampler; `None` leaves the model's or the API's value. See [`Sampling`] for meanings.
        #[derive(Debug, Clone, Default, PartialEq)]
        #[expect(missing_docs, reason = "each stands for the field of Sampling with its name")]
        pub struct SamplingChanges {
            $(pub $field: Option<$kind>,)*
            /// `None`: a new one for every request.
            pub seed: Option<u64>,
            pub logit_bias: Vec<(u32, f32)>,
        }

        impl SamplingChanges {
            /// These, and where they say nothing what `under` says.
            pub(crate) fn over(self, under: SamplingChanges) -> SamplingChanges {
                let logit_bias = if self.logit_bias.is_empty() { under.logit_bias } else { self.logit_bias };
                SamplingChanges { $($field: self.$field.or(under.$field),)* seed: self.seed.or(under.seed), logit_bias }
            }

            /// A sampling with these put over it; the seed of a job that has none is `seed`.
            pub(crate) fn applied(&self, mut to: Sampling, seed: u64) -> Sampling {
                $(if let Some(value) = self.$field { to.$field = value; })*
                // Of no probability at all the likeliest token is left, as other servers have it.
                for share in [&mut to.top_p, &mut to.typical_p] {
                    if *share == 0.0 {
                        *share = f32::MIN_POSITIVE;
                    }
                }
                Sampling { seed: self.seed.unwrap_or(seed), logit_bias: self.logit_bias.clone(), ..to }
            }
        }
    };
}

changes! {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    typical_p: f32,
    repeat_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    repeat_last_n: usize,
}

/// The sampling of OpenAI's and Anthropic's APIs where neither client nor model says anything: the model's own
/// distribution.
pub(crate) fn plain_sampling() -> Sampling {
    Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..Sampling::default() }
}

/// Ollama's defaults.
pub(crate) fn ollama_sampling() -> Sampling {
    Sampling { temperature: 0.8, top_k: 40, top_p: 0.9, min_p: 0.0, ..Sampling::default() }
}

/// A number of tokens; negative is without a limit.
pub(crate) fn limit(n: i64) -> Option<usize> {
    usize::try_from(n).ok()
}

/// A number of tokens to keep; negative and 0 are off.
pub(crate) fn kept(n: i64) -> usize {
    usize::try_from(n).unwrap_or(0)
}

/// A number of tokens to look back at; negative is all.
pub(crate) fn looked_at(n: i64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// OpenAI's `logit_bias`: token ids as text to biases. Values beyond +-100 are refused; -100 bans.
///
/// # Errors
/// Names the entry that is out of range.
pub(crate) fn logit_bias(map: &HashMap<String, f32>) -> Result<Vec<(u32, f32)>, ApiError> {
    let wrong = |what: String| ApiError::param("logit_bias", what);
    if map.len() > 1024 {
        return Err(wrong("logit_bias takes at most 1024 tokens".into()));
    }
    let mut out = Vec::with_capacity(map.len());
    for (id, bias) in map {
        let id: u32 =
            id.parse().map_err(|_| wrong(format!("logit_bias names {:?}, which is no token id", cut(id, 40))))?;
        if !(-100.0..=100.0).contains(bias) {
            return Err(wrong(format!("logit_bias of token {id} is {bias}: it must be from -100 to 100")));
        }
        out.push((id, if *bias <= -100.0 { f32::NEG_INFINITY } else { *bias }));
    }
    out.sort_unstable_by_key(|(id, _)| *id);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_goes_over_what_stands_below() {
        let under = SamplingChanges { top_k: Some(3), top_p: Some(0.5), seed: Some(4), ..SamplingChanges::default() };
        let over = SamplingChanges { top_k: Some(7), min_p: Some(0.1), ..SamplingChanges::default() };
        let both = over.over(under);
        assert_eq!((both.top_k, both.top_p, both.min_p, both.seed), (Some(7), Some(0.5), Some(0.1), Some(4)));
        let sampling = both.applied(plain_sampling(), 9);
        assert_eq!((sampling.top_k, sampling.temperature, sampling.seed), (7, 1.0, 4));
        assert_eq!(SamplingChanges::default().applied(plain_sampling(), 9).seed, 9);
        let none = SamplingChanges { top_p: Some(0.0), typical_p: Some(0.0), ..SamplingChanges::default() };
        assert!(none.applied(plain_sampling(), 9).check(10).is_ok());
    }

    #[test]
    fn counts_below_zero() {
        assert_eq!((limit(-2), limit(5), kept(-1), kept(4), looked_at(-1)), (None, Some(5), 0, 4, usize::MAX));
    }
}
