//! RWKV's tokenizer (`tokenizer.ggml.model` = `rwkv`): the longest token that the bytes begin with, again and again. The file
//! writes tokens as Python writes bytes: with `\n`, `\\`, `\xff`.

use super::prefixes::Prefixes;
use super::vocab::{Kinds, Vocab};

/// The tokens as bytes.
#[derive(Debug)]
pub(super) struct Rwkv {
    bytes: Vec<u8>,
    /// Where each token's bytes start, and the end of the last.
    starts: Vec<usize>,
    prefixes: Prefixes,
    unknown: Option<u32>,
}

impl Rwkv {
    /// Reads the tokens' bytes.
    pub(super) fn read(vocab: &Vocab, unknown: Option<u32>) -> Rwkv {
        let (mut bytes, mut starts) = (Vec::new(), vec![0]);
        for id in 0..vocab.len() {
            unescape(vocab.text(id), &mut bytes);
            starts.push(bytes.len());
        }
        let ids = (0..vocab.len()).filter(|id| !vocab.kinds(*id).any(Kinds::SPECIAL));
        let prefixes = Prefixes::of(ids, |id| &bytes[starts[id as usize]..starts[id as usize + 1]]);
        Rwkv { bytes, starts, prefixes, unknown }
    }

    /// A token's bytes; none for ids out of range.
    pub(super) fn token(&self, id: u32) -> &[u8] {
        match self.starts.get(id as usize..).and_then(|s| s.first_chunk()) {
            Some([start, end]) => &self.bytes[*start..*end],
            None => &[],
        }
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            match self.prefixes.longest(&bytes[at..], |id| self.token(id)) {
                Some((len, id)) => {
                    out.push(id);
                    at += len;
                }
                None => {
                    out.extend(self.unknown);
                    at += 1;
                }
            }
        }
    }
}

/// Appends the bytes that an escaped text stands for.
fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        let [escape, after @ ..] = tail else {
            out.push(*byte);
            continue;
        };
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        rest = after;
        let hex = after.first_chunk::<2>().and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
        match (*escape, hex) {
            (b'x', Some(value)) => {
                out.push(value);
                rest = &after[2..];
            }
            (b't', _) => out.push(b'\t'),
            (b'n', _) => out.push(b'\n'),
            (b'r', _) => out.push(b'\r'),
            (other, _) => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn bytes_as_python_writes_them() {
        let bytes = |text: &str| {
            let mut out = Vec::new();
            unescape(text.as_bytes(), &mut out);
            out
        };
        assert_eq!(bytes(r"a\n\t\r\\\'\xe4\xFFz"), b"a\n\t\r\\'\xe4\xffz");
        assert_eq!(bytes(r"\x4"), b"x4");
        assert_eq!(bytes("\\"), b"\\");
    }
}
