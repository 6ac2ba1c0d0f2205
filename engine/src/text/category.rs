//! Unicode general categories, as coarse as tokenizers need them, and base characters for accent stripping.
//! The tables are generated (`category_table.rs`); this file only looks things up.

use std::sync::OnceLock;

use super::category_table::{BASES, RANGES};

/// A set of character classes: bit `n` stands for class `n` of the generated table.
pub(super) type Set = u16;

/// Uppercase letters (Lu).
pub(super) const UPPER: Set = 1 << 1;
/// Lowercase letters (Ll).
pub(super) const LOWER: Set = 1 << 2;
/// Titlecase letters (Lt).
pub(super) const TITLE: Set = 1 << 3;
/// Modifier letters and letters without case (Lm, Lo).
pub(super) const CASELESS: Set = 1 << 4 | 1 << 5;
/// Nonspacing marks (Mn).
pub(super) const NONSPACING: Set = 1 << 6;
/// Marks: nonspacing, spacing and enclosing (M).
pub(super) const MARK: Set = NONSPACING | 1 << 7;
/// Letters (L).
pub(super) const LETTER: Set = UPPER | LOWER | TITLE | CASELESS;
/// Numbers (N).
pub(super) const NUMBER: Set = 1 << 8;
/// Punctuation (P).
pub(super) const PUNCTUATION: Set = 1 << 9;
/// Symbols (S).
pub(super) const SYMBOL: Set = 1 << 10;
/// White space (the White_Space property: separators and U+0009 to U+000D, U+0085).
pub(super) const SPACE: Set = 1 << 11;
/// Control and format characters and private use, other than white space.
pub(super) const CONTROL: Set = 1 << 12;

/// Below this, classes lie in a flat table; above it only a few planes are assigned at all.
const FLAT: usize = 0x33480;

fn flat() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = vec![0; FLAT];
        let ends = RANGES.iter().skip(1).map(|r| (r >> 4) as usize).chain([FLAT]);
        for (range, end) in RANGES.iter().zip(ends) {
            let start = ((range >> 4) as usize).min(FLAT);
            table[start..end.min(FLAT)].fill((range & 15) as u8);
        }
        table
    })
}

/// The class of a character, as the set that holds only it.
pub(super) fn class(c: char) -> Set {
    let c = c as u32;
    match flat().get(c as usize) {
        Some(class) => 1 << class,
        None => {
            let after = RANGES.partition_point(|r| r >> 4 <= c);
            1 << (RANGES[after - 1] & 15)
        }
    }
}

/// What canonical decomposition (NFD) without nonspacing marks leaves of a character, where it is one character.
/// Hangul syllables become their jamo.
pub(super) fn without_accents(c: char, mut emit: impl FnMut(char)) {
    let code = c as u32;
    if let Some(index) = code.checked_sub(0xAC00).filter(|i| *i < 11_172) {
        let jamo = [0x1100 + index / 588, 0x1161 + index % 588 / 28, 0x11A7 + index % 28];
        let last = if index % 28 == 0 { 2 } else { 3 };
        return jamo[..last].iter().filter_map(|j| char::from_u32(*j)).for_each(emit);
    }
    let base = BASES.binary_search_by_key(&code, |pair| pair.0).ok().and_then(|i| char::from_u32(BASES[i].1));
    let c = base.unwrap_or(c);
    if class(c) & NONSPACING == 0 {
        emit(c);
    }
}

/// The character at byte `at` of a text, its class and its length in bytes; `('\0', 0, 0)` at the end.
#[inline]
pub(super) fn peek(text: &str, at: usize) -> (char, Set, usize) {
    static ASCII: [u8; 128] = ascii();
    match text.as_bytes().get(at) {
        None => ('\0', 0, 0),
        Some(byte) if *byte < 128 => (*byte as char, 1 << ASCII[*byte as usize], 1),
        Some(_) => match text.get(at..).and_then(|rest| rest.chars().next()) {
            Some(c) => (c, class(c), c.len_utf8()),
            None => ('\0', 0, 0),
        },
    }
}

const fn ascii() -> [u8; 128] {
    let mut table = [0; 128];
    let mut range = 0;
    let mut code = 0;
    while code < 128 {
        while RANGES[range + 1] >> 4 <= code as u32 {
            range += 1;
        }
        table[code] = (RANGES[range] & 15) as u8;
        code += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_equal_regex_syntax() {
        let pairs = [
            (r"\p{Lu}", UPPER),
            (r"\p{Ll}", LOWER),
            (r"\p{Lt}", TITLE),
            (r"[\p{Lm}\p{Lo}]", CASELESS),
            (r"\p{L}", LETTER),
            (r"\p{Mn}", NONSPACING),
            (r"\p{M}", MARK),
            (r"\p{N}", NUMBER),
            (r"\p{P}", PUNCTUATION),
            (r"\p{S}", SYMBOL),
            (r"\s", SPACE),
            (r"[\p{Cc}\p{Cf}\p{Co}--\s]", CONTROL),
        ];
        for (pattern, set) in pairs {
            let hir = regex_syntax::parse(pattern).unwrap();
            let regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class_of)) = hir.kind() else {
                panic!("{pattern} is no class")
            };
            let mut theirs = vec![false; 0x11_0000];
            for range in class_of.ranges() {
                theirs[range.start() as usize..=range.end() as usize].fill(true);
            }
            for c in '\0'..=char::MAX {
                assert_eq!(class(c) & set != 0, theirs[c as usize], "{pattern} U+{:04X}", c as u32);
            }
        }
    }

    #[test]
    fn accents_fall_off() {
        let strip = |text: &str| {
            let mut out = String::new();
            text.chars().for_each(|c| without_accents(c, |c| out.push(c)));
            out
        };
        assert_eq!(
            strip("Ấ éñ 가각 e\u{301} 한 ﬁ"),
            "A en \u{1100}\u{1161}\u{1100}\u{1161}\u{11A8} e \u{1112}\u{1161}\u{11AB} ﬁ"
        );
    }

    #[test]
    fn peek_reads_ascii_and_beyond() {
        for c in ('\0'..=char::MAX).step_by(37).chain('\0'..='\u{ff}') {
            assert_eq!(peek(&c.to_string(), 0), (c, class(c), c.len_utf8()));
        }
        assert_eq!(peek("é", 2), ('\0', 0, 0));
    }
}
