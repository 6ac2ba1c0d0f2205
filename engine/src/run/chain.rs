//! How many steps make a chain: as many as hide the way to the device and back, and no more, since what arrives meanwhile
//! waits for a chain to end. Learnt from the times of steps and chains; no clock here.

/// Share of a chain's time that may go into the way there and back.
const SHARE: f64 = 0.02;
/// Seconds that a chain may take.
const SECONDS: f64 = 0.1;
/// Steps of a chain at most.
const MOST: usize = 32;
/// Single steps between two attempts with a chain of two, where chains did not pay.
const PATIENCE: usize = 64;
/// How much a new measurement counts.
const NEW: f64 = 0.25;

/// The length of the next chain.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChainLength {
    fixed: Option<usize>,
    /// Seconds of a step by itself, there and back.
    single: Option<f64>,
    /// Seconds of each further step of a chain.
    further: Option<f64>,
    /// Steps since the last chain.
    singles: usize,
}

impl ChainLength {
    /// `fixed` is what the caller wants, whatever steps take.
    pub(crate) fn new(fixed: Option<usize>) -> ChainLength {
        ChainLength { fixed: fixed.map(|n| n.max(1)), single: None, further: None, singles: 0 }
    }

    /// How many steps the next chain should have.
    pub(crate) fn next(&self) -> usize {
        if let Some(n) = self.fixed {
            return n;
        }
        let Some(single) = self.single else { return 1 };
        let Some(further) = self.further else { return if single < SECONDS { 2 } else { 1 } };
        let way = (single - further).max(0.0);
        let pays = (way / (SHARE * further)).ceil().min(SECONDS / further);
        let n = if pays.is_finite() { pays as usize } else { MOST };
        // Times change with the length of the context and what else runs: both kinds are measured again now and then.
        match n.clamp(1, MOST) {
            1 if self.singles >= PATIENCE && single < SECONDS => 2,
            n => n,
        }
    }

    /// Learns that a chain of so many steps took so many seconds.
    pub(crate) fn took(&mut self, steps: usize, seconds: f64) {
        if !seconds.is_finite() || seconds <= 0.0 {
            return;
        }
        let learn = |known: Option<f64>, value: f64| known.map_or(value, |known| known + NEW * (value - known));
        if steps <= 1 {
            self.single = Some(learn(self.single, seconds));
            self.singles += 1;
            return;
        }
        self.singles = 0;
        let Some(single) = self.single else { return };
        // A step cannot take more than one alone, there and back.
        let further = ((seconds - single) / (steps - 1) as f64).clamp(single * 1e-3, single);
        self.further = Some(learn(self.further, further));
        // As contexts grow, steps by themselves would take longer as well.
        self.single = Some(single.max(seconds / steps as f64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths that a device teaches whose steps take `each` seconds and the way `way`.
    fn lengths(each: f64, way: f64, n: usize) -> Vec<usize> {
        let mut chain = ChainLength::new(None);
        let mut all = Vec::new();
        for _ in 0..n {
            let steps = chain.next();
            chain.took(steps, way + each * steps as f64);
            all.push(steps);
        }
        all
    }

    #[test]
    fn chains_hide_the_way_and_no_more() {
        // Natively the way is short, in a page it is longer than a step, and one browser asks every tenth of a second.
        assert_eq!(lengths(1.3e-3, 0.1e-3, 10)[9], 4);
        assert_eq!(lengths(2e-3, 3e-3, 10)[9], MOST);
        assert!((8..=10).contains(&lengths(10e-3, 5e-3, 10)[9]), "no longer than a chain may take");
        // A slow device gains nothing.
        assert!(lengths(0.5, 1e-3, 100).iter().all(|n| *n == 1));
        assert!(lengths(40e-3, 10e-6, 200).iter().all(|n| *n <= 2));
        assert_eq!(ChainLength::new(Some(5)).next(), 5);
        assert_eq!(ChainLength::new(Some(0)).next(), 1);
    }

    #[test]
    fn nonsense_teaches_nothing() {
        let mut chain = ChainLength::new(None);
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            chain.took(1, seconds);
            chain.took(4, seconds);
        }
        assert_eq!(chain, ChainLength::new(None));
    }
}
