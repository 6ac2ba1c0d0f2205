//! The sampler against hand-computed cases and a slow reference that sorts everything.

use super::Lcg;
use crate::run::random::Draw;
use crate::run::{Sampler, Sampling, logprobs};

/// Everything off: plain draws from the softmax.
fn off() -> Sampling {
    Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..Sampling::default() }
}

/// The tokens that can be picked at all, found by drawing with many seeds.
fn support(sampling: &Sampling, row: &[f32], tokens: &[u32]) -> Vec<u32> {
    let pick = |seed| Sampler::new(Sampling { seed, ..sampling.clone() }).sample(row, tokens).unwrap();
    let mut picked: Vec<u32> = (0..4000).map(pick).collect();
    picked.sort_unstable();
    picked.dedup();
    picked
}

#[test]
fn filters_by_hand() {
    // Probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625.
    let row: Vec<f32> = [0.5f32, 0.25, 0.125, 0.0625, 0.0625].iter().map(|p| p.ln() + 3.0).collect();
    let cases: [(&str, Sampling, &[u32]); 14] = [
        ("off", off(), &[0, 1, 2, 3, 4]),
        ("greedy", Sampling::greedy(), &[0]),
        ("top-k", Sampling { top_k: 2, ..off() }, &[0, 1]),
        ("top-k, equals keep the lower id", Sampling { top_k: 4, ..off() }, &[0, 1, 2, 3]),
        ("top-p within a token", Sampling { top_p: 0.6, ..off() }, &[0, 1]),
        ("top-p just above a sum", Sampling { top_p: 0.76, ..off() }, &[0, 1, 2]),
        ("top-p keeps one", Sampling { top_p: 0.01, ..off() }, &[0]),
        ("min-p", Sampling { min_p: 0.2, ..off() }, &[0, 1, 2]),
        ("min-p of 1", Sampling { min_p: 1.0, ..off() }, &[0]),
        // Entropy 1.875 bits; surprises 1, 2, 3, 4, 4: the closest is token 1, then 0, then 2.
        ("typical keeps one", Sampling { typical_p: 0.2, ..off() }, &[1]),
        ("typical keeps two", Sampling { typical_p: 0.5, ..off() }, &[0, 1]),
        ("typical, then top-k's rest is not asked", Sampling { typical_p: 0.2, top_k: 1, ..off() }, &[0]),
        // After top-k 2 the shares are 2/3 and 1/3.
        ("top-p after top-k", Sampling { top_k: 2, top_p: 0.66, ..off() }, &[0]),
        ("ban", Sampling { logit_bias: vec![(0, f32::NEG_INFINITY), (4, -50.0)], ..off() }, &[1, 2, 3]),
    ];
    for (name, sampling, expected) in cases {
        assert_eq!(support(&sampling, &row, &[9]), expected, "{name}");
    }
}

#[test]
fn penalties_by_hand() {
    let row = [2.0, 1.9, -1.0, -1.1, 0.0];
    let greedy =
        |s: Sampling, tokens: &[u32]| Sampler::new(Sampling { temperature: 0.0, ..s }).sample(&row, tokens).unwrap();
    let d = Sampling::default;
    assert_eq!(greedy(d(), &[0, 0]), 0);
    assert_eq!(greedy(Sampling { repeat_penalty: 1.1, ..d() }, &[0]), 1, "2 / 1.1 is below 1.9");
    assert_eq!(greedy(Sampling { repeat_penalty: 1.1, ..d() }, &[0, 1]), 0, "both are divided");
    assert_eq!(greedy(Sampling { repeat_penalty: 1.1, repeat_last_n: 1, ..d() }, &[0, 4]), 0, "outside the window");
    assert_eq!(greedy(Sampling { repeat_penalty: 1.1, repeat_last_n: 0, ..d() }, &[0]), 0, "no window");
    assert_eq!(greedy(Sampling { repeat_penalty: 1.1, repeat_last_n: usize::MAX, ..d() }, &[0, 4]), 1);
    assert_eq!(greedy(Sampling { presence_penalty: 0.2, ..d() }, &[0, 0, 0]), 1);
    assert_eq!(
        greedy(Sampling { presence_penalty: 0.05, ..d() }, &[0, 0, 0]),
        0,
        "once, however often it stands there"
    );
    assert_eq!(greedy(Sampling { frequency_penalty: 0.05, ..d() }, &[0, 0, 0]), 1, "once for each time");
    let low = |s: Sampling| {
        support(
            &Sampling {
                logit_bias: vec![(0, f32::NEG_INFINITY), (1, f32::NEG_INFINITY), (4, f32::NEG_INFINITY)],
                temperature: 1e-3,
                ..s
            },
            &row,
            &[2],
        )
    };
    assert_eq!(low(d()), [2]);
    assert_eq!(low(Sampling { repeat_penalty: 1.2, ..d() }), [3], "negative logits are multiplied");
}

/// The documented chain, written down plainly: full sorts, no shortcuts.
fn reference(s: &Sampling, row: &[f32], tokens: &[u32]) -> u32 {
    let mut row = row.to_vec();
    s.logit_bias.iter().for_each(|(id, bias)| row[*id as usize] += bias);
    let window = &tokens[tokens.len().saturating_sub(s.repeat_last_n)..];
    for id in 0..row.len() as u32 {
        let count = window.iter().filter(|t| **t == id).count();
        if count > 0 {
            let logit = &mut row[id as usize];
            *logit = if *logit <= 0.0 { *logit * s.repeat_penalty } else { *logit / s.repeat_penalty };
            *logit -= count as f32 * s.frequency_penalty + s.presence_penalty;
        }
    }
    let mut kept: Vec<(f32, u32)> = row.iter().enumerate().map(|(i, l)| (*l, i as u32)).collect();
    kept.retain(|c| c.0 > f32::NEG_INFINITY);
    let by_logit = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    kept.sort_by(by_logit);
    if s.temperature == 0.0 {
        return kept[0].1;
    }
    if s.top_k > 0 {
        kept.truncate(s.top_k);
    }
    let probabilities = |kept: &[(f32, u32)]| -> Vec<f64> {
        let max = kept.iter().map(|c| f64::from(c.0)).fold(f64::NEG_INFINITY, f64::max);
        let exps: Vec<f64> = kept.iter().map(|c| (f64::from(c.0) - max).exp()).collect();
        let sum: f64 = exps.iter().sum();
        exps.iter().map(|e| e / sum).collect()
    };
    if s.typical_p < 1.0 {
        let p = probabilities(&kept);
        let entropy: f64 = p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        let mut order: Vec<usize> = (0..kept.len()).collect();
        order.sort_by(|a, b| (-p[*a].ln() - entropy).abs().total_cmp(&(-p[*b].ln() - entropy).abs()));
        let (mut mass, mut n) = (0.0, 0);
        for i in &order {
            mass += p[*i];
            n += 1;
            if mass > f64::from(s.typical_p) {
                break;
            }
        }
        kept = order[..n].iter().map(|i| kept[*i]).collect();
        kept.sort_by(by_logit);
    }
    if s.top_p < 1.0 {
        let (p, mut mass) = (probabilities(&kept), 0.0);
        let n = p.iter().position(|p| {
            mass += p;
            mass >= f64::from(s.top_p)
        });
        kept.truncate(n.map_or(kept.len(), |n| n + 1));
    }
    let p = probabilities(&kept);
    let n = p.iter().filter(|q| **q >= f64::from(s.min_p) * p[0]).count();
    kept.truncate(n);
    let draw = Draw::new(s.seed, tokens.len() as u32);
    let score = |c: &(f32, u32)| (c.0 - kept[0].0) / s.temperature + draw.gumbel(c.1);
    kept.iter().fold((f32::NEG_INFINITY, 0), |top, c| if score(c) > top.0 { (score(c), c.1) } else { top }).1
}

/// Distinct logits on a grid that keeps every decision of a filter far from rounding: f32 and f64 then agree.
#[test]
fn equals_the_reference_that_sorts_everything() {
    let mut rng = Lcg(3);
    let (mut n_cases, mut n_differ) = (0, 0);
    for case in 0..6000 {
        let n = [1, 2, 5, 50, 300, 3000][rng.below(6)];
        let spread = [0.1, 1.0, 3.0, 12.0][rng.below(4)];
        let row: Vec<f32> = (0..n).map(|_| rng.normal() * spread).collect();
        let mut pick = |values: &[f32]| values[rng.below(values.len())];
        let sampling = Sampling {
            temperature: pick(&[0.0, 0.2, 0.8, 1.0, 1.7]),
            top_k: pick(&[0.0, 0.0, 1.0, 3.0, 40.0, 500.0]) as usize,
            top_p: pick(&[1.0, 1.0, 0.95, 0.5, 0.05]),
            min_p: pick(&[0.0, 0.05, 0.3]),
            typical_p: pick(&[1.0, 1.0, 0.9, 0.3]),
            repeat_penalty: pick(&[1.0, 1.3]),
            presence_penalty: pick(&[0.0, 0.5]),
            frequency_penalty: pick(&[0.0, 0.4]),
            repeat_last_n: pick(&[0.0, 4.0, 64.0, 1e9]) as usize,
            seed: case,
            logit_bias: if pick(&[0.0, 1.0]) > 0.0 && n > 1 {
                vec![(0, f32::NEG_INFINITY), (n as u32 / 2, 1.5)]
            } else {
                vec![]
            },
        };
        let tokens: Vec<u32> = (0..1 + rng.below(30)).map(|_| rng.below(n) as u32).collect();
        let got = Sampler::new(sampling.clone()).sample(&row, &tokens).unwrap();
        n_cases += 1;
        // A sum within rounding of its bound may fall on either side; that is rare and must stay rare.
        n_differ += usize::from(got != reference(&sampling, &row, &tokens));
    }
    println!("{n_cases} rows, {n_differ} differ");
    assert!(n_differ <= 2, "{n_differ} of {n_cases} differ");
}

#[test]
fn draws_follow_the_softmax() {
    let row: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
    for (temperature, expected) in [(1.0, [0.5, 0.3, 0.15, 0.05]), (0.5, [0.684_93, 0.246_58, 0.061_64, 0.006_85])] {
        let n = 40_000;
        let mut counts = [0f64; 4];
        let mut sampler = Sampler::new(Sampling { temperature, seed: 11, ..off() });
        // One sequence's picks at successive positions.
        let tokens = vec![0; n];
        (1..n).for_each(|at| counts[sampler.sample(&row, &tokens[..at]).unwrap() as usize] += 1.0);
        for (count, p) in counts.iter().zip(expected) {
            let sigma = (n as f64 * p * (1.0 - p)).sqrt();
            assert!((count - n as f64 * p).abs() < 5.0 * sigma, "{counts:?} against {expected:?}");
        }
    }
}

#[test]
fn damaged_rows_are_errors() {
    for bad in [f32::NAN, f32::INFINITY] {
        for at in [0, 15, 16, 100] {
            let mut row = vec![0.0; 101];
            row[at] = bad;
            for sampling in [Sampling::default(), Sampling::greedy(), off()] {
                let error = Sampler::new(sampling).sample(&row, &[1]).unwrap_err().to_string();
                assert!(error.contains(&format!("token {at} ")), "{error}");
            }
        }
    }
    let banned = Sampling { logit_bias: vec![(0, f32::NEG_INFINITY)], ..off() };
    assert!(Sampler::new(banned).sample(&[1.0], &[0]).unwrap_err().to_string().contains("banned"));
    assert_eq!(Sampler::new(off()).sample(&[f32::NEG_INFINITY, -3e38, f32::NEG_INFINITY], &[0]).unwrap(), 1);
    let tiny = Sampling { temperature: 1e-38, ..off() };
    assert_eq!(Sampler::new(tiny).sample(&[1.0, 2.0, 2.0 - 1e-6], &[0]).unwrap(), 1);
    assert!(Sampler::new(off()).sample(&[], &[0]).is_err());
}

#[test]
fn values_out_of_range_are_refused() {
    let d = Sampling::default;
    let bad = [
        Sampling { temperature: -1.0, ..d() },
        Sampling { temperature: f32::NAN, ..d() },
        Sampling { top_p: 0.0, ..d() },
        Sampling { top_p: f32::NAN, ..d() },
        Sampling { min_p: 1.5, ..d() },
        Sampling { typical_p: 0.0, ..d() },
        Sampling { repeat_penalty: 0.0, ..d() },
        Sampling { presence_penalty: f32::INFINITY, ..d() },
        Sampling { frequency_penalty: f32::NAN, ..d() },
        Sampling { logit_bias: vec![(10, 0.0)], ..d() },
        Sampling { logit_bias: vec![(1, f32::NAN)], ..d() },
        Sampling { logit_bias: vec![(1, f32::INFINITY)], ..d() },
    ];
    for sampling in bad {
        assert!(sampling.check(10).is_err(), "{sampling:?}");
    }
    assert!(d().check(10).is_ok());
}

#[test]
fn the_files_recommendations_are_taken_where_they_make_sense() {
    let meta = crate::meta::MetaBuilder::new().f32("general.sampling.temp", 0.6).u32("general.sampling.top_k", 20);
    let meta = meta.f32("general.sampling.top_p", -4.0).f32("general.sampling.min_p", 0.0).build();
    let sampling = Sampling::from_meta(&meta);
    assert_eq!(sampling, Sampling { temperature: 0.6, top_k: 20, min_p: 0.0, ..Sampling::default() });
}

#[test]
fn logprobs_are_of_the_raw_row() {
    let row: Vec<f32> = [0.5f32, 0.25, 0.25].iter().map(|p| p.ln() - 7.0).collect();
    let (chosen, top) = logprobs(&row, 2, 2);
    assert!((chosen.1 - 0.25f32.ln()).abs() < 1e-6 && chosen.0 == 2);
    assert_eq!(top.iter().map(|t| t.0).collect::<Vec<_>>(), [0, 1]);
    assert!((top[0].1 - 0.5f32.ln()).abs() < 1e-6);
}

#[test]
#[ignore = "a measurement: cargo test --release -p ir-engine sampler_speed -- --ignored --nocapture"]
fn sampler_speed() {
    let mut rng = Lcg(5);
    let row: Vec<f32> = (0..128_256).map(|_| rng.normal() * 3.0).collect();
    let cases = [
        ("default", Sampling::default()),
        ("default with penalties", Sampling { repeat_penalty: 1.1, ..Sampling::default() }),
        ("greedy", Sampling::greedy()),
        ("temperature alone", off()),
        ("top-p alone", Sampling { top_p: 0.95, ..off() }),
        ("typical alone", Sampling { typical_p: 0.95, ..off() }),
    ];
    for (name, sampling) in cases {
        let mut sampler = Sampler::new(sampling);
        let start = std::time::Instant::now();
        let n = 200;
        let tokens = vec![5; 300];
        let sum: u64 = (0..n).map(|i| u64::from(sampler.sample(&row, &tokens[..100 + i]).unwrap())).sum();
        println!("{name}: {:.0} us a token ({sum})", start.elapsed().as_secs_f64() / n as f64 * 1e6);
    }
}
