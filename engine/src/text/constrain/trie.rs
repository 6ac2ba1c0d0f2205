//! The trie of a vocabulary, as llguidance walks it, with bounds on what a file may make of it. No grammars here.

use std::collections::HashMap;
use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

use super::compile;
use super::guard::Risks;
use super::vocabulary::{Kind, Vocabulary};
use crate::error::{Error, Result};

/// Nodes of the trie at most: it counts them in 22 bits.
const MAX_NODES: usize = 3_500_000;
/// Tokens at most: it counts them in 24 bits.
const MAX_TOKENS: usize = 1 << 23;
/// Tokens of one text that are told apart; more are never allowed, so that building stays linear.
const MAX_ALIKE: usize = 4;

/// Tokens that stand for themselves, by text: the id, and whether it is a control token, which no text matches.
pub(super) type Marks = HashMap<String, (u32, bool)>;

/// What a vocabulary comes to.
pub(super) struct Prepared {
    pub(super) factory: ParserFactory,
    pub(super) risks: Risks,
    pub(super) marks: Marks,
}

/// A vocabulary as llguidance asks for it. Texts are never tokenized: any tokens that spell a text are allowed.
struct Walked(TokTrie);

impl TokenizerEnv for Walked {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, text: &[u8]) -> Vec<u32> {
        self.0.greedy_tokenize(text)
    }

    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

/// Builds the trie.
pub(super) fn prepare(vocabulary: &Vocabulary) -> Result<Prepared> {
    let (mut words, marks) = words(vocabulary);
    let n_nodes = thin(&mut words);
    if n_nodes > MAX_NODES || words.len() > MAX_TOKENS || words.is_empty() {
        return Err(Error::unsupported(format!(
            "a vocabulary of {} tokens is too large for grammars: constrain nothing with this model",
            words.len()
        )));
    }
    let risks = Risks::of(&words);
    let eog = vocabulary.eog();
    let end = eog.first().copied().unwrap_or(llguidance::toktrie::INVALID_TOKEN);
    let mut trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
    drop(words);
    if !eog.is_empty() {
        trie = trie.with_eos_tokens(eog);
    }
    let env: TokEnv = Arc::new(Walked(trie));
    let slices = SlicedBiasComputer::general_slices();
    let mut factory =
        ParserFactory::new(&env, InferenceCapabilities::default(), &slices).map_err(|e| compile::failed(&e))?;
    factory.quiet();
    compile::limit(factory.limits_mut());
    Ok(Prepared { factory, risks, marks })
}

/// What each token writes; empty for tokens that are never allowed. Control tokens are marked, so that no text matches
/// them.
fn words(vocabulary: &Vocabulary) -> (Vec<Vec<u8>>, Marks) {
    let mut marks = Marks::new();
    let word = |(id, (bytes, kind)): (usize, (&[u8], Kind))| {
        if bytes.is_empty() || bytes[0] == TokTrie::SPECIAL_TOKEN_MARKER {
            return Vec::new();
        }
        if kind != Kind::Text {
            marks.insert(String::from_utf8_lossy(bytes).into_owned(), (id as u32, kind == Kind::Control));
        }
        if kind == Kind::Control { [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat() } else { bytes.to_vec() }
    };
    let words = vocabulary.tokens().enumerate().map(word).collect();
    (words, marks)
}

/// Empties what is spelled alike too often; counts the nodes that the others need.
fn thin(words: &mut [Vec<u8>]) -> usize {
    let mut order: Vec<u32> = (0..words.len() as u32).collect();
    order.sort_by(|a, b| words[*a as usize].cmp(&words[*b as usize]));
    let (mut n_nodes, mut alike, mut before) = (1, 0, Vec::new());
    for id in order {
        let word = &mut words[id as usize];
        alike = if *word == before { alike + 1 } else { 1 };
        if alike > MAX_ALIKE {
            word.clear();
            continue;
        }
        let common = word.iter().zip(&before).take_while(|(a, b)| a == b).count();
        n_nodes += (word.len() - common).max(1);
        before.clone_from(word);
    }
    n_nodes
}
