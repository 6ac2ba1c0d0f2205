//! [`Marked`]: prompts in which a message's text stays text. What marks up a prompt (`<|im_end|>`) may be spelled in a
//! message, a tool's result or a document; only the template may write it. So a private character is put behind the first
//! character of whatever could be read as markup, the template renders it along, and where it comes out there is text.
//! A template that examines the texts (compares, splits, measures) may do otherwise with marks than without; then fewer
//! are put, until the prompt is the same.

use super::{ChatTemplate, Form, RenderInput, Rendered};
use crate::error::{Error, Result};
use crate::text::Tokenizer;

/// Spellings that a template names and examines: so many are looked for.
const MAX_EXAMINED: usize = 16;

/// A prompt, and where in it are characters of messages that no markup may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// The prompt.
    pub rendered: Rendered,
    /// Bytes of its text, ascending: see [`Tokenizer::encode_guarded`].
    pub guards: Vec<usize>,
    /// Markup that is spelled in messages and that the template examines: it counts as markup, wherever it came from.
    pub examined: Vec<String>,
}

/// Where marks are put.
#[derive(Debug, Clone, Copy)]
enum Level<'a> {
    /// Behind every sign that markup begins with.
    Signs(&'a [char]),
    /// Behind the first character of what is spelled like markup, and of what the text's end may begin.
    Begun,
    /// Behind the first character of what is spelled like markup, but for these tokens.
    Spelled(&'a [u32], But),
    /// Behind the first character of this token's spellings.
    Only(u32),
}

/// Where tokens are excepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum But {
    Nowhere,
    Assistant,
    Everywhere,
}

/// Puts marks into texts.
pub(super) struct Marker<'a> {
    mark: char,
    level: Level<'a>,
    tokenizer: &'a Tokenizer,
}

impl Marker<'_> {
    /// A text with its marks; `assistant`: it is of the assistant's turn.
    pub(super) fn mark(&self, text: &str, assistant: bool) -> String {
        let places = self.places(text, assistant);
        let mut out = String::with_capacity(text.len() + places.len() * self.mark.len_utf8());
        let mut done = 0;
        for at in places {
            let end = at + text[at..].chars().next().map_or(0, char::len_utf8);
            out.push_str(&text[done..end]);
            out.push(self.mark);
            done = end;
        }
        out + &text[done..]
    }

    fn places(&self, text: &str, assistant: bool) -> Vec<usize> {
        if let Level::Signs(signs) = self.level {
            return text.match_indices(signs).map(|(at, _)| at).collect();
        }
        let wanted = |id: Option<u32>| match (self.level, id) {
            (Level::Begun, _) => true,
            (Level::Spelled(but, place), Some(id)) => {
                !but.contains(&id) || !(place == But::Everywhere || (place == But::Assistant && assistant))
            }
            (Level::Only(one), Some(id)) => one == id,
            _ => false,
        };
        let found = self.tokenizer.spelled_markup(text);
        found.into_iter().filter(|(at, id)| text.is_char_boundary(*at) && wanted(*id)).map(|(at, _)| at).collect()
    }

    /// A rendered text without marks, and where they were.
    fn unmark(&self, rendered: &str) -> (String, Vec<usize>) {
        // JSON that is held to ASCII writes the mark as an escape.
        let escaped: String = self.mark.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect();
        let rendered = rendered.replace(&escaped, self.mark.encode_utf8(&mut [0; 4]));
        let (mut text, mut guards) = (String::with_capacity(rendered.len()), Vec::new());
        for part in rendered.split_inclusive(self.mark) {
            let plain = part.strip_suffix(self.mark);
            text.push_str(plain.unwrap_or(part));
            if let (Some(_), Some(c)) = (plain, text.chars().next_back()) {
                guards.push(text.len() - c.len_utf8());
            }
        }
        guards.dedup();
        (text, guards)
    }
}

impl ChatTemplate {
    /// The prompt of a chat as [`ChatTemplate::render`] gives it, and what in it is text whatever it spells.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_marked(&self, input: &RenderInput, tokenizer: &Tokenizer) -> Result<Marked> {
        let (plain, form) = self.render_best(input)?;
        let thinking = self.tags.is_some_and(|t| t.open_at_end(&plain));
        let rendered = Rendered { text: plain, thinking };
        let texts = texts(input);
        let signs = tokenizer.markup_signs();
        if !texts.iter().any(|text| text.contains(&signs[..])) && spelled(tokenizer, &texts).is_empty() {
            return Ok(Marked { rendered, guards: Vec::new(), examined: Vec::new() });
        }
        let marking = Marking { template: self, input, tokenizer, form, mark: free(&texts, &rendered.text)? };
        marking.search(rendered, &signs, &texts)
    }

    fn names(&self, text: &str) -> bool {
        self.text.contains(text)
    }
}

/// A chat to be marked.
struct Marking<'a> {
    template: &'a ChatTemplate,
    input: &'a RenderInput<'a>,
    tokenizer: &'a Tokenizer,
    form: Form,
    mark: char,
}

impl Marking<'_> {
    fn at(&self, level: Level) -> Option<(String, Vec<usize>)> {
        let marker = Marker { mark: self.mark, level, tokenizer: self.tokenizer };
        self.template.render_as(self.input, self.form, Some(&marker)).ok().map(|text| marker.unmark(&text))
    }

    /// The most marks with which the prompt is the same.
    fn search(&self, rendered: Rendered, signs: &[char], texts: &[String]) -> Result<Marked> {
        let same = |level| self.at(level).filter(|(text, _)| *text == rendered.text).map(|(_, guards)| guards);
        let none = |guards| Marked { rendered: rendered.clone(), guards, examined: Vec::new() };
        if let Some(guards) = same(Level::Signs(signs)).or_else(|| same(Level::Begun)) {
            return Ok(none(guards));
        }
        let mut ids: Vec<u32> = spelled(self.tokenizer, texts).into_iter().flatten().collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Ok(none(Vec::new()));
        }
        if let Some(guards) = same(Level::Spelled(&[], But::Nowhere)) {
            return Ok(none(guards));
        }
        let piece = |id: u32| self.tokenizer.piece(id).into_owned();
        let named = ids.iter().copied().filter(|id| self.template.names(&piece(*id))).take(MAX_EXAMINED);
        let examined: Vec<u32> = named.filter(|id| same(Level::Only(*id)).is_none()).collect();
        for but in [But::Assistant, But::Everywhere] {
            if let Some(guards) = same(Level::Spelled(&examined, but)).filter(|_| !examined.is_empty()) {
                let examined = examined.iter().map(|id| piece(*id)).collect();
                return Ok(Marked { rendered, guards, examined });
            }
        }
        // The template does otherwise with any mark: then its prompt is the one with marks, if there is one.
        Ok(match self.at(Level::Spelled(&[], But::Nowhere)) {
            Some((text, guards)) => Marked { rendered: Rendered { text, ..rendered }, guards, examined: Vec::new() },
            None => Marked { rendered, guards: Vec::new(), examined: ids.iter().map(|id| piece(*id)).collect() },
        })
    }
}

fn spelled(tokenizer: &Tokenizer, texts: &[String]) -> Vec<Option<u32>> {
    texts.iter().flat_map(|text| tokenizer.spelled_markup(text)).map(|(_, id)| id).collect()
}

/// All texts of a chat.
fn texts(input: &RenderInput) -> Vec<String> {
    fn add(json: &serde_json::Value, out: &mut Vec<String>) {
        match json {
            serde_json::Value::String(text) => out.push(text.clone()),
            serde_json::Value::Array(items) => items.iter().for_each(|item| add(item, out)),
            serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| {
                out.push(key.clone());
                add(value, out);
            }),
            _ => {}
        }
    }
    let mut out = Vec::new();
    input.messages.iter().for_each(|m| add(&m.to_template(Form::default()), &mut out));
    input.tools.iter().for_each(|tool| add(tool, &mut out));
    input.kwargs.into_iter().flatten().filter(|(_, value)| !value.is_string()).for_each(|(_, v)| add(v, &mut out));
    out
}

/// A private character that stands nowhere in the texts or in the prompt, as itself or as JSON's escape.
fn free(texts: &[String], prompt: &str) -> Result<char> {
    let mut used = std::collections::HashSet::new();
    for text in texts.iter().map(String::as_str).chain([prompt]) {
        used.extend(text.chars().filter(|c| *c > '\u{d7ff}').map(u32::from));
        // A pair of surrogates counts by its second half.
        let escapes = text.split("\\u").skip(1).filter_map(|rest| u32::from_str_radix(rest.get(..4)?, 16).ok());
        used.extend(escapes);
    }
    let last_unit = |c: char| c.encode_utf16(&mut [0; 2]).last().map_or(0, |unit| u32::from(*unit));
    let mut privates = ('\u{fdd0}'..='\u{fdef}').chain('\u{e000}'..='\u{f8ff}').chain('\u{f0000}'..='\u{ffffd}');
    privates.find(|c| !used.contains(&u32::from(*c)) && !used.contains(&last_unit(*c))).ok_or_else(|| {
        Error::request("the messages hold every private character that there is: leave some of them out")
    })
}
