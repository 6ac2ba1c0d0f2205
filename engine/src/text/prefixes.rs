//! [`Prefixes`]: which tokens a text begins with, for tokenizers that look texts up and merge nothing.

/// Longer texts are not looked for, so that looking stays linear.
const LONGEST: usize = 512;

/// Texts by their order, to be narrowed byte by byte.
#[derive(Debug)]
pub(super) struct Prefixes {
    /// Numbers of texts, sorted by text; of equal texts the first.
    sorted: Vec<u32>,
    /// Where in `sorted` the texts start with each byte.
    first: Vec<u32>,
}

impl Prefixes {
    /// Of the texts of these numbers; the empty one is left out.
    pub(super) fn of<'a>(numbers: impl Iterator<Item = u32>, text: impl Fn(u32) -> &'a [u8]) -> Prefixes {
        let mut sorted: Vec<u32> = numbers.filter(|n| !text(*n).is_empty() && text(*n).len() <= LONGEST).collect();
        sorted.sort_by(|a, b| text(*a).cmp(text(*b)).then(a.cmp(b)));
        sorted.dedup_by(|a, b| text(*a) == text(*b));
        let first = (0..=256).map(|b| sorted.partition_point(|n| usize::from(text(*n)[0]) < b) as u32).collect();
        Prefixes { sorted, first }
    }

    /// Hands out the texts that `bytes` begins with, the shortest first: length and number.
    pub(super) fn each<'a>(&self, bytes: &[u8], text: impl Fn(u32) -> &'a [u8], mut emit: impl FnMut(usize, u32)) {
        let Some(b) = bytes.first().map(|b| usize::from(*b)) else { return };
        let mut range = &self.sorted[self.first[b] as usize..self.first[b + 1] as usize];
        for depth in 1.. {
            let Some(number) = range.first() else { break };
            if text(*number).len() == depth {
                emit(depth, *number);
            }
            let Some(next) = bytes.get(depth) else { break };
            let byte_at = |n: &u32| text(*n).get(depth).copied();
            let low = range.partition_point(|n| byte_at(n) < Some(*next));
            let count = range[low..].partition_point(|n| byte_at(n) <= Some(*next));
            range = &range[low..low + count];
        }
    }

    /// The longest text that `bytes` begins with.
    pub(super) fn longest<'a>(&self, bytes: &[u8], text: impl Fn(u32) -> &'a [u8]) -> Option<(usize, u32)> {
        let mut found = None;
        self.each(bytes, text, |len, number| found = Some((len, number)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_come_shortest_first() {
        let texts: [&[u8]; 6] = [b"ab", b"a", b"", b"abc", b"b", b"ab"];
        let prefixes = Prefixes::of(0..6, |n| texts[n as usize]);
        let found = |text: &[u8]| {
            let mut all = Vec::new();
            prefixes.each(text, |n| texts[n as usize], |len, n| all.push((len, n)));
            all
        };
        assert_eq!(found(b"abcd"), [(1, 1), (2, 0), (3, 3)]);
        assert_eq!(found(b"acb"), [(1, 1)]);
        assert_eq!(found(b"c"), []);
        assert_eq!(found(b""), []);
        assert_eq!(prefixes.longest(b"abx", |n| texts[n as usize]), Some((2, 0)));
    }
}
