//! [`Tokenizer`]: the one type others use: built from a file's metadata, encodes, decodes and knows the special tokens.

use std::borrow::Cow;

use super::bpe::{Bpe, char_byte};
use super::decode::Decoder;
use super::plamo2::Plamo2;
use super::pre;
use super::rwkv::Rwkv;
use super::special::{Finder, Roles};
use super::spm::{SPACE_MARK, Spm};
use super::unigram::Unigram;
use super::vocab::{Kinds, Vocab};
use super::wordpiece::WordPiece;
use crate::error::{Error, Result};
use crate::meta::{Meta, shown};

/// Symbols count bytes in 32 bits (and a space may become three): a longer text is cut here, wherever that is.
const LONGEST: usize = 1 << 30;

/// A model's tokenizer. Immutable and shareable; holds the file's bytes of its vocabulary, not a copy.
#[derive(Debug)]
pub struct Tokenizer {
    vocab: Vocab,
    rules: Rules,
    roles: Roles,
    model: String,
    pre: Option<String>,
    /// Tokens found in any text, and those found where special tokens are parsed.
    always: Finder,
    parsed: Finder,
    /// Those that mark up prompts, and those of `always` that do not.
    markup: Finder,
    beside: Finder,
    strips: Strips,
    adds: Adds,
}

#[derive(Debug)]
enum Rules {
    Spm(Spm),
    Bpe(Bpe),
    WordPiece(WordPiece),
    Unigram(Unigram),
    Rwkv(Rwkv),
    Plamo2(Plamo2),
}

/// What is put around a text.
#[derive(Debug)]
struct Adds {
    bos: bool,
    eos: bool,
    separator: bool,
    space: bool,
}

/// Special tokens that swallow the white space beside them. Files do not carry this: it goes by the model's name.
#[derive(Debug, Default)]
struct Strips {
    left: Option<u32>,
    /// Whether all special tokens but these do so on their right.
    right_but: Option<[Option<u32>; 3]>,
}

/// Kinds that are supported: `tokenizer.ggml.model`.
const KINDS: [&str; 7] = ["llama", "gpt2", "gemma4", "bert", "t5", "rwkv", "plamo2"];

/// The kind of a file's tokenizer.
fn kind(meta: &Meta) -> Result<&str> {
    let why = match meta.opt_str("tokenizer.ggml.model")? {
        Some(kind) if KINDS.contains(&kind) => return Ok(kind),
        // What llama.cpp writes for none.
        None | Some("" | "none" | "no_vocab") => "the file has no tokenizer".to_owned(),
        Some(kind) => {
            format!("the tokenizer {} is not supported ({} are)", shown(kind.as_bytes()), KINDS.join(", "))
        }
    };
    Err(Error::unsupported(format!(
        "{why}, so this model takes token ids and no text: `ir logits --ids`, `ir check` and `ir bench` run it"
    )))
}

impl Tokenizer {
    /// Whether a file has a tokenizer of a kind that is supported, without the time that building it takes.
    ///
    /// # Errors
    /// What [`Tokenizer::from_meta`] says of a file without one, or with one of another kind.
    pub fn expect_known(meta: &Meta) -> Result<()> {
        kind(meta).map(|_| ())
    }

    /// Reads the tokenizer of a file. `pre` overrides the file's `tokenizer.ggml.pre`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for tokenizers and pre-tokenizers that are not known, [`Error::Format`] for damaged ones.
    pub fn from_meta(meta: &Meta, pre: Option<&str>) -> Result<Tokenizer> {
        let model = kind(meta)?.to_owned();
        let mut vocab = Vocab::read(meta)?;
        let roles = Roles::read(meta, &mut vocab, &model)?;
        let pre = pre.or(meta.opt_str("tokenizer.ggml.pre")?).map(str::to_owned);
        let rules = match model.as_str() {
            "llama" => Rules::Spm(Spm::read(meta, &vocab, roles.unknown)?),
            "bert" => Rules::WordPiece(WordPiece::read(meta, &vocab, roles.unknown)?),
            "t5" => Rules::Unigram(Unigram::read(meta, &vocab, roles.unknown)?),
            "rwkv" => Rules::Rwkv(Rwkv::read(&vocab, roles.unknown)),
            "plamo2" => Rules::Plamo2(Plamo2::read(meta, &vocab, roles.unknown)?),
            "gemma4" => Rules::Bpe(Bpe::read(meta, &vocab, &pre::GEMMA4, false)?),
            _ => {
                let rules = pre::by_name(pre.as_deref().unwrap_or("default"))?;
                Rules::Bpe(Bpe::read(meta, &vocab, rules, !rules.escapes)?)
            }
        };
        let adds = Adds::read(meta, &rules)?;
        let strips = Strips::of(meta, &vocab, pre.as_deref())?;
        let always = Finder::of(&vocab, Kinds::USER, Some(Kinds::SPECIAL));
        let parsed = Finder::of(&vocab, Kinds::USER.or(Kinds::SPECIAL), None);
        let markup = Finder::of(&vocab, Kinds::MARKUP, None);
        let beside = Finder::of(&vocab, Kinds::USER, Some(Kinds::SPECIAL.or(Kinds::MARKUP)));
        Ok(Tokenizer { vocab, rules, roles, model, pre, always, parsed, markup, beside, strips, adds })
    }

    /// The ids of a text. `add_special` puts BOS, EOS or separators around it as the model wants;
    /// `parse_special` turns the texts of control tokens into those tokens (user-defined tokens always are).
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<u32> {
        let finder = if parse_special { &self.parsed } else { &self.always };
        let mut out = Vec::new();
        if add_special && self.add_bos() {
            out.extend(self.roles.bos);
        }
        self.parts(text, |at| finder.find(&self.vocab, text, at), &mut out);
        if add_special {
            out.extend(self.ends());
        }
        out
    }

    /// The ids of a prompt, special tokens parsed, but for those that mark up prompts and would hold a character that
    /// starts at one of `guards` (bytes of `text`, ascending): there is a message's text and no markup.
    pub fn encode_guarded(&self, text: &str, guards: &[usize]) -> Vec<u32> {
        if guards.is_empty() {
            return self.encode(text, false, true);
        }
        let mut out = Vec::new();
        let find = |at| self.parsed.find_beside(&self.beside, &self.vocab, text, at, guards);
        self.parts(text, find, &mut out);
        out
    }

    /// Where in a text a token that marks up prompts is spelled out, with its id, or (`None`) may be begun by the text's end.
    pub(crate) fn spelled_markup(&self, text: &str) -> Vec<(usize, Option<u32>)> {
        self.markup.spelled(&self.vocab, text)
    }

    /// The signs that tokens which mark up prompts begin with.
    pub(crate) fn markup_signs(&self) -> Vec<char> {
        self.markup.first_signs(&self.vocab)
    }

    /// Appends the ids of a text in which `find` tells the next special token from a place on.
    fn parts(&self, text: &str, find: impl Fn(usize) -> Option<(usize, usize, u32)>, out: &mut Vec<u32>) {
        let (mut at, mut after_special) = (0, true);
        while let Some((start, end, id)) = find(at) {
            let mut before = &text[at..start];
            if self.strips.left == Some(id) {
                before = trim_end(before);
            }
            self.plain(before, after_special, out);
            out.push(id);
            after_special = true;
            at = if self.strips.right(id) { text.len() - trim_start(&text[end..]).len() } else { end };
        }
        self.plain(&text[at..], after_special, out);
    }

    /// Appends the ids of a text without special tokens.
    fn plain(&self, text: &str, after_special: bool, out: &mut Vec<u32>) {
        let cut = (0..=text.len().min(LONGEST)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (text, rest) = text.split_at(cut);
        if text.is_empty() {
            return;
        }
        match &self.rules {
            Rules::Spm(spm) => spm.encode(&self.vocab, text, self.adds.space && after_special, out),
            Rules::Bpe(bpe) => bpe.encode(&self.vocab, text, out),
            Rules::WordPiece(pieces) => pieces.encode(&self.vocab, text, out),
            Rules::Unigram(unigram) => unigram.encode(&self.vocab, text, self.adds.space && after_special, out),
            Rules::Rwkv(rwkv) => rwkv.encode(text, out),
            Rules::Plamo2(plamo2) => plamo2.encode(&self.vocab, text, out),
        }
        self.plain(rest, false, out);
    }

    /// The text of ids, with control tokens written out where `special`. Bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32], special: bool) -> String {
        let mut decoder = Decoder::at_start(special);
        let mut text: String = ids.iter().map(|id| decoder.push(self, *id)).collect();
        text.push_str(&decoder.finish());
        text
    }

    /// The bytes that an id writes; a part of a character perhaps. Empty for ids out of range.
    pub fn token_bytes(&self, id: u32) -> Cow<'_, [u8]> {
        let (text, kinds) = (self.vocab.text(id), self.vocab.kinds(id));
        if kinds.any(Kinds::SPECIAL.or(Kinds::USER)) {
            return Cow::Borrowed(text);
        }
        if kinds.any(Kinds::BYTE) {
            let hex = text.strip_prefix(b"<0x").and_then(|t| t.strip_suffix(b">")).filter(|t| t.len() == 2);
            let byte = hex.and_then(|t| std::str::from_utf8(t).ok()).and_then(|t| u8::from_str_radix(t, 16).ok());
            return byte.map_or(Cow::Borrowed(text), |b| Cow::Owned(vec![b]));
        }
        if let Rules::Rwkv(rwkv) = &self.rules {
            return Cow::Borrowed(rwkv.token(id));
        }
        let Ok(text) = std::str::from_utf8(text) else { return Cow::Borrowed(text) };
        if matches!(&self.rules, Rules::Bpe(bpe) if bpe.byte_level) {
            let mut bytes = Vec::with_capacity(text.len());
            for c in text.chars() {
                match char_byte(c) {
                    Some(byte) => bytes.push(byte),
                    None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            return Cow::Owned(bytes);
        }
        if text.contains(SPACE_MARK) {
            return Cow::Owned(text.replace(SPACE_MARK, " ").into_bytes());
        }
        Cow::Borrowed(text.as_bytes())
    }

    /// An id's text as the vocabulary spells it, for showing. Empty for ids out of range.
    pub fn piece(&self, id: u32) -> Cow<'_, str> {
        String::from_utf8_lossy(self.vocab.text(id))
    }

    /// The id of a token as the vocabulary spells it.
    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.vocab.id(text.as_bytes())
    }

    /// Number of tokens.
    pub fn n_vocab(&self) -> u32 {
        self.vocab.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }

    /// The token that ends a turn.
    pub fn eot(&self) -> Option<u32> {
        self.roles.eot
    }

    /// The token that ends a message which expects a tool's answer.
    pub fn eom(&self) -> Option<u32> {
        self.roles.eom
    }

    /// The token for what has none.
    pub fn unknown(&self) -> Option<u32> {
        self.roles.unknown
    }

    /// The token between segments.
    pub fn separator(&self) -> Option<u32> {
        self.roles.separator
    }

    /// The token that fills up.
    pub fn padding(&self) -> Option<u32> {
        self.roles.padding
    }

    /// All tokens that end a generation, ascending.
    pub fn eog(&self) -> &[u32] {
        &self.roles.eog
    }

    /// Whether a token ends a generation.
    pub fn is_eog(&self, id: u32) -> bool {
        self.roles.eog.binary_search(&id).is_ok()
    }

    /// Whether a token stands for no text (control tokens and the unknown token).
    pub fn is_control(&self, id: u32) -> bool {
        self.vocab.kinds(id).any(Kinds::SPECIAL)
    }

    /// Whether a token is found in any text, as one that users defined.
    pub fn is_user(&self, id: u32) -> bool {
        self.vocab.kinds(id).any(Kinds::USER)
    }

    /// Whether BOS is put before a text.
    pub fn add_bos(&self) -> bool {
        self.adds.bos && self.roles.bos.is_some()
    }

    /// Whether EOS is put behind a text.
    pub fn add_eos(&self) -> bool {
        self.adds.eos && self.roles.eos.is_some()
    }

    /// Whether a separator is put behind a text, or, if EOS is put there too, between two texts.
    pub fn add_separator(&self) -> bool {
        self.adds.separator && self.roles.separator.is_some()
    }

    /// The token that is put behind a text.
    pub fn ends(&self) -> Option<u32> {
        let eos = self.roles.eos.filter(|_| self.adds.eos);
        eos.or(self.roles.separator.filter(|_| self.adds.separator))
    }

    /// Puts the token that ends a text behind ids that do not end in it, if the model wants one.
    pub fn close(&self, ids: &mut Vec<u32>) {
        if ids.last().copied() != self.ends() {
            ids.extend(self.ends());
        }
    }

    /// Whether a space is put before a text and behind special tokens.
    pub fn add_space_prefix(&self) -> bool {
        self.adds.space
    }

    /// The tokenizer's kind: `tokenizer.ggml.model`.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The pre-tokenizer's name, where one was given or the file has one. Byte-level files without one are cut by
    /// `default`, which may be worse than what the model was trained with.
    pub fn pre(&self) -> Option<&str> {
        self.pre.as_deref()
    }

    /// The names that `pre` in [`Tokenizer::from_meta`] may have.
    pub fn known_pre() -> impl Iterator<Item = &'static str> {
        pre::known()
    }
}

impl Adds {
    fn read(meta: &Meta, rules: &Rules) -> Result<Adds> {
        let key = |name: &str| meta.opt_bool(&format!("tokenizer.ggml.{name}"));
        let (bos, separator, space) = match rules {
            Rules::Spm(_) => (true, false, true),
            Rules::Bpe(bpe) => (bpe.pre.add_bos, bpe.pre.add_sep, false),
            Rules::WordPiece(_) => (true, true, false),
            Rules::Unigram(_) => (false, false, true),
            Rules::Rwkv(_) | Rules::Plamo2(_) => (false, false, false),
        };
        // gemma4 files say "no BOS" by mistake.
        let always = matches!(rules, Rules::Bpe(bpe) if std::ptr::eq(bpe.pre, &pre::GEMMA4));
        Ok(Adds {
            bos: key("add_bos_token")?.unwrap_or(bos) || always,
            eos: key("add_eos_token")?.unwrap_or(matches!(rules, Rules::Unigram(_))),
            separator: key("add_sep_token")?.unwrap_or(separator),
            space: matches!(rules, Rules::Spm(_) | Rules::Unigram(_)) && key("add_space_prefix")?.unwrap_or(space),
        })
    }
}

impl Strips {
    fn of(meta: &Meta, vocab: &Vocab, pre: Option<&str>) -> Result<Strips> {
        let id = |text: &str| vocab.id(text.as_bytes());
        let name = meta.get("general.name").and_then(|v| v.as_str()).unwrap_or("").to_ascii_lowercase();
        let arch = meta.get("general.architecture").and_then(|v| v.as_str()).unwrap_or("");
        let masked = pre.is_some_and(|p| ["jina-v2-de", "jina-v2-es", "jina-v2-code"].contains(&p))
            || arch == "nomic-bert-moe"
            || arch == "jina-bert-v3";
        Ok(if masked {
            Strips { left: id("<mask>"), right_but: None }
        } else if name.contains("phi-3") || name.contains("phi3") {
            Strips { left: None, right_but: Some([id("<unk>"), id("<s>"), id("<|endoftext|>")]) }
        } else if name.contains("modern-bert") {
            Strips { left: id("[MASK]"), right_but: None }
        } else {
            Strips::default()
        })
    }

    fn right(&self, id: u32) -> bool {
        self.right_but.is_some_and(|but| !but.contains(&Some(id)))
    }
}

/// C's `isspace`.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

fn trim_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}
