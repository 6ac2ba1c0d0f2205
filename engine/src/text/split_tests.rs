//! Every stage against the regular expression it stands for, as `fancy-regex` reads it, on random text.

use super::*;
use crate::text::pre;

const CONTRACTION: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";
const SPACES: &str = r"\s*[\r\n]+|\s+(?!\S)|\s+";
const POWERS: &str = r"\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const DEEPSEEK_LETTERS: &str = "\\s?[\
    A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-\u{2af}\u{370}-\
    \u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\u{3a1}\u{3a3}-\u{3f5}\
    \u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}\u{13f8}-\u{13fd}\u{1c90}-\
    \u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\u{1f18}-\
    \u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}\
    -\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\
    \u{1fe0}-\u{1fec}\u{1ff2}-\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}\u{2119}-\
    \u{211d}\u{2124}\u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}\
    \u{214e}\u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\u{a640}-\u{a66d}\
    \u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}\u{ab70}-\u{abbf}\u{fb00}-\u{fb06}\
    \u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\
    \u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}\
    ]+";

/// The regular expressions of each pre-tokenizer, by one of its names.
fn patterns() -> Vec<(&'static str, Vec<String>)> {
    let s = |text: &str| text.to_owned();
    let words = |word: &str, numbers: &str, symbols: &str| {
        format!(r"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?{word}+|{numbers}| ?[^\s{symbols}]+[\r\n]*|{SPACES}")
    };
    let plain = r"\p{L}\p{N}";
    let part = |behind: &str, numbers: &str| {
        let (upper, lower) = (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]");
        let before = r"[^\r\n\p{L}\p{N}]?";
        format!(
            r"{before}{upper}*{lower}+{behind}|{before}{upper}+{lower}*{behind}|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}"
        )
    };
    let deepseek3 = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"##;
    vec![
        ("default", vec![s(r"[\p{P}\$\+<=>\^~\|]+"), s(GPT2), s(r"\p{N}+"), s("[0-9][0-9][0-9]")]),
        ("llama3", vec![words(r"\p{L}", r"\p{N}{1,3}", plain)]),
        ("qwen2", vec![words(r"\p{L}", r"\p{N}", plain)]),
        ("qwen35", vec![words(r"[\p{L}\p{M}]", r"\p{N}", r"\p{L}\p{M}\p{N}")]),
        ("seed-coder", vec![words(r"\p{L}", r"\p{N}", r"\p{L}\p{N}\r\n").replacen(r"+[\r\n]*", "+", 1)]),
        ("ufakzeka", vec![words(r"\p{L}", r"\p{N}", plain).replace(&format!("{CONTRACTION}|"), "")]),
        ("laguna", vec![s(r"[^\n]+|[\n]+"), words(r"\p{L}", r"\p{N}", plain)]),
        ("minicpm5", vec![s(r"\p{N}{1,3}"), words(r"\p{L}", r"\p{N}+", plain)]),
        ("tekken", vec![part("", r"\p{N}")]),
        ("gpt-4o", vec![part(&format!("{CONTRACTION}?"), r"\p{N}{1,3}")]),
        (
            "deepseek-llm",
            vec![
                s("[\r\n]"),
                s(DEEPSEEK_LETTERS),
                s("\\s?[!-/:-~！-／：-～‘-‟　-。]+"),
                s(r"\s+$"),
                s("[一-龥ࠀ-一가-퟿]+"),
                s(r"\p{N}+"),
            ],
        ),
        ("deepseek-coder", vec![s("[\r\n]"), s(r"\s?\p{L}+"), s(r"\s?\p{P}+"), s("[一-龥ࠀ-一가-퟿]+"), s(r"\p{N}")]),
        ("deepseek-v3", vec![s(r"\p{N}{1,3}"), s("[一-龥぀-ゟ゠-ヿ]+"), format!("{deepseek3}{SPACES}")]),
        ("jais-2", vec![words(r"\p{L}", r"\p{N}{1,3}", plain).replace(SPACES, POWERS)]),
        (
            "exaone-moe",
            vec![
                words(r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)", r"\p{N}", plain)
                    .replacen("+[\\r\\n]*|", "+[\\r\\n/]?|", 1)
                    .replace(r"\s*[\r\n]+", r"\s*[\r\n]"),
            ],
        ),
        (
            "youtu",
            vec![
                s("[가-힣ㄱ-ㆎ]+"),
                s("[！…“”‘’—：；，、-〿︰-﹏]+"),
                s("[ㄅ-ㄯ]+"),
                s("[一-龥぀-ゟ゠-ヿ]+"),
                part(&format!("{CONTRACTION}?"), r"\p{N}"),
            ],
        ),
        (
            "kimi-k2",
            vec![
                s(r"\p{Han}+|")
                    + &part(&format!("{CONTRACTION}?"), r"\p{N}{1,3}")
                        .replace(r"\p{M}]", r"\p{M}&&[^\p{Han}]]")
                        .replace(r"[\r\n/]*", r"[\r\n]*"),
            ],
        ),
        (
            "tiny_aya",
            vec![
                s(r"\p{N}{1,3}(?=(?:\p{N}{3})*(?![\p{N}\p{L}\p{M}_]))"),
                part(&format!("{CONTRACTION}?"), r"\p{N}{1,3}"),
            ],
        ),
        ("superbpe", vec![s(r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))")]),
        (
            "afmoe",
            vec![
                s(r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"),
                s(
                    "[一-鿿㐀-䶿\u{f900}-\u{faff}぀-ゟ゠-ヿ･-ﾟ⼀-\u{2fdf}เ-\u{e7f}\u{e80}-\u{eff}ក-\u{17ff}က-႟ꩠ-ꩿꧠ-\u{a9ff}가-\u{d7af}ᄀ-ᇿ]+",
                ),
                format!("{deepseek3}{SPACES}"),
            ],
        ),
        (
            "spark2_5",
            vec![
                s(r"\p{N}{1,3}"),
                s("[一-龥぀-ゟ゠-ヿ]+"),
                format!(r"{deepseek3}[\r\n]|\s+(?!\S)|\s+").replacen(r"[\p{P}\p{S}]+[\r\n]*|", r"[\p{P}\p{S}]+|", 1),
                s(r"\p{N}"),
            ],
        ),
        (
            "chameleon",
            vec![
                s("<sentinel:[0-9]+>"),
                s("IMGIMG[A-I]{1,4}Z"),
                s("[\t\n]|    |  "),
                s(r"\p{N}"),
                s(r"[\p{P}!-/:-@\[-`{-~]"),
                s(GPT2),
            ],
        ),
        ("gpt-2", vec![s(GPT2)]),
        ("starcoder", vec![s(r"\p{N}"), s(GPT2)]),
        ("falcon", vec![s(r"[\p{P}\$\+<=>\^~\|`]+"), s(GPT2), s("[0-9][0-9][0-9]")]),
        ("bloom", vec![s(r" ?[^(\s|.,!?…。，、।۔،)]+")]),
        ("viking", vec![s(r" ?[^(\s|.,!?…。，、।۔،)]+"), s(r"\p{N}")]),
    ]
}

/// Cuts pieces into matches and what lies between them, one expression after the other.
fn oracle<'a>(regexes: &[fancy_regex::Regex], text: &'a str) -> Vec<&'a str> {
    let mut pieces = vec![text];
    for regex in regexes {
        let mut cut = Vec::new();
        for piece in pieces {
            let mut at = 0;
            for found in regex.find_iter(piece) {
                let found = found.unwrap();
                cut.extend([&piece[at..found.start()], found.as_str()]);
                at = found.end();
            }
            cut.push(&piece[at..]);
        }
        pieces = cut.into_iter().filter(|piece| !piece.is_empty()).collect();
    }
    pieces
}

/// Characters near every rule: white space, marks, numbers, letters with and without case, what rules name, anything.
fn character(random: &mut impl FnMut(u32) -> u32) -> char {
    const NAMED: &str = " \u{20}\u{20}\t\r\n\n\u{b}\u{85}\u{a0}\u{2003}\u{2028}\u{3000}''''sStTrReEvVmMlLdDſaAzZbÄäǅʰªßİ中文龥ࠀ가힣ひカー\
        012389²Ⅷ½٣\u{301}\u{93e}\u{20dd}!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~…。，、।۔،！～‘€＋😀\u{200d}\u{fe0f}\0\u{7f}\u{ad}\u{e000}\u{378}\u{fffd}µΆ𐐀";
    match random(8) {
        0 => char::from_u32(random(0x11_0000)).unwrap_or('x'),
        1 => char::from_u32(random(0x3000)).unwrap_or('x'),
        2 => char::from(random(128) as u8),
        _ => NAMED.chars().nth(random(NAMED.chars().count() as u32) as usize).unwrap(),
    }
}

#[test]
fn stages_equal_their_regular_expressions() {
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut random = move |below: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 33) % u64::from(below)) as u32
    };
    let texts: Vec<String> = (0..6000)
        .map(|_| {
            let mut text = String::new();
            for _ in 0..random(12) + 1 {
                let c = character(&mut random);
                (0..[1, 1, 1, 1, 2, 3, 7][random(7) as usize]).for_each(|_| text.push(c));
            }
            text
        })
        .collect();
    for (name, patterns) in patterns() {
        let regexes: Vec<_> = patterns
            .iter()
            .map(|p| fancy_regex::Regex::new(p).unwrap_or_else(|e| panic!("{name}: {e} in {p}")))
            .collect();
        let stages = pre::by_name(name).unwrap().stages;
        assert_eq!(stages.len(), regexes.len(), "{name}");
        for text in &texts {
            let mut ours = Vec::new();
            split(stages, text, &mut |piece| ours.push(piece.to_owned()));
            assert_eq!(ours, oracle(&regexes, text), "{name} on {text:?}");
        }
    }
}
