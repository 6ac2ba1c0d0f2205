//! Calls written as Python: `f(a=1, b=["x"])`. Only literals as keyword arguments; nothing is evaluated.

use serde_json::{Map, Number, Value as Json};

/// Values may nest this deep.
const MAX_DEPTH: usize = 64;

/// Finds the end of a call by its brackets, outside of strings.
#[derive(Debug, Clone)]
pub(super) struct CallEnd {
    pos: usize,
    depth: u32,
    quote: Option<u8>,
    escaped: bool,
}

impl CallEnd {
    /// A scanner that starts at `pos`, before the opening parenthesis.
    pub(super) fn new(pos: usize) -> CallEnd {
        CallEnd { pos, depth: 0, quote: None, escaped: false }
    }

    /// Reads on; gives the place behind the closing parenthesis when it has come.
    pub(super) fn end(&mut self, text: &str) -> Option<usize> {
        for byte in &text.as_bytes()[self.pos..] {
            self.pos += 1;
            match (self.quote, byte) {
                (Some(_), _) if self.escaped => self.escaped = false,
                (Some(_), b'\\') => self.escaped = true,
                (Some(quote), b) if *b == quote => self.quote = None,
                (Some(_), _) => {}
                (None, b'"' | b'\'') => self.quote = Some(*byte),
                (None, b'(' | b'[' | b'{') => self.depth += 1,
                (None, b')' | b']' | b'}') => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(self.pos);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

/// Bytes of the name at the start of a text: letters, digits, `_`, `-` and `.`, not starting with a digit.
pub(super) fn name_len(text: &str) -> usize {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if text.starts_with(|c: char| c.is_ascii_digit()) { 0 } else { text.len() - rest.len() }
}

/// Whether a tool's or a parameter's name can be written in formats without quotes around it.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && name_len(text) == text.len()
}

/// Name and arguments of a complete call.
pub(super) fn call_of(text: &str) -> Option<(String, Map<String, Json>)> {
    let mut reader = Reader { text, pos: 0 };
    let name = reader.name()?.to_owned();
    reader.take('(')?;
    let mut arguments = Map::new();
    reader.list(')', |r| {
        let key = r.name()?.to_owned();
        r.take('=')?;
        arguments.insert(key, r.value(0)?);
        Some(())
    })?;
    reader.space();
    (reader.pos == text.len()).then_some((name, arguments))
}

/// The value of a literal.
pub(super) fn value_of(text: &str) -> Option<Json> {
    let mut reader = Reader { text, pos: 0 };
    let value = reader.value(0)?;
    reader.space();
    (reader.pos == text.len()).then_some(value)
}

struct Reader<'a> {
    text: &'a str,
    pos: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.pos..]
    }

    fn space(&mut self) {
        self.pos = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, c: char) -> Option<()> {
        self.space();
        self.rest().starts_with(c).then(|| self.pos += c.len_utf8())
    }

    fn name(&mut self) -> Option<&'a str> {
        self.space();
        let n = name_len(self.rest());
        let name = &self.rest()[..n];
        self.pos += n;
        (n > 0).then_some(name)
    }

    /// Items up to `close`, with commas between them; one may follow the last.
    fn list(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        loop {
            if self.take(close).is_some() {
                return Some(());
            }
            item(self)?;
            if self.take(',').is_none() {
                return self.take(close);
            }
        }
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.space();
        match self.rest().chars().next()? {
            '"' | '\'' => self.strings(),
            '[' => self.sequence('[', ']', depth),
            '(' => self.sequence('(', ')', depth),
            '{' => {
                self.take('{')?;
                let mut map = Map::new();
                self.list('}', |r| {
                    let key = match r.value(depth + 1)? {
                        Json::String(key) => key,
                        key @ (Json::Number(_) | Json::Bool(_)) => key.to_string(),
                        _ => return None,
                    };
                    r.take(':')?;
                    map.insert(key, r.value(depth + 1)?);
                    Some(())
                })?;
                Some(Json::Object(map))
            }
            _ => self.word(),
        }
    }

    fn sequence(&mut self, open: char, close: char, depth: usize) -> Option<Json> {
        self.take(open)?;
        let mut items = Vec::new();
        self.list(close, |r| {
            items.push(r.value(depth + 1)?);
            Some(())
        })?;
        Some(Json::Array(items))
    }

    /// A number or a constant.
    fn word(&mut self) -> Option<Json> {
        let rest = self.rest();
        let tail = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-'));
        let word = &rest[..rest.len() - tail.len()];
        self.pos += word.len();
        Some(match word {
            "True" | "true" => Json::Bool(true),
            "False" | "false" => Json::Bool(false),
            "None" | "null" => Json::Null,
            _ => {
                let digits = word.replace('_', "");
                let whole =
                    digits.parse::<i64>().map(Number::from).or_else(|_| digits.parse::<u64>().map(Number::from));
                match whole {
                    Ok(number) => Json::Number(number),
                    Err(_) if digits.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) => {
                        Json::Number(Number::from_f64(digits.parse().ok()?)?)
                    }
                    Err(_) => return None,
                }
            }
        })
    }

    /// String literals; those that stand side by side are one.
    fn strings(&mut self) -> Option<Json> {
        let mut out = String::new();
        while let Some(quote) = self.rest().chars().next().filter(|c| matches!(c, '"' | '\'')) {
            self.string(quote, &mut out)?;
            self.space();
        }
        Some(Json::String(out))
    }

    fn string(&mut self, quote: char, out: &mut String) -> Option<()> {
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => match chars.next()?.1 {
                    '\n' => {}
                    'n' => out.push('\n'),
                    't' => out.push('\t'),
                    'r' => out.push('\r'),
                    '0' => out.push('\0'),
                    'b' => out.push('\u{8}'),
                    'f' => out.push('\u{c}'),
                    kind @ ('x' | 'u' | 'U') => {
                        let n = [('x', 2), ('u', 4), ('U', 8)].iter().find(|k| k.0 == kind)?.1;
                        let code = (0..n).try_fold(0u32, |code, _| Some(code << 4 | chars.next()?.1.to_digit(16)?))?;
                        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    other @ ('\\' | '\'' | '"') => out.push(other),
                    other => out.extend(['\\', other]),
                },
                c if c == quote => {
                    self.pos += at + 1;
                    return Some(());
                }
                c => out.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_become_json() {
        let cases = [
            ("f()", Some(("f", "{}"))),
            ("get.it(a=1, b = 'x\\'y', )", Some(("get.it", r#"{"a":1,"b":"x'y"}"#))),
            (
                "f(z=[1, -2.5, 1e3, (True, None)], a={'k': {\"l\": []}})",
                Some(("f", r#"{"z":[1,-2.5,1000.0,[true,null]],"a":{"k":{"l":[]}}}"#)),
            ),
            (r#"f(s="a\n\u00e9\x41" 'b', t=")")"#, Some(("f", r#"{"s":"a\né\u0041b","t":")"}"#))),
            ("f(n=18446744073709551615, m=1_000)", Some(("f", r#"{"n":18446744073709551615,"m":1000}"#))),
            ("f(1)", None),
            ("f(a=g())", None),
            ("f(a=1", None),
            ("f(a=inf)", None),
            ("1f()", None),
            ("f(a=1) x", None),
        ];
        for (text, want) in cases {
            let want = want.map(|(name, arguments)| (name.to_owned(), serde_json::from_str(arguments).unwrap()));
            assert_eq!(call_of(text), want, "{text}");
        }
        assert_eq!(call_of(&format!("f(a={}{})", "[".repeat(100_000), "]".repeat(100_000))), None);
    }
}
