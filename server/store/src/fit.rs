//! What memory a model takes and what of it a device has room for, known before anything is loaded.

use ir_engine::dtype::DType;
use ir_engine::file::ModelFile;
use ir_engine::plan::{CacheLayout, KvKind, Plan};

/// Memory of a machine or device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of it.
    pub total: u64,
    /// Bytes that nobody uses, where that is known.
    pub free: Option<u64>,
}

/// A context that is too short for a chat: a model that has room for no more does not fit.
const LEAST_CONTEXT: u64 = 512;

/// Rows of a sequence in a step: what a window holds grows with them.
const ROWS: usize = 512;

/// Bytes that a step takes beside weights and cache, and those of whoever else is there: at least so many.
const BESIDE: u64 = 128 << 20;

/// What a model takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Need {
    /// Bytes of the weights.
    pub weights: u64,
    /// Numbers of the whole model.
    pub parameters: u64,
    /// What the cache takes.
    pub cache: CacheLayout,
    /// Tokens that it was made for.
    pub context: u64,
}

impl Need {
    /// What a model of an opened file takes, with a cache of this kind.
    pub fn new(file: &ModelFile, plan: &Plan, context: usize, kv: KvKind) -> Need {
        Need {
            weights: file.byte_len(),
            parameters: file.tensors().iter().fold(0, |sum: u64, t| sum.saturating_add(t.n_elements())),
            cache: CacheLayout::of(plan, kv),
            context: context as u64,
        }
    }

    /// Bytes of a device's memory that weights and cache may have.
    fn usable(memory: u64) -> u64 {
        memory.saturating_sub((memory / 16).max(BESIDE))
    }

    /// The shortest context that is worth having.
    fn least(&self) -> u64 {
        self.context.clamp(1, LEAST_CONTEXT)
    }

    /// Tokens of context that there is room for beside the weights; at most as many as the model was made for. `None`: there
    /// is not even room for a short one.
    pub fn context_in(&self, memory: u64) -> Option<u64> {
        let left = Need::usable(memory).checked_sub(self.weights)?;
        // A longer context never takes less: the longest that there is room for is found by halving.
        let (mut fits, mut beyond) = (0, self.context.saturating_add(1));
        while beyond - fits > 1 {
            let tokens = fits + (beyond - fits) / 2;
            if self.cached(tokens) <= left {
                fits = tokens;
            } else {
                beyond = tokens;
            }
        }
        (fits >= self.least()).then_some(fits)
    }

    /// Bytes of the cache for a conversation of so many tokens.
    fn cached(&self, tokens: u64) -> u64 {
        self.cache.sequence_bytes(usize::try_from(tokens).unwrap_or(usize::MAX), ROWS)
    }

    /// The storage type with the most bits in which the weights would have room beside a short context, and the bytes that
    /// they would have.
    pub fn type_for(&self, memory: u64) -> Option<(&'static str, u64)> {
        let left = Need::usable(memory).checked_sub(self.cached(self.least()))?;
        let bytes = |dtype: &DType| {
            let blocks = self.parameters.div_ceil(dtype.block_len() as u64);
            blocks.saturating_mul(dtype.block_bytes() as u64)
        };
        let fitting = DType::ALL.iter().filter(|d| !d.is_plain()).map(|d| (bytes(d), d.name()));
        let best = fitting.filter(|(bytes, _)| *bytes <= left).max_by_key(|(bytes, _)| *bytes)?;
        Some((best.1, best.0))
    }

    /// Why the model cannot be used with this memory, and what could; `None` where it can.
    pub fn refusal(&self, memory: u64) -> Option<String> {
        if self.context_in(memory).is_some() {
            return None;
        }
        let needed = self.weights.saturating_add(self.cached(self.least()));
        let (needed, there) = (gigabytes(needed), gigabytes(Need::usable(memory)));
        let would = match self.type_for(memory) {
            Some((name, bytes)) if bytes < self.weights => {
                format!(
                    "a file of the same model of type {name}, which would have {}, or a smaller one fits",
                    gigabytes(bytes)
                )
            }
            _ => "only a model with fewer parameters fits".into(),
        };
        Some(format!(
            "it needs {needed} for its weights and {} tokens of context, and there is room for {there}: {would}",
            self.least()
        ))
    }
}

fn gigabytes(bytes: u64) -> String {
    match bytes {
        0..10_000_000_000 => format!("{:.2} GB", bytes as f64 / 1e9),
        _ => format!("{:.0} GB", bytes as f64 / 1e9),
    }
}

/// This machine's memory, or the part of it that this process may use; `None` where the system does not say.
#[cfg(target_os = "linux")]
pub fn memory() -> Option<Memory> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let (total, free) = (field("MemTotal:")?, field("MemAvailable:"));
    // What a container may have, where one says so.
    let limit = number("/sys/fs/cgroup/memory.max").or_else(|| number("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    match limit.filter(|limit| *limit < total) {
        Some(limit) => {
            let used = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
            let left = limit.saturating_sub(used);
            Some(Memory { total: limit, free: free.map(|free| free.min(left)) })
        }
        None => Some(Memory { total, free }),
    }
}

/// This machine's memory; `None` where the system does not say.
#[cfg(not(target_os = "linux"))]
pub fn memory() -> Option<Memory> {
    None
}

#[cfg(test)]
mod tests {
    use ir_engine::plan::{CacheGroup, PAGE};

    use super::*;

    const GB: u64 = 1_000_000_000;

    fn cache(groups: &[(Option<u32>, u64)]) -> CacheLayout {
        let group = |(window, per_token): &(Option<u32>, u64)| CacheGroup {
            window: *window,
            n_layers: 1,
            page_bytes: per_token * PAGE as u64,
        };
        CacheLayout { kind: KvKind::F16, groups: groups.iter().map(group).collect(), state_bytes: 0 }
    }

    /// 8 billion parameters in 16 bits, 128 KiB of cache for a token.
    fn need() -> Need {
        Need { weights: 16 * GB, parameters: 8 * GB, cache: cache(&[(None, 131_072)]), context: 131_072 }
    }

    #[test]
    fn contexts_that_fit() {
        assert_eq!(need().context_in(64 * GB), Some(131_072));
        // A sixteenth of 20 GB stays free, and 2.75 GB are left for the cache: 1,311 pages.
        assert_eq!(need().context_in(20 * GB), Some(20_976));
        assert_eq!(need().context_in(16 * GB), None);
        assert_eq!(Need { cache: cache(&[]), ..need() }.context_in(20 * GB), Some(131_072));
        // Where three layers of four have a window of 1,024, its 65 pages and the 32 of a step take 153 MB.
        let windows = Need { cache: cache(&[(None, 32_768), (Some(1024), 98_304)]), ..need() };
        assert_eq!(windows.context_in(20 * GB), Some(79_264));
        let states = CacheLayout { state_bytes: GB, ..cache(&[(None, 131_072)]) };
        assert_eq!(Need { cache: states, ..need() }.context_in(20 * GB), Some(5_712));
        assert_eq!(Need { weights: u64::MAX, ..need() }.context_in(u64::MAX), None);
    }

    #[test]
    fn what_does_not_fit_says_what_would() {
        assert_eq!(need().refusal(64 * GB), None);
        let why = need().refusal(8 * GB).unwrap_or_default();
        assert!(why.contains("16 GB") && why.contains("7.50 GB") && why.contains("of type "), "{why}");
        let (name, bytes) = need().type_for(8 * GB).unwrap_or_default();
        assert!(why.contains(name) && bytes < 7_500_000_000 && bytes > 6 * GB, "{name} {bytes}");
        let why = need().refusal(GB / 2).unwrap_or_default();
        assert!(why.contains("fewer parameters"), "{why}");
    }
}
