//! Which pre-tokenizer a name (`tokenizer.ggml.pre`) stands for: its stages and what else the name decides.
//! The names are those that llama.cpp's converter writes; the scanners are in `split.rs`.

use super::category::{LETTER, PUNCTUATION};
use super::split::{Case, Stage, Words};
use crate::error::{Error, Result};

/// A pre-tokenizer's rules.
#[derive(Debug)]
pub(super) struct Pre {
    /// How text is cut into the pieces that merges run within.
    pub(super) stages: &'static [Stage],
    /// A piece that is a token as a whole is taken so, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Whether BOS is added where the file does not say.
    pub(super) add_bos: bool,
    /// Whether EOS (as separator) is added where the file does not say.
    pub(super) add_sep: bool,
    /// Whether tokens spell characters, with `▁` for a space, and not bytes.
    pub(super) escapes: bool,
    /// The names.
    names: &'static [&'static str],
}

const WORDS: Words = Words {
    contractions: true,
    marks: false,
    case: Case::Ignored,
    numbers: 3,
    tail: "\r\n",
    tail_once: false,
    phrases: false,
    han: false,
    powers: false,
};
static LLAMA3: Words = WORDS;
static QWEN2: Words = Words { numbers: 1, ..WORDS };
static QWEN35: Words = Words { numbers: 1, marks: true, ..WORDS };
static SEED_CODER: Words = Words { numbers: 1, tail: "", ..WORDS };
static UFAKZEKA: Words = Words { numbers: 1, contractions: false, ..WORDS };
static MINICPM5: Words = Words { numbers: usize::MAX, ..WORDS };
static TEKKEN: Words = Words { contractions: false, case: Case::Parts, numbers: 1, tail: "\r\n/", ..WORDS };
static JAIS2: Words = Words { powers: true, ..WORDS };
static EXAONE_MOE: Words = Words { numbers: 1, phrases: true, tail: "\r\n/", tail_once: true, ..WORDS };
static YOUTU: Words = Words { numbers: 1, ..GPT4O_WORDS };
static KIMI: Words = Words { tail: "\r\n", han: true, ..GPT4O_WORDS };
const GPT4O_WORDS: Words = Words { contractions: false, case: Case::PartsWithContraction, tail: "\r\n/", ..WORDS };

static GPT4O: Words = GPT4O_WORDS;

const PLAIN: Pre =
    Pre { stages: &[], ignore_merges: false, add_bos: false, add_sep: false, escapes: false, names: &[] };

/// All pre-tokenizers by name.
static TABLE: &[Pre] = &[
    Pre {
        stages: &[Stage::Punctuation(false), Stage::Gpt2, Stage::Numbers(usize::MAX), Stage::ThreeDigits],
        names: &["default"],
        ..PLAIN
    },
    Pre {
        stages: &[Stage::Words(&LLAMA3)],
        ignore_merges: true,
        add_bos: true,
        names: &[
            "llama3",
            "llama-v3",
            "llama-bpe",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        ..PLAIN
    },
    Pre { stages: &[Stage::Words(&LLAMA3)], names: &["dbrx", "smaug-bpe", "chatglm-bpe"], ..PLAIN },
    Pre { stages: &[Stage::Words(&LLAMA3)], ignore_merges: true, names: &["glm4", "glm5"], ..PLAIN },
    Pre {
        stages: &[Stage::Words(&QWEN2)],
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
            "bailingmoe",
            "bailingmoe2",
            "llada-moe",
        ],
        ..PLAIN
    },
    Pre { stages: &[Stage::Words(&QWEN35)], names: &["qwen35"], ..PLAIN },
    Pre { stages: &[Stage::Words(&SEED_CODER)], names: &["seed-coder"], ..PLAIN },
    Pre { stages: &[Stage::Words(&UFAKZEKA)], names: &["ufakzeka"], ..PLAIN },
    Pre { stages: &[Stage::Lines, Stage::Words(&QWEN2)], names: &["laguna"], ..PLAIN },
    Pre { stages: &[Stage::Numbers(3), Stage::Words(&MINICPM5)], ignore_merges: true, names: &["minicpm5"], ..PLAIN },
    Pre { stages: &[Stage::Words(&TEKKEN)], ignore_merges: true, add_bos: true, names: &["tekken"], ..PLAIN },
    Pre { stages: &[Stage::Words(&GPT4O)], names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], ..PLAIN },
    Pre { stages: &[Stage::Words(&GPT4O)], ignore_merges: true, names: &["granite-embed-multi-97m"], ..PLAIN },
    Pre {
        stages: &[
            Stage::OneNewline,
            Stage::SpacedRanges(&DEEPSEEK_LETTERS),
            Stage::SpacedRanges(&DEEPSEEK_MARKS),
            Stage::SpaceAtEnd,
            Stage::Ranges(&DEEPSEEK_CJK),
            Stage::Numbers(usize::MAX),
        ],
        names: &["deepseek-llm"],
        ..PLAIN
    },
    Pre {
        stages: &[
            Stage::OneNewline,
            Stage::SpacedRun(LETTER),
            Stage::SpacedRun(PUNCTUATION),
            Stage::Ranges(&DEEPSEEK_CJK),
            Stage::Numbers(1),
        ],
        names: &["deepseek-coder"],
        ..PLAIN
    },
    Pre {
        stages: &[Stage::Numbers(3), Stage::Ranges(&CJK_AND_KANA), Stage::DeepseekWords(true)],
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        ..PLAIN
    },
    Pre {
        stages: &[Stage::Gpt2],
        names: &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "gigachat",
            "jina-v2-es",
            "jina-v2-de",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "exaone4",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
        ],
        ..PLAIN
    },
    Pre { stages: &[Stage::Gpt2], add_sep: true, names: &["jina-v1-en", "jina-v2-code", "roberta-bpe"], ..PLAIN },
    Pre {
        stages: &[Stage::Numbers(1), Stage::Gpt2],
        names: &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
        ..PLAIN
    },
    Pre { stages: &[Stage::Punctuation(true), Stage::Gpt2, Stage::ThreeDigits], names: &["falcon"], ..PLAIN },
    Pre { stages: &[Stage::Bloom], names: &["poro-chat", "bloom", "gpt3-finnish"], ..PLAIN },
    Pre { stages: &[Stage::Bloom, Stage::Numbers(1)], names: &["viking"], ..PLAIN },
    Pre { stages: &[Stage::Words(&JAIS2)], names: &["jais-2"], ..PLAIN },
    Pre { stages: &[Stage::Words(&EXAONE_MOE)], names: &["exaone-moe"], ..PLAIN },
    Pre {
        stages: &[
            Stage::Ranges(&HANGUL),
            Stage::Ranges(&WIDE_MARKS),
            Stage::Ranges(&BOPOMOFO),
            Stage::Ranges(&CJK_AND_KANA),
            Stage::Words(&YOUTU),
        ],
        ignore_merges: true,
        names: &["youtu"],
        ..PLAIN
    },
    Pre { stages: &[Stage::Words(&KIMI)], names: &["kimi-k2"], ..PLAIN },
    Pre { stages: &[Stage::Threes(true), Stage::Words(&GPT4O)], names: &["tiny_aya", "cohere2moe"], ..PLAIN },
    Pre { stages: &[Stage::Threes(false)], names: &["superbpe"], ..PLAIN },
    Pre {
        stages: &[Stage::Threes(false), Stage::Ranges(&AFMOE_SCRIPTS), Stage::DeepseekWords(true)],
        names: &["afmoe"],
        ..PLAIN
    },
    Pre {
        stages: &[Stage::Numbers(3), Stage::Ranges(&CJK_AND_KANA), Stage::DeepseekWords(false), Stage::Numbers(1)],
        names: &["spark2_5"],
        ..PLAIN
    },
    Pre {
        stages: &[
            Stage::Sentinel,
            Stage::Image,
            Stage::TabsAndPairs,
            Stage::Numbers(1),
            Stage::OnePunctuation,
            Stage::Gpt2,
        ],
        add_bos: true,
        names: &["chameleon"],
        ..PLAIN
    },
    Pre {
        stages: &[Stage::Lines],
        escapes: true,
        names: &["gemma4", "granite-embed-multi-311m", "sarvam-moe"],
        ..PLAIN
    },
];

/// The rules of the `gemma4` tokenizer: merges run within lines, and BOS is always added.
pub(super) static GEMMA4: Pre = Pre { stages: &[Stage::Lines], add_bos: true, escapes: true, ..PLAIN };

/// The pre-tokenizer of this name.
///
/// # Errors
/// [`Error::Unsupported`] with the known names where it is none of them.
pub(super) fn by_name(name: &str) -> Result<&'static Pre> {
    let found = TABLE.iter().find(|pre| pre.names.contains(&name));
    found.ok_or_else(|| {
        let name: String = name.chars().take(64).collect();
        Error::unsupported(format!(
            "the pre-tokenizer {name:?} is not known: choose the one with the same rules by --tokenizer-pre NAME ({})",
            known().collect::<Vec<_>>().join(", ")
        ))
    })
}

/// All known names.
pub(super) fn known() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|pre| pre.names.iter().copied())
}

/// DeepSeek's letters with case: `[A-Za-zµÀ-Ö...]` of its `tokenizer.json`.
#[rustfmt::skip]
static DEEPSEEK_LETTERS: [(char, char); 87] = [
    ('A', 'Z'), ('a', 'z'), ('\u{b5}', '\u{b5}'), ('\u{c0}', '\u{d6}'), ('\u{d8}', '\u{f6}'), ('\u{f8}', '\u{1ba}'),
    ('\u{1bc}', '\u{1bf}'), ('\u{1c4}', '\u{293}'), ('\u{295}', '\u{2af}'), ('\u{370}', '\u{373}'),
    ('\u{376}', '\u{376}'), ('\u{377}', '\u{377}'), ('\u{37b}', '\u{37d}'), ('\u{37f}', '\u{37f}'),
    ('\u{386}', '\u{386}'), ('\u{388}', '\u{38a}'), ('\u{38c}', '\u{38c}'), ('\u{38e}', '\u{3a1}'),
    ('\u{3a3}', '\u{3f5}'), ('\u{3f7}', '\u{481}'), ('\u{48a}', '\u{52f}'), ('\u{531}', '\u{556}'),
    ('\u{10a0}', '\u{10c5}'), ('\u{13a0}', '\u{13f5}'), ('\u{13f8}', '\u{13fd}'), ('\u{1c90}', '\u{1cba}'),
    ('\u{1cbd}', '\u{1cbf}'), ('\u{1d00}', '\u{1d2b}'), ('\u{1d6b}', '\u{1d77}'), ('\u{1d79}', '\u{1d9a}'),
    ('\u{1e00}', '\u{1f15}'), ('\u{1f18}', '\u{1f1d}'), ('\u{1f20}', '\u{1f45}'), ('\u{1f48}', '\u{1f4d}'),
    ('\u{1f50}', '\u{1f57}'), ('\u{1f59}', '\u{1f59}'), ('\u{1f5b}', '\u{1f5b}'), ('\u{1f5d}', '\u{1f5d}'),
    ('\u{1f5f}', '\u{1f7d}'), ('\u{1f80}', '\u{1fb4}'), ('\u{1fb6}', '\u{1fbc}'), ('\u{1fbe}', '\u{1fbe}'),
    ('\u{1fc2}', '\u{1fc4}'), ('\u{1fc6}', '\u{1fcc}'), ('\u{1fd0}', '\u{1fd3}'), ('\u{1fd6}', '\u{1fdb}'),
    ('\u{1fe0}', '\u{1fec}'), ('\u{1ff2}', '\u{1ff4}'), ('\u{1ff6}', '\u{1ffc}'), ('\u{2102}', '\u{2102}'),
    ('\u{2107}', '\u{2107}'), ('\u{210a}', '\u{2113}'), ('\u{2115}', '\u{2115}'), ('\u{2119}', '\u{211d}'),
    ('\u{2124}', '\u{2124}'), ('\u{2126}', '\u{2126}'), ('\u{2128}', '\u{2128}'), ('\u{212a}', '\u{212d}'),
    ('\u{212f}', '\u{2134}'), ('\u{2139}', '\u{2139}'), ('\u{213c}', '\u{213f}'), ('\u{2145}', '\u{2149}'),
    ('\u{214e}', '\u{214e}'), ('\u{2183}', '\u{2183}'), ('\u{2184}', '\u{2184}'), ('\u{2c00}', '\u{2c7b}'),
    ('\u{2c7e}', '\u{2ce4}'), ('\u{2ceb}', '\u{2cee}'), ('\u{2cf2}', '\u{2cf2}'), ('\u{2cf3}', '\u{2cf3}'),
    ('\u{a640}', '\u{a66d}'), ('\u{a680}', '\u{a69b}'), ('\u{a722}', '\u{a76f}'), ('\u{a771}', '\u{a787}'),
    ('\u{a78b}', '\u{a78e}'), ('\u{ab70}', '\u{abbf}'), ('\u{fb00}', '\u{fb06}'), ('\u{fb13}', '\u{fb17}'),
    ('\u{ff21}', '\u{ff3a}'), ('\u{ff41}', '\u{ff5a}'), ('\u{10400}', '\u{1044f}'), ('\u{104b0}', '\u{104d3}'),
    ('\u{104d8}', '\u{104fb}'), ('\u{10c80}', '\u{10cb2}'), ('\u{10cc0}', '\u{10cf2}'), ('\u{118a0}', '\u{118df}'),
    ('\u{1e900}', '\u{1e943}'),
];

/// DeepSeek's punctuation: `[!-/:-~！-／：-～‘-‟　-。]`.
#[rustfmt::skip]
static DEEPSEEK_MARKS: [(char, char); 6] = [
    ('!', '/'), (':', '~'), ('\u{2018}', '\u{201f}'), ('\u{3000}', '\u{3002}'), ('\u{ff01}', '\u{ff0f}'),
    ('\u{ff1a}', '\u{ff5e}'),
];

/// DeepSeek's letters without case: `[一-龥ࠀ-一가-퟿]`.
static DEEPSEEK_CJK: [(char, char); 2] = [('\u{800}', '\u{9fa5}'), ('\u{ac00}', '\u{d7ff}')];

/// `[가-힣ㄱ-ㆎ]`
static HANGUL: [(char, char); 2] = [('\u{3131}', '\u{318e}'), ('\u{ac00}', '\u{d7a3}')];

/// `[！…“”‘’—：；，、-〿︰-﹏]`
#[rustfmt::skip]
static WIDE_MARKS: [(char, char); 9] = [
    ('\u{2014}', '\u{2014}'), ('\u{2018}', '\u{2019}'), ('\u{201c}', '\u{201d}'), ('\u{2026}', '\u{2026}'),
    ('\u{3001}', '\u{303f}'), ('\u{fe30}', '\u{fe4f}'), ('\u{ff01}', '\u{ff01}'), ('\u{ff0c}', '\u{ff0c}'),
    ('\u{ff1a}', '\u{ff1b}'),
];

/// `[ㄅ-ㄯ]`
static BOPOMOFO: [(char, char); 1] = [('\u{3105}', '\u{312f}')];

/// `[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]`
#[rustfmt::skip]
static AFMOE_SCRIPTS: [(char, char); 14] = [
    ('\u{e40}', '\u{e7f}'), ('\u{e80}', '\u{eff}'), ('\u{1000}', '\u{109f}'), ('\u{1100}', '\u{11ff}'),
    ('\u{1780}', '\u{17ff}'), ('\u{2f00}', '\u{2fdf}'), ('\u{3040}', '\u{30ff}'), ('\u{3400}', '\u{4dbf}'),
    ('\u{4e00}', '\u{9fff}'), ('\u{a9e0}', '\u{a9ff}'), ('\u{aa60}', '\u{aa7f}'), ('\u{ac00}', '\u{d7af}'),
    ('\u{f900}', '\u{faff}'), ('\u{ff65}', '\u{ff9f}'),
];

/// Han, Hiragana and Katakana: `[一-龥぀-ゟ゠-ヿ]`.
static CJK_AND_KANA: [(char, char); 2] = [('\u{3040}', '\u{30ff}'), ('\u{4e00}', '\u{9fa5}')];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_an_unknown_one_is_named() {
        let mut names: Vec<_> = known().collect();
        let n = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n);
        let message = by_name("my-own").unwrap_err().to_string();
        assert!(
            message.contains("my-own") && message.contains("--tokenizer-pre") && message.contains("qwen2"),
            "{message}"
        );
    }
}
