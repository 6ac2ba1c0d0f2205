//! Tokens with a meaning of their own: BOS, EOS and the like by metadata key or well-known text, the set that ends a
//! generation, and how special tokens are found in a text.

use super::vocab::{Kinds, Vocab};
use crate::error::Result;
use crate::meta::Meta;

/// Ids by role, each where the model has one.
#[derive(Debug, Default, Clone)]
pub(super) struct Roles {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) eot: Option<u32>,
    pub(super) eom: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) separator: Option<u32>,
    pub(super) padding: Option<u32>,
    /// What ends a generation, ascending.
    pub(super) eog: Vec<u32>,
}

/// Texts that end a turn, where no key names the token.
const END_OF_TURN: [&str; 11] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];

/// Texts that end a generation in whatever model they occur.
const END_OF_GENERATION: [&str; 21] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Fill-in-the-middle tokens that a continuation ends at: padding, the next repository, the next file.
const FILL_PADDING: [&str; 5] = ["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"];
const FILL_REPOSITORY: [&str; 5] = ["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"];
const FILL_FILE: [&str; 1] = ["<|file_sep|>"];

/// Harmony's markers, which are always parsed and always shown.
const ALWAYS_SHOWN: [&str; 4] = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

impl Roles {
    /// Reads the keys and looks for well-known texts. Tokens found by their text become control tokens in `vocab`.
    /// A key with an id out of range counts as absent.
    pub(super) fn read(meta: &Meta, vocab: &mut Vocab, model: &str) -> Result<Roles> {
        let n = vocab.len();
        let key = |name: &str| -> Result<Option<u32>> {
            Ok(meta.opt_u32(&format!("tokenizer.ggml.{name}_token_id"))?.filter(|id| *id < n))
        };
        let preset = |id: u32, of: &str| (model == of && id < n).then_some(id);
        let mut roles = Roles {
            bos: key("bos")?.or(key("cls")?).or(preset(1, "llama")).or(preset(101, "bert")),
            eos: key("eos")?.or(preset(2, "llama")).or(preset(1, "t5")),
            eot: key("eot")?,
            eom: key("eom")?,
            unknown: key("unknown")?.or(preset(0, "llama")).or(preset(100, "bert")).or(preset(2, "t5")),
            // The misspelling is the format's.
            separator: key("seperator")?.or(preset(102, "bert")),
            padding: key("padding")?.or(preset(0, "t5")),
            eog: Vec::new(),
        };
        let control = |vocab: &mut Vocab, texts: &[&str]| {
            let id = texts.iter().find_map(|t| vocab.id(t.as_bytes()))?;
            vocab.set_kinds(id, vocab.kinds(id).or(Kinds::CONTROL));
            Some(id)
        };
        roles.eot = roles.eot.or_else(|| control(vocab, &END_OF_TURN));
        roles.eom = roles.eom.or_else(|| control(vocab, &["<|eom_id|>"]));
        let fills = [("fim_pad", &FILL_PADDING[..]), ("fim_rep", &FILL_REPOSITORY), ("fim_sep", &FILL_FILE)];
        for (name, texts) in fills {
            let id = key(name)?.or_else(|| control(vocab, texts));
            roles.eog.extend(id);
        }
        roles.eog.extend(END_OF_GENERATION.iter().filter_map(|t| control(vocab, &[t])));
        // Where it is an ordinary token (Qwen's, gemma4's), `</s>` is a piece of HTML.
        let closing = vocab.id(b"</s>").filter(|id| !vocab.kinds(*id).any(Kinds::NORMAL));
        roles.eog.extend(closing.and_then(|_| control(vocab, &["</s>"])));
        roles.eog.extend([roles.eos, roles.eot, roles.eom].into_iter().flatten());
        // Folders say in their generation_config.json what else ends a generation.
        let more = meta.opt_array("tokenizer.ggml.eog_token_ids")?;
        let more = more.iter().flat_map(|ids| ids.iter()).filter_map(|id| u32::try_from(id.as_u64()?).ok());
        roles.eog.extend(more.filter(|id| *id < n).take(64));
        let shown = ALWAYS_SHOWN.iter().filter_map(|t| vocab.id(t.as_bytes())).collect::<Vec<_>>();
        shown.iter().for_each(|id| vocab.set_kinds(*id, Kinds::USER));
        roles.except(vocab);
        (0..n).filter(|id| is_markup(vocab, *id)).collect::<Vec<_>>().into_iter().for_each(|id| {
            vocab.set_kinds(id, vocab.kinds(id).or(Kinds::MARKUP));
        });
        roles.eog.sort_unstable();
        roles.eog.dedup();
        Ok(roles)
    }

    /// Harmony and Solar use `<|end|>`, which elsewhere ends a turn, within theirs.
    fn except(&mut self, vocab: &mut Vocab) {
        let has = |text: &str| vocab.id(text.as_bytes()).is_some_and(|id| self.eog.contains(&id));
        let within = (has("<|call|>") || has("<|calls|>")) && (has("<|return|>") || has("<|flush|>"));
        if let Some(id) = vocab.id(b"<|end|>").filter(|_| within) {
            self.eog.retain(|e| *e != id);
            vocab.set_kinds(id, Kinds::USER);
        }
    }
}

/// Whether a token marks up prompts: control tokens, and tokens of users that are spelled like ones (in Harmony's
/// vocabulary, and where a converter did not tell them apart).
fn is_markup(vocab: &Vocab, id: u32) -> bool {
    let Ok(text) = std::str::from_utf8(vocab.text(id)) else { return false };
    let (kinds, mut chars) = (vocab.kinds(id), text.chars());
    let bars = [("<|", "|>"), ("<｜", "｜>")];
    let spelled = bars.iter().any(|(open, close)| text.starts_with(open) && text.ends_with(close));
    let words = chars.next().is_some_and(|c| !c.is_whitespace()) && chars.next().is_some();
    words && (kinds.any(Kinds::SPECIAL) || (kinds.any(Kinds::USER) && spelled))
}

/// Special tokens longer than this are not looked for in texts, so that looking stays linear.
const LONGEST: usize = 256;

/// The tokens to be found in texts before anything else, sorted by text.
#[derive(Debug)]
pub(super) struct Finder {
    ids: Vec<u32>,
    /// Where in `ids` the texts start with each byte.
    first: Vec<u32>,
}

impl Finder {
    /// A finder of the tokens of these kinds but not those.
    pub(super) fn of(vocab: &Vocab, kinds: Kinds, except: Option<Kinds>) -> Finder {
        let wanted = |id: &u32| {
            let of = vocab.kinds(*id);
            of.any(kinds) && !except.is_some_and(|e| of.any(e)) && {
                let text = vocab.text(*id);
                !text.is_empty() && text.len() <= LONGEST && std::str::from_utf8(text).is_ok()
            }
        };
        let mut ids: Vec<u32> = (0..vocab.len()).filter(wanted).collect();
        ids.sort_by(|a, b| vocab.text(*a).cmp(vocab.text(*b)));
        let first = (0..=256).map(|b| ids.partition_point(|id| usize::from(vocab.text(*id)[0]) < b) as u32).collect();
        Finder { ids, first }
    }

    /// The first special token in `text` from byte `from` on: where it starts and ends, and its id. Of several that
    /// start there, the longest.
    pub(super) fn find(&self, vocab: &Vocab, text: &str, from: usize) -> Option<(usize, usize, u32)> {
        if self.ids.is_empty() {
            return None;
        }
        let bytes = text.as_bytes();
        let candidates = (from..bytes.len()).filter(|at| self.starts(bytes[*at]));
        candidates.filter_map(|at| self.longest_at(vocab, &bytes[at..]).0.map(|(len, id)| (at, at + len, id))).next()
    }

    /// The same with places in `text`, ascending, that no token of this finder may hold; tokens of `other` may.
    pub(super) fn find_beside(
        &self,
        other: &Finder,
        vocab: &Vocab,
        text: &str,
        from: usize,
        guards: &[usize],
    ) -> Option<(usize, usize, u32)> {
        let bytes = text.as_bytes();
        let mut next = guards.partition_point(|guard| *guard < from);
        for at in from..bytes.len() {
            next += usize::from(guards.get(next).is_some_and(|guard| *guard < at));
            let end = guards.get(next).map_or(bytes.len(), |guard| (*guard).min(bytes.len()));
            let of = |finder: &Finder, end: usize| {
                let there = end > at && finder.starts(bytes[at]);
                if there { finder.longest_at(vocab, &bytes[at..end]).0 } else { None }
            };
            let longest = [of(self, end), of(other, bytes.len())].into_iter().flatten().max_by_key(|found| found.0);
            if let Some((len, id)) = longest {
                return Some((at, at + len, id));
            }
        }
        None
    }

    /// Where in a text a token is spelled out, with its id, or (`None`) one may be begun by the text's end.
    pub(super) fn spelled(&self, vocab: &Vocab, text: &str) -> Vec<(usize, Option<u32>)> {
        let bytes = text.as_bytes();
        let starts = (0..bytes.len()).filter(|at| self.starts(bytes[*at]));
        let found = starts.filter_map(|at| match self.longest_at(vocab, &bytes[at..]) {
            (Some((_, id)), _) => Some((at, Some(id))),
            (None, true) => Some((at, None)),
            _ => None,
        });
        found.collect()
    }

    /// The characters that tokens begin with, but for letters and digits.
    pub(super) fn first_signs(&self, vocab: &Vocab) -> Vec<char> {
        let first =
            |id: &u32| std::str::from_utf8(vocab.text(*id)).ok()?.chars().next().filter(|c| !c.is_alphanumeric());
        let mut signs: Vec<char> = self.ids.iter().filter_map(first).collect();
        signs.dedup();
        signs
    }

    fn starts(&self, byte: u8) -> bool {
        self.first[usize::from(byte)] < self.first[usize::from(byte) + 1]
    }

    /// The longest token that the bytes start with, and whether they end within a longer one: narrows the sorted range
    /// byte by byte.
    fn longest_at(&self, vocab: &Vocab, bytes: &[u8]) -> (Option<(usize, u32)>, bool) {
        let b = usize::from(bytes[0]);
        let mut range = &self.ids[self.first[b] as usize..self.first[b + 1] as usize];
        let mut found = None;
        for depth in 1..=LONGEST {
            let Some(id) = range.first() else { break };
            if vocab.text(*id).len() == depth {
                found = Some((depth, *id));
            }
            let longer = range.last().is_some_and(|id| vocab.text(*id).len() > depth);
            let Some(next) = bytes.get(depth) else { return (found, longer) };
            let byte_at = |id: &u32| vocab.text(*id).get(depth).copied();
            let low = range.partition_point(|id| byte_at(id) < Some(*next));
            let high = range.partition_point(|id| byte_at(id) <= Some(*next));
            range = &range[low..high];
        }
        (found, false)
    }
}
