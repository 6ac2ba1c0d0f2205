//! Random walks over tokens that a constraint allows.

use std::sync::OnceLock;

use ir_engine::file::ModelFile;
use ir_engine::meta::MetaBuilder;
use ir_engine::model::{Model, ModelOptions};
use ir_engine::text::Tokenizer;
use ir_engine::text::constrain::{Constrainer, Constraint, Grammar, Vocabulary};

use crate::common::exam::Random;
use crate::common::shared;

/// Tags that end values of plain text.
const ENDS_OF_VALUES: [&str; 5] =
    ["\n</parameter>", "</param>", "</parameter>", "</arg_value>", "</arg_value:opensource>"];

/// A vocabulary and its constrainer.
pub(crate) struct Words {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) constrainer: Constrainer,
    /// Tokens by their first byte, to walk with a purpose; control tokens by none.
    by_first: Vec<Vec<u32>>,
    controls: Vec<u32>,
}

impl Words {
    pub(crate) fn of(tokenizer: Tokenizer) -> Words {
        let constrainer = Constrainer::new(&Vocabulary::of(&tokenizer)).unwrap();
        let mut by_first = vec![Vec::new(); 256];
        for id in (0..tokenizer.n_vocab()).filter(|id| !tokenizer.is_control(*id)) {
            if let Some(first) = tokenizer.token_bytes(id).first() {
                by_first[usize::from(*first)].push(id);
            }
        }
        let controls =
            (0..tokenizer.n_vocab()).filter(|id| tokenizer.is_control(*id) && !tokenizer.is_eog(*id)).collect();
        Words { tokenizer, constrainer, by_first, controls }
    }

    pub(crate) fn compile(&self, grammar: &Grammar) -> Constraint {
        self.constrainer.compile(grammar).unwrap_or_else(|e| panic!("{grammar:?}: {e}"))
    }

    /// Whether a grammar allows a text token by token, and to end behind it.
    pub(crate) fn accepts(&self, grammar: &Grammar, text: &str) -> bool {
        let mut constraint = self.compile(grammar);
        for token in self.tokenizer.encode(text, false, true) {
            if constraint.is_done() || !allows(constraint.allowed().unwrap(), token) {
                return false;
            }
            constraint.accept(token).unwrap();
        }
        constraint.is_complete().unwrap()
    }

    /// A text that the grammar allows: random tokens at first, later those that bring it to an end.
    pub(crate) fn walk(&self, mut constraint: Constraint, favoured: &[u8], random: &mut Random) -> Vec<u8> {
        let mut text = Vec::new();
        for step in 0.. {
            assert!(step < 3000, "no end: {}", String::from_utf8_lossy(&text));
            if constraint.is_done() {
                break;
            }
            let allowed = constraint.allowed().unwrap().to_vec();
            let ends = self.tokenizer.eog().iter().any(|id| allows(&allowed, *id));
            let hurry = random.below(400) < step;
            if ends && (hurry || random.below(6) == 0) {
                break;
            }
            if hurry && step % 16 == 0 {
                // Where the text is free, the tag that ends it.
                for tag in ENDS_OF_VALUES {
                    let mut with = constraint.clone();
                    let fits = |token: u32, with: &mut Constraint| {
                        !with.is_done() && allows(with.allowed().unwrap(), token) && with.accept(token).is_ok()
                    };
                    let mut tokens = self.tokenizer.encode(tag, false, false).into_iter();
                    if self.is_free(&mut constraint) && tokens.all(|t| fits(t, &mut with)) && !self.is_free(&mut with) {
                        text.extend_from_slice(tag.as_bytes());
                        constraint = with;
                        break;
                    }
                }
                continue;
            }
            let token =
                if hurry { self.closing(&allowed, step, random) } else { self.some(favoured, &allowed, random) };
            let token = token.unwrap_or_else(|| any(&allowed, random));
            if self.tokenizer.is_eog(token) {
                break;
            }
            text.extend_from_slice(&self.tokenizer.token_bytes(token));
            constraint.accept(token).unwrap();
        }
        text
    }

    /// Whether any text may follow.
    fn is_free(&self, constraint: &mut Constraint) -> bool {
        let words = &self.by_first[usize::from(b'~')];
        !constraint.is_done() && words.iter().any(|id| allows(constraint.allowed().unwrap(), *id))
    }

    /// An allowed token that brings a text to an end: what closes, the innermost first, and for a while what patterns and
    /// marks want at their end, one step after the other, since what closes is mere text in places.
    fn closing(&self, allowed: &[u32], step: usize, random: &mut Random) -> Option<u32> {
        const CLOSES: &[u8] = b"\"]})";
        const ENDS: &[u8] = b"A/0\"'x.\n,:;`<-";
        // Of controls what ends comes behind what begins.
        if let Some(control) = self.controls.iter().rev().find(|id| allows(allowed, **id)) {
            return Some(*control);
        }
        // Few ways on are not within a text: behind an item another one or the end, of which either may come.
        if allowed.iter().map(|word| word.count_ones()).sum::<u32>() <= 8 {
            let closing = if random.below(4) > 0 { self.some(CLOSES, allowed, random) } else { None };
            return closing.or_else(|| Some(any(allowed, random)));
        }
        let at = step % (2 * ENDS.len());
        let first = if at < ENDS.len() { CLOSES } else { &ENDS[at - ENDS.len()..] };
        let bytes = first.iter().chain(CLOSES).chain(ENDS);
        let alone = random.below(2) == 0;
        bytes.into_iter().find_map(|byte| {
            let single = if alone { self.alone(*byte, allowed) } else { None };
            single.or_else(|| self.some(&[*byte], allowed, random))
        })
    }

    /// The token that is this byte alone, if it is allowed.
    fn alone(&self, byte: u8, allowed: &[u32]) -> Option<u32> {
        let mut tokens = self.by_first[usize::from(byte)].iter().copied();
        tokens.find(|id| allows(allowed, *id) && self.tokenizer.token_bytes(*id).len() == 1)
    }

    /// An allowed token that begins with one of these bytes, which come in random order.
    fn some(&self, first: &[u8], allowed: &[u32], random: &mut Random) -> Option<u32> {
        let from = if first.is_empty() { return None } else { random.below(first.len()) };
        let mut bytes = first[from..].iter().chain(&first[..from]);
        bytes.find_map(|byte| {
            let tokens = &self.by_first[usize::from(*byte)];
            let from = random.below(tokens.len().max(1));
            tokens[from..].iter().chain(&tokens[..from]).find(|id| allows(allowed, **id)).copied()
        })
    }
}

pub(crate) fn allows(allowed: &[u32], token: u32) -> bool {
    allowed.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
}

fn any(allowed: &[u32], random: &mut Random) -> u32 {
    let words: Vec<usize> = (0..allowed.len()).filter(|i| allowed[*i] != 0).collect();
    let word = words[random.below(words.len())];
    let bits: Vec<u32> = (0..32).filter(|bit| allowed[word] >> bit & 1 == 1).collect();
    word as u32 * 32 + bits[random.below(bits.len())]
}

/// The built-in model's vocabulary.
pub(crate) fn tiny() -> &'static Words {
    static WORDS: OnceLock<Words> = OnceLock::new();
    WORDS.get_or_init(|| {
        let model = Model::from_bytes(ir_engine::builtin::bytes(), &ModelOptions::default()).unwrap();
        Words::of(Tokenizer::from_meta(model.meta(), None).unwrap())
    })
}

/// Llama 3's vocabulary of 128,256 tokens, where it is at hand.
pub(crate) fn llama() -> Option<&'static Words> {
    static WORDS: OnceLock<Option<Words>> = OnceLock::new();
    let open = || {
        let path = shared("tokenizers/ggml-vocab-llama-bpe.gguf")?;
        Some(Words::of(Tokenizer::from_meta(ModelFile::open(&path).unwrap().meta(), None).unwrap()))
    };
    WORDS.get_or_init(open).as_ref()
}

/// A vocabulary of the 256 bytes in their order, these texts and an end; types as in GGUF (1: normal, 3: control, 4: user).
/// Bytes are written as in GPT-2.
pub(crate) fn made(more: &[(&str, i32)]) -> Tokenizer {
    let plain = |b: &u8| matches!(b, 33..=126 | 161..=172 | 174..);
    let mut others = (256..).map(|c| char::from_u32(c).unwrap());
    let bytes = (0..=255).map(|b: u8| if plain(&b) { char::from(b) } else { others.next().unwrap() }.to_string());
    let words: Vec<String> = bytes.chain(more.iter().map(|(text, _)| (*text).to_owned())).collect();
    let words: Vec<String> = words.into_iter().chain(["</s>".to_owned()]).collect();
    let types: Vec<i32> = (0..256).map(|_| 1).chain(more.iter().map(|m| m.1)).chain([3]).collect();
    let end = words.len() as u32 - 1;
    let meta = MetaBuilder::new()
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", "gpt-2")
        .strs("tokenizer.ggml.tokens", &words.iter().map(String::as_str).collect::<Vec<_>>())
        .strs("tokenizer.ggml.merges", &[""; 0])
        .i32s("tokenizer.ggml.token_type", &types)
        .u32("tokenizer.ggml.bos_token_id", end)
        .u32("tokenizer.ggml.eos_token_id", end)
        .build();
    Tokenizer::from_meta(&meta, None).unwrap()
}
