//! Where terminals would take too much: what a terminal could go on with may also be what follows it, and a lexer always
//! goes on. Such parts are written apart, down to single characters, whose sequence the parser finds out by itself.

use super::{Item, Repeat, Rules, Sequence, is_known, regular};

/// Rounds of marking at most, and passes over the rules for one set of sets. Beyond them a terminal may take too much:
/// then texts are lost, and none is gained.
const MAX_ROUNDS: usize = 40;
const MAX_PASSES: usize = 40;

/// Marks what has to stand apart; gives which rules are terminals.
pub(super) fn mark(rules: &mut Rules) -> Vec<bool> {
    let mut barred = vec![false; rules.len()];
    let mut known = regular(rules, &barred);
    for _ in 0..MAX_ROUNDS {
        let sets = Sets::of(rules, &known);
        let mut found = false;
        // A rule that is a terminal is looked at where it is used.
        for (rule, body) in rules.iter_mut().enumerate().filter(|(i, _)| !known[*i]) {
            let behind = sets.behind[rule];
            body.iter_mut().for_each(|sequence| found |= sets.part(sequence, behind, &known, &mut barred));
        }
        if !found {
            break;
        }
        known = regular(rules, &barred);
    }
    known
}

/// A set of characters, as those of a few classes: bits for ASCII, one for all others.
type Chars = u128;

/// Stands for every character above ASCII, and for DEL.
const OTHERS: Chars = 1 << 127;

fn range(first: char, last: char) -> Chars {
    let bit = |c: char| u32::from(c).min(127);
    (Chars::MAX >> (127 - bit(last))) & (Chars::MAX << bit(first))
}

/// What is known of the texts of an item, a sequence or a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Texts {
    /// Their first characters.
    first: Chars,
    /// All their characters.
    all: Chars,
    /// Whether one is empty.
    empty: bool,
    /// What a text that could end may go on with.
    more: Chars,
}

impl Texts {
    const NONE: Texts = Texts { first: 0, all: 0, empty: false, more: 0 };
    const EMPTY: Texts = Texts { empty: true, ..Texts::NONE };

    /// Of one character.
    fn character(of: Chars) -> Texts {
        Texts { first: of, all: of, ..Texts::NONE }
    }

    /// What may come in front of whatever begins with `behind`.
    fn before(&self, behind: Chars) -> Chars {
        if self.empty { self.first | behind } else { self.first }
    }
}

/// The texts of every rule, and what may follow it.
struct Sets {
    rules: Vec<Texts>,
    behind: Vec<Chars>,
}

impl Sets {
    fn of(rules: &Rules, known: &[bool]) -> Sets {
        let mut sets = Sets { rules: vec![Texts::NONE; rules.len()], behind: vec![0; rules.len()] };
        let settled = (0..MAX_PASSES).any(|pass| !sets.grow(rules, pass));
        if !settled || !(0..MAX_PASSES).any(|pass| !sets.follow(rules, known, pass)) {
            sets.behind.fill(Chars::MAX);
        }
        sets
    }

    /// Lets what is known of every rule grow by what is known of the others; says whether any did.
    fn grow(&mut self, rules: &Rules, pass: usize) -> bool {
        let before = self.rules.clone();
        for i in order(rules.len(), pass) {
            self.rules[i] = self.choice(&rules[i]);
        }
        self.rules != before
    }

    /// The same of what may stand behind a rule, from the rules that are no terminals.
    fn follow(&mut self, rules: &Rules, known: &[bool], pass: usize) -> bool {
        let before = self.behind.clone();
        for i in order(rules.len(), pass).filter(|i| !known[*i]) {
            let behind = self.behind[i];
            rules[i].iter().for_each(|sequence| self.follow_in(sequence, behind));
        }
        self.behind != before
    }

    fn follow_in(&mut self, sequence: &[Repeat], mut behind: Chars) {
        for repeat in sequence.iter().rev() {
            let texts = self.repeat(repeat);
            let inner = if repeat.max == Some(1) { behind } else { behind | texts.first };
            match &repeat.item {
                Item::Rule(rule) => self.behind[*rule] |= inner,
                Item::Group(all) => all.iter().for_each(|sequence| self.follow_in(sequence, inner)),
                _ => {}
            }
            behind = texts.before(behind);
        }
    }

    fn choice(&self, alternatives: &[Sequence]) -> Texts {
        let mut sum = Texts::NONE;
        for sequence in alternatives {
            let texts = self.sequence(sequence);
            // Alternatives that begin alike may be one another's beginnings.
            sum.more |= texts.more | if sum.first & texts.first == 0 { 0 } else { sum.all | texts.all };
            sum.first |= texts.first;
            sum.all |= texts.all;
            sum.empty |= texts.empty;
        }
        sum.more |= if sum.empty { sum.first } else { 0 };
        sum
    }

    fn sequence(&self, sequence: &[Repeat]) -> Texts {
        let mut sum = Texts::EMPTY;
        for repeat in sequence.iter().rev() {
            let texts = self.repeat(repeat);
            // While all behind it may be empty, the text could have ended here.
            sum.more |= if sum.empty { texts.more } else { 0 };
            sum.first = texts.before(sum.first);
            sum.all |= texts.all;
            sum.empty &= texts.empty;
        }
        sum
    }

    fn repeat(&self, repeat: &Repeat) -> Texts {
        let class = |ranges: &[(char, char)]| ranges.iter().fold(0, |all, r| all | range(r.0, r.1));
        let mut texts = match &repeat.item {
            Item::Text(text) => {
                let first = text.chars().next().map_or(0, |c| range(c, c));
                let all = text.chars().fold(0, |all, c| all | range(c, c));
                Texts { first, all, empty: text.is_empty(), more: 0 }
            }
            Item::Class { ranges, negated: false } => Texts::character(class(ranges)),
            Item::Class { ranges, negated: true } => Texts::character(!class(ranges) | OTHERS),
            Item::Any => Texts::character(Chars::MAX),
            Item::Rule(rule) => self.rules[*rule],
            Item::Group(all) => self.choice(all),
            // A token of its own is no text.
            Item::Token(_) => Texts::NONE,
        };
        texts.empty |= repeat.min == 0;
        texts.more |= if texts.empty || repeat.max != Some(1) { texts.first } else { 0 };
        texts
    }

    /// Marks in a sequence what has to stand apart, given what is behind it; says whether anything was.
    fn part(&self, sequence: &mut [Repeat], mut behind: Chars, known: &[bool], barred: &mut [bool]) -> bool {
        // What follows the run of terminals' parts, and whether it could end here.
        let (mut run, mut ends) = (behind, true);
        let mut found = false;
        for repeat in sequence.iter_mut().rev() {
            let texts = self.repeat(repeat);
            let inner = if repeat.max == Some(1) { behind } else { behind | texts.first };
            if is_known(repeat, known) {
                if ends && texts.more & run != 0 {
                    (repeat.apart, found) = (true, true);
                }
                ends &= texts.empty;
                behind = texts.before(behind);
                continue;
            }
            match &mut repeat.item {
                Item::Rule(rule) if known[*rule] && self.rules[*rule].more & inner != 0 => {
                    (barred[*rule], found) = (true, true);
                }
                Item::Group(all) => all.iter_mut().for_each(|s| found |= self.part(s, inner, known, barred)),
                _ => {}
            }
            behind = texts.before(behind);
            (run, ends) = (behind, true);
        }
        found
    }
}

/// Forwards and backwards in turn: chains of rules settle in two passes.
fn order(n: usize, pass: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |i| if pass.is_multiple_of(2) { n - 1 - i } else { i })
}
