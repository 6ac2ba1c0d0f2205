//! Cuts a Jinja source into text and tags of tokens, with Hugging Face's whitespace rules (`trim_blocks` and
//! `lstrip_blocks` on, one trailing newline dropped). Does not know what a tag means.

/// A part of a template.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    /// Text to be written as it is.
    Text(String),
    /// `{{ ... }}` and the line it begins in.
    Print(usize, Vec<Token>),
    /// `{% ... %}` and the line it begins in.
    Block(usize, Vec<Token>),
}

/// A word of a tag.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name or keyword.
    Name(String),
    /// A number as it is written, without underscores.
    Number(String),
    /// A string's value.
    Str(String),
    /// An operator or bracket.
    Op(&'static str),
}

/// Operators, longer ones before their beginnings.
const OPERATORS: [&str; 26] = [
    "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[", "]", "{", "}", ".",
    ",", ":", "|", ";",
];

/// A tag may hold this many tokens; the hub's largest holds some hundreds.
const MAX_TOKENS: usize = 20_000;

/// Where and why a source cannot be read.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) what: String,
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    /// Whether `rest` begins at the start of a line.
    at_line_start: bool,
    pieces: Vec<Piece>,
}

/// The pieces of a source, in order.
pub(super) fn lex(source: &str) -> Result<Vec<Piece>, Fault> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let rest = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { rest, line: 1, at_line_start: true, pieces: Vec::new() };
    while !lexer.rest.is_empty() {
        lexer.next()?;
    }
    Ok(lexer.pieces)
}

impl Lexer<'_> {
    fn fault<T>(&self, what: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { line: self.line, what: what.into() })
    }

    /// Goes on by `n` bytes.
    fn skip(&mut self, n: usize) {
        let (gone, rest) = self.rest.split_at(n);
        self.line += gone.matches('\n').count();
        if let Some(last) = gone.chars().next_back() {
            self.at_line_start = last == '\n';
        }
        self.rest = rest;
    }

    fn skip_space(&mut self) {
        self.skip(self.rest.len() - self.rest.trim_start().len());
    }

    fn push_text(&mut self, text: &str) {
        if !text.is_empty() {
            self.pieces.push(Piece::Text(text.to_owned()));
        }
    }

    /// Takes text up to the next tag, and the tag.
    fn next(&mut self) -> Result<(), Fault> {
        let rest = self.rest;
        let found = rest
            .match_indices('{')
            .map(|(i, _)| i)
            .find(|i| matches!(rest.as_bytes().get(i + 1), Some(b'{' | b'%' | b'#')));
        let Some(at) = found else {
            self.push_text(rest);
            self.skip(rest.len());
            return Ok(());
        };
        let kind = rest.as_bytes()[at + 1];
        let sign = rest.as_bytes().get(at + 2).copied().filter(|s| matches!(s, b'-' | b'+'));
        self.push_text(self.before_tag(&rest[..at], sign, kind != b'{'));
        self.skip(at + 2 + usize::from(sign.is_some()));
        match kind {
            b'#' => self.comment(),
            b'{' => {
                let line = self.line;
                let tokens = self.tokens("}}")?;
                self.pieces.push(Piece::Print(line, tokens));
                Ok(())
            }
            _ => self.block(),
        }
    }

    /// Text before a tag: without trailing whitespace after `-`; a block that begins its line takes its indentation.
    fn before_tag<'t>(&self, text: &'t str, sign: Option<u8>, block: bool) -> &'t str {
        let line_start = text.rfind('\n').map_or(0, |i| i + 1);
        match sign {
            Some(b'-') => text.trim_end(),
            None if block && (line_start > 0 || self.at_line_start) && text[line_start..].trim().is_empty() => {
                &text[..line_start]
            }
            _ => text,
        }
    }

    /// Behind a tag that is no `{{ }}`: whitespace after `-`, else the newline that follows at once.
    fn after_tag(&mut self, sign: Option<char>) {
        match sign {
            Some('-') => self.skip_space(),
            Some(_) => {}
            None => self.skip(usize::from(self.rest.starts_with('\n'))),
        }
    }

    fn comment(&mut self) -> Result<(), Fault> {
        let Some(end) = self.rest.find("#}") else { return self.fault("a comment is not closed") };
        let sign = self.rest[..end].chars().next_back().filter(|c| matches!(c, '-' | '+'));
        self.skip(end + 2);
        self.after_tag(sign);
        Ok(())
    }

    fn block(&mut self) -> Result<(), Fault> {
        let line = self.line;
        let tokens = self.tokens("%}")?;
        if tokens == [Token::Name("raw".into())] {
            // The newline behind `{% raw %}` stays, unlike that behind other tags.
            let Some((start, end, sign)) = find_endraw(self.rest) else {
                return self.fault("a raw block is not closed");
            };
            let before = self.rest.as_bytes().get(start + 2).copied().filter(|s| matches!(s, b'-' | b'+'));
            self.push_text(self.before_tag(&self.rest[..start], before, true));
            self.skip(end);
            self.after_tag(sign);
            return Ok(());
        }
        self.pieces.push(Piece::Block(line, tokens));
        Ok(())
    }

    /// The tokens up to `end` and its whitespace rule.
    fn tokens(&mut self, end: &str) -> Result<Vec<Token>, Fault> {
        let mut tokens = Vec::new();
        let mut open = Vec::new();
        loop {
            self.skip_space();
            if open.is_empty() {
                let first = self.rest.chars().next();
                let sign = first.filter(|s| *s == '-' || (*s == '+' && end == "%}"));
                let sign = sign.filter(|_| self.rest[1..].starts_with(end));
                if sign.is_some() || self.rest.starts_with(end) {
                    self.skip(usize::from(sign.is_some()) + end.len());
                    let raw = tokens == [Token::Name("raw".into())] && end == "%}";
                    match (end, sign) {
                        (_, Some('-')) => self.skip_space(),
                        ("%}", _) if !raw => self.after_tag(sign),
                        _ => {}
                    }
                    return Ok(tokens);
                }
            }
            let token = self.token()?;
            match token {
                Token::Op(op @ ("(" | "[" | "{")) => open.push(op),
                Token::Op(op @ (")" | "]" | "}")) => match (open.pop(), op) {
                    (Some("("), ")") | (Some("["), "]") | (Some("{"), "}") => {}
                    _ => return self.fault(format!("unexpected {op:?}")),
                },
                _ => {}
            }
            tokens.push(token);
            if tokens.len() > MAX_TOKENS {
                return self.fault(format!("a tag holds more than {MAX_TOKENS} words"));
            }
        }
    }

    fn token(&mut self) -> Result<Token, Fault> {
        let rest = self.rest;
        let Some(first) = rest.chars().next() else { return self.fault("a tag is not closed") };
        if first == '_' || first.is_ascii_alphabetic() {
            let end = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            self.skip(end);
            return Ok(Token::Name(rest[..end].to_owned()));
        }
        if first.is_ascii_digit() {
            let end = number_len(rest.as_bytes());
            let text = rest[..end.min(64)].replace('_', "");
            if end > 64 || (text.parse::<i128>().is_err() && text.parse::<f64>().is_err()) {
                return self.fault("a number is too long");
            }
            self.skip(end);
            return Ok(Token::Number(text));
        }
        if first == '\'' || first == '"' {
            let Some((value, end)) = string(rest, first) else { return self.fault("a string is not closed") };
            self.skip(end);
            return Ok(Token::Str(value));
        }
        let Some(op) = OPERATORS.iter().find(|op| rest.starts_with(**op)) else {
            return self.fault(format!("unexpected {first:?}"));
        };
        self.skip(op.len());
        Ok(Token::Op(op))
    }
}

/// Where the `{% endraw %}` tag begins and ends, and its closing sign.
fn find_endraw(text: &str) -> Option<(usize, usize, Option<char>)> {
    for (start, _) in text.match_indices("{%") {
        let inner = text[start + 2..].trim_start_matches(['-', '+']).trim_start();
        let Some(tail) = inner.strip_prefix("endraw") else { continue };
        let tail = tail.trim_start();
        let sign = tail.chars().next().filter(|c| matches!(c, '-' | '+'));
        let tail = &tail[usize::from(sign.is_some())..];
        if let Some(rest) = tail.strip_prefix("%}") {
            return Some((start, text.len() - rest.len(), sign));
        }
    }
    None
}

/// Bytes of the number at the start: digits, a fraction, an exponent.
fn number_len(text: &[u8]) -> usize {
    let digits = |from: usize| from + text[from..].iter().take_while(|b| b.is_ascii_digit() || **b == b'_').count();
    let mut end = digits(0);
    if text.get(end) == Some(&b'.') && text.get(end + 1).is_some_and(u8::is_ascii_digit) {
        end = digits(end + 1);
    }
    if matches!(text.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
        if text.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            end = digits(end + 1 + sign);
        }
    }
    end
}

/// The value of the string literal at the start, by Python's escapes, and its length in the source.
fn string(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some((value, at + 1));
        }
        if c != '\\' {
            value.push(c);
            continue;
        }
        let (_, escape) = chars.next()?;
        let hex = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        match escape {
            '\n' => {}
            'n' => value.push('\n'),
            't' => value.push('\t'),
            'r' => value.push('\r'),
            'a' => value.push('\u{7}'),
            'b' => value.push('\u{8}'),
            'f' => value.push('\u{c}'),
            'v' => value.push('\u{b}'),
            '\\' | '\'' | '"' => value.push(escape),
            '0'..='7' => {
                let mut code = escape.to_digit(8)?;
                for _ in 0..2 {
                    let Some(digit) = chars.peek().and_then(|(_, c)| c.to_digit(8)) else { break };
                    code = code * 8 + digit;
                    chars.next();
                }
                value.push(char::from_u32(code)?);
            }
            'x' | 'u' | 'U' => {
                let mut code = 0u32;
                for _ in 0..hex {
                    code = code.checked_mul(16)? + chars.next()?.1.to_digit(16)?;
                }
                value.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            other => value.extend(['\\', other]),
        }
    }
    None
}
