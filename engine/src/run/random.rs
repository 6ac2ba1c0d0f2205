//! The counter-based random numbers behind every pick. No state and no entropy: a number is a function of the seed, the
//! token's position and its id, so a pick depends on nothing that ran before it, and a GPU computes the same one.

/// A bijective hash of 32 bits with next to no bias (Wellons, "Hash Function Prospector", `lowbias32`): multiplies and
/// shifts of 32 bits only, as WGSL has them.
fn mix(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x21F0_AAAD);
    x = (x ^ (x >> 15)).wrapping_mul(0x735A_2D97);
    x ^ (x >> 15)
}

/// The random numbers of one pick: 64 bits made of the sequence's seed and the position of the token that is chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draw(u32, u32);

impl Draw {
    /// The draw for a token at `position` of a sequence with this seed.
    pub(crate) fn new(seed: u64, position: u32) -> Self {
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let first = mix(mix(mix(position).wrapping_add(low)).wrapping_add(high));
        let second = mix(mix(mix(position ^ 0x9E37_79B9).wrapping_add(high)).wrapping_add(low));
        Self(first, second)
    }

    /// The draw of these words.
    #[cfg(test)]
    pub(crate) fn of_words(words: [u32; 2]) -> Self {
        Self(words[0], words[1])
    }

    /// The draw as words, for a device.
    pub(crate) fn words(self) -> [u32; 2] {
        [self.0, self.1]
    }

    /// Thirty-two random bits for one token.
    pub(crate) fn bits(self, token: u32) -> u32 {
        mix(mix(token ^ self.0).wrapping_add(self.1))
    }

    /// Standard Gumbel noise for one token: `-ln(e)` with `e = -ln(1 - u)` exponential and `u = (bits + 0.5) / 2^32`.
    /// Adding it to `logit / temperature` and taking the largest draws from the softmax. Small `u` decide, and there a
    /// short series keeps all their digits, where `1 - u` in f32 would not.
    pub(crate) fn gumbel(self, token: u32) -> f32 {
        gumbel(self.bits(token))
    }

    /// What none of 16 tokens from `first` on can exceed: the largest `(logit - best) * scale` plus a bound of its noise.
    /// No logarithm and no branch, so that the compiler makes vectors of it.
    pub(crate) fn reach(self, first: u32, logits: &[f32; 16], best: f32, scale: f32) -> f32 {
        let mut most = f32::NEG_INFINITY;
        for (i, logit) in logits.iter().enumerate() {
            let distance = logit - best;
            // Not 0 * infinity, for a tiny temperature.
            let scaled = if distance == 0.0 { 0.0 } else { distance * scale };
            let reach = scaled + bound(self.bits(first + i as u32));
            most = if reach > most { reach } else { most };
        }
        most
    }
}

/// What [`gumbel`] does not exceed: `e` is at least `u`, and `u` at least `2^-n` where `bits` has `n - 1` leading zeros.
/// The zeros are read from a float's exponent; where the upper 24 bits are 0 the bound is far above any noise.
fn bound(bits: u32) -> f32 {
    let exponent = ((bits >> 8) as i32 as f32).to_bits() >> 23;
    (151 - exponent as i32) as f32 * BOUND_STEP
}

/// `ln 2`, with room for rounding.
const BOUND_STEP: f32 = 0.693_2;

fn gumbel(bits: u32) -> f32 {
    let u = (bits as f32 + 0.5) * (1.0 / 4_294_967_296.0);
    let e = if u < 1.0 / 64.0 {
        u * (1.0 + u * (0.5 + u * (1.0 / 3.0 + u * (0.25 + u * 0.2))))
    } else if u < 1.0 {
        -(1.0 - u).ln()
    } else {
        GUMBEL_MAX
    };
    -e.ln()
}

/// No value of [`gumbel`] lies above this (`33 ln 2` is 22.87).
pub(crate) const GUMBEL_MAX: f32 = 23.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance in standard deviations that a sound generator exceeds less than once in ten million draws.
    const SIGMAS: f64 = 5.3;

    /// The share of each high digit among hashes along one counter; counts are binomial.
    fn uniform(name: &str, bits: impl Fn(u32) -> u32) {
        let n = 1 << 16;
        for shift in [28, 24, 0] {
            let mut counts = [0u32; 16];
            (0..n).for_each(|i| counts[(bits(i) >> shift & 15) as usize] += 1);
            let (mean, sigma) = (f64::from(n) / 16.0, (f64::from(n) * 15.0 / 256.0).sqrt());
            for count in counts {
                assert!((f64::from(count) - mean).abs() < SIGMAS * sigma, "{name}, shift {shift}: {counts:?}");
            }
        }
    }

    #[test]
    fn uniform_along_every_counter() {
        uniform("token", |i| Draw::new(42, 7).bits(i));
        uniform("position", |i| Draw::new(42, i).bits(7));
        uniform("seed", |i| Draw::new(i.into(), 7).bits(7));
        uniform("seed, high half", |i| Draw::new(u64::from(i) << 32, 0).bits(0));
        uniform("token and position", |i| Draw::new(0, i).bits(i));
    }

    #[test]
    fn neighbours_are_independent() {
        // Correlation of successive draws: with n pairs of unit variance its deviation is 1 / sqrt(n).
        let unit = |bits: u32| (f64::from(bits) / 4_294_967_296.0 - 0.5) * 12f64.sqrt();
        let n = 1u32 << 16;
        for (seed, position, token) in [(1, 0, 0), (1 << 32, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)] {
            let near = |i: u32| Draw::new(3 + seed, (i >> 8) + position).bits((i & 255) + token);
            let sum: f64 = (0..n).map(|i| unit(Draw::new(3, i >> 8).bits(i & 255)) * unit(near(i))).sum();
            let sigmas = sum / f64::from(n).sqrt();
            assert!(sigmas.abs() < SIGMAS, "step {seed} {position} {token}: {sigmas}");
        }
    }

    #[test]
    fn gumbel_has_its_mean_and_variance() {
        let n = 200_000u32;
        let draws: Vec<f64> = (0..n).map(|i| f64::from(Draw::new(9, i).gumbel(3))).collect();
        let mean = draws.iter().sum::<f64>() / f64::from(n);
        let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / f64::from(n);
        let (euler, sigma) = (0.577_215_66, std::f64::consts::PI / 6f64.sqrt());
        assert!((mean - euler).abs() < SIGMAS * sigma / f64::from(n).sqrt(), "mean {mean}");
        // The variance's own deviation: kurtosis of a Gumbel is 5.4.
        assert!((variance - sigma * sigma).abs() < SIGMAS * sigma * sigma * (4.4 / f64::from(n)).sqrt(), "{variance}");
        assert!(draws.iter().all(|d| d.is_finite() && *d <= f64::from(GUMBEL_MAX)));
    }

    #[test]
    fn the_bound_holds_and_both_ends_are_finite() {
        let all = (0..32).flat_map(|k| [1u32 << k, (1u32 << k) - 1, (1u32 << k) + 1, u32::MAX - (1 << k), u32::MAX]);
        for bits in all.chain((0..100_000).map(mix)) {
            let (noise, bound) = (gumbel(bits), bound(bits));
            assert!(noise.is_finite() && noise <= bound && noise <= GUMBEL_MAX, "{bits}: {noise} above {bound}");
            assert!(bits < 256 || bound == (bits.leading_zeros() + 1) as f32 * BOUND_STEP, "{bits}: {bound}");
        }
    }
}
