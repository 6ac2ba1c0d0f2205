//! Grammars in Lark's form as one regular expression, where they are regular: rules that do not come back to themselves. So
//! a text within the JSON of a call can be held to them.

use std::collections::HashMap;

/// Bytes of the expression at most: rules that are used often repeat their text.
const MAX_REGEX: usize = 16 << 10;

/// Bytes of a grammar at most.
const MAX_GRAMMAR: usize = 64 << 10;

/// Rules within rules, and groups within groups, at most.
const MAX_DEPTH: usize = 60;

/// Terminals that grammars import.
const COMMON: [(&str, &str); 12] = [
    ("LF", r"\n"),
    ("CR", r"\r"),
    ("NEWLINE", r"(?:\r?\n)+"),
    ("WS", r"[ \t\f\r\n]+"),
    ("WS_INLINE", r"[ \t]+"),
    ("DIGIT", "[0-9]"),
    ("INT", "[0-9]+"),
    ("SIGNED_INT", "[+-]?[0-9]+"),
    ("LETTER", "[A-Za-z]"),
    ("WORD", "[A-Za-z]+"),
    ("CNAME", "[A-Za-z_][A-Za-z0-9_]*"),
    ("ESCAPED_STRING", r#""(?:[^"\\\n]|\\.)*""#),
];

/// The expression that a whole text of the grammar matches; `None` where the grammar is not regular, or says something that
/// is not known here.
pub(super) fn to_regex(grammar: &str) -> Option<String> {
    if grammar.len() > MAX_GRAMMAR {
        return None;
    }
    let rules = rules(grammar)?;
    let regex = Writer { rules: &rules, depth: 0 }.rule("start")?;
    Some(regex)
}

/// From a rule's name to what it says.
fn rules(grammar: &str) -> Option<HashMap<String, String>> {
    let mut rules: HashMap<String, String> = HashMap::new();
    let mut last = String::new();
    for line in grammar.lines() {
        let text = line.trim();
        if text.is_empty() || text.starts_with("//") {
            continue;
        }
        if let Some(import) = text.strip_prefix("%import") {
            let path = import.trim().strip_prefix("common.")?;
            let (name, alias) = path.split_once("->").map_or((path.trim(), path.trim()), |(n, a)| (n.trim(), a.trim()));
            let (_, regex) = COMMON.iter().find(|(known, _)| *known == name)?;
            rules.insert(alias.to_owned(), format!("/{}/", regex.replace('/', r"\/")));
        } else if text.starts_with('%') {
            // What is passed over between tokens, and the like.
            return None;
        } else if text.starts_with('|') || line.starts_with([' ', '\t']) {
            let body = rules.get_mut(&last)?;
            body.push(' ');
            body.push_str(text);
        } else {
            let (name, body) = text.split_once(':')?;
            let name = name.trim().trim_start_matches(['?', '!']).split('.').next()?.trim();
            last = name.to_owned();
            rules.insert(last.clone(), body.trim().to_owned());
        }
    }
    Some(rules)
}

/// Writes rules as expressions, those that they use in their places.
struct Writer<'a> {
    rules: &'a HashMap<String, String>,
    depth: usize,
}

impl Writer<'_> {
    fn rule(&mut self, name: &str) -> Option<String> {
        let rules = self.rules;
        let body = rules.get(name)?;
        // A rule that comes back to itself goes deeper for ever.
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let mut rest = body.as_str();
        let regex = self.choice(&mut rest)?;
        self.depth -= 1;
        rest.trim().is_empty().then_some(regex)
    }

    /// Alternatives, up to the end or a closing bracket.
    fn choice(&mut self, rest: &mut &str) -> Option<String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let (mut all, mut one) = (Vec::new(), String::new());
        loop {
            *rest = rest.trim_start();
            match rest.chars().next() {
                None | Some(')' | ']') => break,
                Some('|') => {
                    *rest = &rest[1..];
                    all.push(std::mem::take(&mut one));
                }
                Some('-') if rest.starts_with("->") => {
                    // What a tree would call this one.
                    *rest = rest[2..].trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
                }
                Some(_) => {
                    let item = self.item(rest)?;
                    one.push_str(&repeated(item, rest)?);
                }
            }
            if one.len() > MAX_REGEX {
                return None;
            }
        }
        self.depth -= 1;
        all.push(one);
        let regex = if all.len() == 1 { all.pop()? } else { format!("(?:{})", all.join("|")) };
        (regex.len() <= MAX_REGEX).then_some(regex)
    }

    fn item(&mut self, rest: &mut &str) -> Option<String> {
        let first = rest.chars().next()?;
        match first {
            '(' | '[' => {
                *rest = &rest[1..];
                let inner = self.choice(rest)?;
                *rest = rest.strip_prefix(if first == '(' { ')' } else { ']' })?;
                Some(if first == '(' { format!("(?:{inner})") } else { format!("(?:{inner})?") })
            }
            '"' => {
                let low = string(rest)?;
                let Some(after) = rest.strip_prefix("..") else { return Some(format!("(?:{})", escaped(&low))) };
                *rest = after;
                let high = string(rest)?;
                let one = |text: &str| Some(text.chars().next()?).filter(|c| text.len() == c.len_utf8());
                Some(format!("[{}-{}]", escaped(&one(&low)?.to_string()), escaped(&one(&high)?.to_string())))
            }
            '/' => pattern(rest),
            c if c.is_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                let name = &rest[..end];
                *rest = &rest[end..];
                Some(format!("(?:{})", self.rule(name)?))
            }
            _ => None,
        }
    }
}

/// An item with what stands behind it: `?`, `*`, `+`, `~2`, `~2..5`.
fn repeated(item: String, rest: &mut &str) -> Option<String> {
    if let Some(sign) = rest.chars().next().filter(|c| "?*+".contains(*c)) {
        *rest = &rest[1..];
        return Some(format!("(?:{item}){sign}"));
    }
    let Some(after) = rest.trim_start().strip_prefix('~') else { return Some(item) };
    let number = |text: &mut &str| -> Option<u32> {
        *text = text.trim_start();
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let n = text[..end].parse().ok().filter(|n| *n <= 1000);
        *text = &text[end..];
        n
    };
    *rest = after;
    let least = number(rest)?;
    let most = match rest.trim_start().strip_prefix("..") {
        Some(after) => {
            *rest = after;
            number(rest)?
        }
        None => least,
    };
    Some(format!("(?:{item}){{{least},{most}}}"))
}

/// A text in quotes.
fn string(rest: &mut &str) -> Option<String> {
    let (mut out, mut chars) = (String::new(), rest.char_indices().skip(1));
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                *rest = &rest[at + 1..];
                // `i` behind it: in any case, which an expression cannot say of a part.
                return (!rest.starts_with('i')).then_some(out);
            }
            '\\' => out.push(match chars.next()?.1 {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                c @ ('"' | '\\' | '/') => c,
                _ => return None,
            }),
            c => out.push(c),
        }
    }
    None
}

/// An expression between slashes, with its flags.
fn pattern(rest: &mut &str) -> Option<String> {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while *bytes.get(at)? != b'/' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    let inner = rest.get(1..at)?.replace(r"\/", "/");
    let flags = &rest[at + 1..];
    let end = flags.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(flags.len());
    let (flags, after) = flags.split_at(end);
    *rest = after;
    let known = flags.chars().all(|c| "ims".contains(c));
    known.then(|| if flags.is_empty() { format!("(?:{inner})") } else { format!("(?{flags}:{inner})") })
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str(r"\n"),
            '\r' => out.push_str(r"\r"),
            '\t' => out.push_str(r"\t"),
            c => {
                if r"\.+*?()|[]{}^$-/".contains(c) {
                    out.push('\\');
                }
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = r#"
start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?

hunk: add_hunk | delete_hunk
add_hunk: "*** Add File: " filename LF add_line+
delete_hunk: "*** Delete File: " filename LF

filename: /(.+)/
add_line: "+" /(.*)/ LF -> line

%import common.LF
"#;

    #[test]
    fn grammars_of_patches_and_the_like_are_regular() {
        let patch = to_regex(PATCH).unwrap_or_default();
        assert!(
            patch.contains(r"\*\*\* Begin Patch") && patch.contains(r"(?:(.+))") && patch.contains(r"\n"),
            "{patch}"
        );
        for (grammar, want) in [
            ("start: /(.|\\n)+/", r"(?:(.|\n)+)"),
            ("start: \"a\" | \"b\"", "(?:(?:a)|(?:b))"),
            ("start: A~2..3 [\"x.\"]\nA: \"0\"..\"9\"", r"(?:(?:[0-9])){2,3}(?:(?:x\.))?"),
            ("?start: (\"a\" B)*\nB.2: /\\//i", "(?:(?:(?:a)(?:(?i:/))))*"),
        ] {
            assert_eq!(to_regex(grammar).as_deref(), Some(want), "{grammar}");
        }
    }

    #[test]
    fn what_is_not_regular_or_not_known_is_nothing() {
        let deep = format!("start: {}\"a\"{}", "(".repeat(100), ")".repeat(100));
        let mut wide = String::from("start: a0 a0\n");
        for i in 0..40 {
            wide += &format!("a{i}: a{} a{}\n", i + 1, i + 1);
        }
        wide += "a40: \"x\"\n";
        for grammar in [
            "start: \"(\" start \")\" | \"x\"",
            "start: a\na: start",
            "start: missing",
            "start: \"a",
            "start: (\"a\"",
            "start: \"a\")",
            "start: /a",
            "start: \"a\"i",
            "%ignore WS\nstart: \"a\"",
            "%import other.X\nstart: X",
            "",
            deep.as_str(),
            wide.as_str(),
        ] {
            assert_eq!(to_regex(grammar), None, "{grammar}");
        }
    }
}
