//! Rewrites a Jinja source so that every operation that can allocate goes through a function with a budget
//! (`ops`), and nesting is bounded. The result is equivalent Jinja made of tags only, each text in quotes.

use super::lexer::{Fault, Piece, Token, lex};
use super::parser::{Code, Parser, quoted, whole};

/// Blocks may nest this deep.
const MAX_BLOCKS: usize = 64;

/// An `if` may have this many `elif`s.
const MAX_ELIFS: usize = 100;

/// The rewritten source.
pub(super) fn rewrite(source: &str) -> Result<String, Fault> {
    let mut out = Writer { text: String::with_capacity(source.len() * 2), line: 1 };
    let mut blocks: Vec<Block> = Vec::new();
    for piece in lex(source)? {
        match piece {
            Piece::Text(text) => out.tag(out.line, "{{", &quoted(&text), "}}"),
            Piece::Print(line, tokens) => {
                let code = whole(&tokens, Parser::tuple).map_err(|what| Fault { line, what })?;
                out.tag(line, "{{", &code, "}}");
            }
            Piece::Block(line, tokens) => {
                let code = statement(&tokens, &mut blocks).map_err(|what| Fault { line, what })?;
                if !code.is_empty() {
                    out.tag(line, "{%", &code, "%}");
                }
            }
        }
    }
    match blocks.last() {
        Some(block) => Err(Fault { line: out.line, what: format!("{:?} is not closed", block.name) }),
        None => Ok(out.text),
    }
}

/// Writes tags, each in the line that it has in the original.
struct Writer {
    text: String,
    line: usize,
}

impl Writer {
    fn tag(&mut self, line: usize, open: &str, code: &str, close: &str) {
        self.text.push_str(open);
        while self.line < line {
            self.text.push('\n');
            self.line += 1;
        }
        self.text.extend([" ", code, " ", close]);
    }
}

/// A block that is open.
struct Block {
    name: &'static str,
    elifs: usize,
}

/// Rewrites a `{% %}` tag; empty where nothing stays of it.
fn statement(tokens: &[Token], blocks: &mut Vec<Block>) -> Code {
    let Some(Token::Name(name)) = tokens.first() else { return Err("a tag begins without a name".into()) };
    let rest = &tokens[1..];
    let mut open = |name: &'static str| {
        blocks.push(Block { name, elifs: 0 });
        if blocks.len() > MAX_BLOCKS { Err(format!("blocks nest more than {MAX_BLOCKS} deep")) } else { Ok(()) }
    };
    match name.as_str() {
        "if" => {
            open("if")?;
            Ok(format!("if {}", whole(rest, Parser::tuple)?))
        }
        "for" => {
            open("for")?;
            whole(rest, for_loop)
        }
        "set" => whole(rest, |p| set(p, blocks)),
        "macro" => {
            open("macro")?;
            whole(rest, |p| Ok(format!("macro {}({})", p.name()?, p.parameters()?)))
        }
        "call" => {
            open("call")?;
            whole(rest, |p| {
                let parameters = if p.sees("(") { format!("({})", p.parameters()?) } else { String::new() };
                Ok(format!("call{parameters} {}", p.unary()?))
            })
        }
        "filter" => {
            open("filter")?;
            whole(rest, |p| Ok(format!("filter {}", p.filter_chain()?)))
        }
        "with" => {
            open("with")?;
            whole(rest, with)
        }
        // Marks what a trainer learns from; its content stays.
        "generation" => {
            open("generation")?;
            Ok(String::new())
        }
        "elif" => {
            let inside = blocks.last_mut().filter(|b| b.name == "if").ok_or("elif stands outside of an if")?;
            inside.elifs += 1;
            if inside.elifs > MAX_ELIFS {
                return Err(format!("an if has more than {MAX_ELIFS} elifs"));
            }
            Ok(format!("elif {}", whole(rest, Parser::tuple)?))
        }
        "else" | "break" | "continue" if rest.is_empty() => Ok(name.clone()),
        end => {
            let closed = blocks.pop().filter(|b| end.strip_prefix("end") == Some(b.name));
            match closed {
                Some(block) if block.name == "generation" => Ok(String::new()),
                Some(_) => Ok(end.to_owned()),
                None => Err(format!("a tag {end:?} is unknown, or has no place here")),
            }
        }
    }
}

fn for_loop(p: &mut Parser) -> Code {
    let targets = p.targets("in")?;
    let over = p.or()?;
    let filter = if p.takes_name("if") { format!(" if {}", p.condition()?) } else { String::new() };
    let recursive = if p.takes_name("recursive") { " recursive" } else { "" };
    Ok(format!("for {targets} in ir_iter({over}){filter}{recursive}"))
}

fn set(p: &mut Parser, blocks: &mut Vec<Block>) -> Code {
    let targets = p.targets("=")?;
    if p.at > 0 && p.tokens.get(p.at - 1) == Some(&Token::Op("=")) {
        return Ok(format!("set {targets} = ir_keep({})", p.tuple()?));
    }
    blocks.push(Block { name: "set", elifs: 0 });
    if p.takes("|") {
        return Ok(format!("set {targets} | {}", p.filter_chain()?));
    }
    Ok(format!("set {targets}"))
}

fn with(p: &mut Parser) -> Code {
    let mut parts = Vec::new();
    while p.at < p.tokens.len() {
        if !parts.is_empty() {
            p.expect(",")?;
        }
        let target = p.name()?;
        p.expect("=")?;
        parts.push(format!("{target} = ir_keep({})", p.expression()?));
    }
    Ok(format!("with {}", parts.join(", ")))
}
