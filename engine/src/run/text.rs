//! [`TextStream`]: pieces of tokens in, text out that is final: whole characters, nothing of a stop string.

use std::cmp::Reverse;

/// A stream of text with stop strings.
#[derive(Debug)]
pub(crate) struct TextStream {
    stops: Vec<String>,
    /// Bytes that are not sent: the start of a stop string perhaps, or of a character.
    held: Vec<u8>,
}

impl TextStream {
    /// A stream that ends before the first of `stops`.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: Vec::new() }
    }

    /// Adds a piece. Returns the text that became final, and the number of the stop string that ended the stream, if one
    /// did: the one that starts first, and of those the longest.
    pub(crate) fn push(&mut self, piece: &[u8]) -> (String, Option<usize>) {
        let before = self.held.len();
        self.held.extend_from_slice(piece);
        // What was held has been searched already: a match ends in the new bytes.
        let start = |stop: &String| {
            let from = (before + 1).saturating_sub(stop.len());
            find(self.held.get(from..)?, stop.as_bytes()).map(|at| from + at)
        };
        let found = self.stops.iter().enumerate().filter_map(|(i, stop)| Some((start(stop)?, i)));
        if let Some((at, i)) = found.min_by_key(|(at, i)| (*at, Reverse(self.stops[*i].len()))) {
            self.held.truncate(at);
            return (self.flush(), Some(i));
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop.as_bytes())).max().unwrap_or(0);
        let keep = keep.max(unfinished(&self.held));
        let rest = self.held.split_off(self.held.len() - keep);
        (lossy(std::mem::replace(&mut self.held, rest)), None)
    }

    /// What is held, now that nothing follows.
    pub(crate) fn flush(&mut self) -> String {
        lossy(std::mem::take(&mut self.held))
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|w| w == what)
}

/// Length of the longest proper start of `stop` that `text` ends with.
fn overlap(text: &[u8], stop: &[u8]) -> usize {
    (1..stop.len().min(text.len() + 1)).rev().find(|n| text.ends_with(&stop[..*n])).unwrap_or(0)
}

/// Bytes of an unfinished character at the end of `text`: 0 to 3.
fn unfinished(text: &[u8]) -> usize {
    let tail = &text[text.len().saturating_sub(3)..];
    let Some(back) = tail.iter().rev().position(|b| b & 0xC0 != 0x80) else { return 0 };
    let from = text.len() - back - 1;
    // The standard library knows which starts can still become a character.
    match std::str::from_utf8(&text[from..]) {
        Err(e) if e.valid_up_to() == 0 && e.error_len().is_none() => text.len() - from,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let mut stream = TextStream::new(stops.iter().map(|s| (*s).to_string()).collect());
        let mut out = Vec::new();
        for piece in pieces {
            let (text, stopped) = stream.push(piece);
            out.push(text);
            if stopped.is_some() {
                return (out, true);
            }
        }
        out.push(stream.flush());
        (out, false)
    }

    #[test]
    fn stop_strings_over_token_boundaries() {
        assert_eq!(run(&["END"], &[b"a E", b"N", b"D x"]), (vec!["a ".into(), "".into(), "".into()], true));
        assert_eq!(
            run(&["END"], &[b"a E", b"N", b"x"]),
            (vec!["a ".into(), "".into(), "ENx".into(), "".into()], false)
        );
        assert_eq!(run(&["aab"], &[b"aaa", b"b"]), (vec!["a".into(), "".into()], true));
        assert_eq!(run(&["b", "abc"], &[b"xabc"]).0, ["x"], "the earliest start wins");
        assert_eq!(run(&["\n\n"], &[b"x\n", b"\n"]), (vec!["x".into(), "".into()], true));
    }

    #[test]
    fn the_stop_string_that_ended_it_is_named() {
        let ended = |stops: &[&str], piece: &str| {
            TextStream::new(stops.iter().map(|s| (*s).to_string()).collect()).push(piece.as_bytes()).1
        };
        assert_eq!(ended(&["c", "b"], "xbc"), Some(1), "the earliest start");
        assert_eq!(ended(&["ab", "abc", "b"], "xabc"), Some(1), "then the longest");
        assert_eq!((ended(&["c"], "ab"), ended(&[], "ab")), (None, None));
    }

    #[test]
    fn characters_stay_whole() {
        let e = "é".as_bytes();
        assert_eq!(run(&[], &[&e[..1], &e[1..]]).0, ["", "é", ""]);
        let crab = "🦀".as_bytes();
        assert_eq!(run(&[], &[&crab[..1], &crab[1..3], &crab[3..]]).0, ["", "", "🦀", ""]);
        assert_eq!(run(&[], &[b"\xff", b"a\xc3"]).0, ["\u{fffd}", "a", "\u{fffd}"], "bytes that are no character");
        assert_eq!(run(&[], &[b"\x80\x80\x80"]).0, ["\u{fffd}\u{fffd}\u{fffd}", ""]);
    }

    /// Random pieces against the plain rule: after each token the whole text is searched from the start.
    #[test]
    fn equals_a_search_of_the_whole_text() {
        let mut state = 7u64;
        let mut next = move |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        };
        let mut n_stopped = 0;
        for _ in 0..20_000 {
            let word = |next: &mut dyn FnMut(usize) -> usize, max: usize| {
                (0..1 + next(max)).map(|_| ["a", "b", "é", "🦀"][next(4)]).collect::<String>()
            };
            let stops: Vec<String> = (0..next(3)).map(|_| word(&mut next, 4)).collect();
            let text = word(&mut next, 16).into_bytes();
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut rest = text.as_slice();
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(1 + next(rest.len().min(5)));
                pieces.push(piece);
                rest = more;
            }
            let mut whole = Vec::new();
            let mut expected = None;
            for piece in &pieces {
                whole.extend_from_slice(piece);
                let first = stops.iter().filter_map(|s| find(&whole, s.as_bytes())).min();
                if let Some(at) = first {
                    expected = Some(String::from_utf8(whole[..at].to_vec()).unwrap());
                    break;
                }
            }
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (out, stopped) = run(&stops, &pieces);
            n_stopped += usize::from(stopped);
            assert_eq!(stopped, expected.is_some());
            assert_eq!(out.concat(), expected.unwrap_or(String::from_utf8(text).unwrap()));
        }
        assert!(n_stopped > 5_000, "{n_stopped}");
    }
}
