//! Filters of Jinja that minijinja lacks, or has with another outcome or without a bound.

use minijinja::value::{Kwargs, Rest};
use minijinja::{Environment, Error, State, Value};

use super::methods::text_of;
use super::ops::{invalid, spend_text};

/// See [`bounded`].
const MAX_PARTS: usize = 10_000;

type Outcome = Result<Value, Error>;

/// Arguments by place or by name.
struct Given<'a>(&'a [Value], &'a Kwargs);

impl Given<'_> {
    fn value(&self, at: usize, name: &str) -> Result<Option<Value>, Error> {
        match self.0.get(at) {
            Some(value) => Ok(Some(value.clone())),
            None => self.1.get::<Option<Value>>(name),
        }
    }

    fn flag(&self, at: usize, name: &str) -> Result<bool, Error> {
        Ok(self.value(at, name)?.is_some_and(|v| v.is_true()))
    }

    fn number(&self, at: usize, name: &str, usual: i64) -> Result<i64, Error> {
        let wrong = || invalid(format!("{name} must be a whole number"));
        self.value(at, name)?.map_or(Ok(usual), |v| v.as_i64().ok_or_else(wrong))
    }
}

/// Adds the filters and what loops like to call.
pub(super) fn install(env: &mut Environment<'static>) {
    for name in ["escape", "e", "forceescape"] {
        env.add_filter(name, escape);
    }
    env.add_filter("truncate", truncate);
    env.add_filter("indent", indent);
    env.add_filter("center", |state: &mut State, text: &Value, args: Rest<Value>, options: Kwargs| {
        let width = Given(&args, &options).number(0, "width", 80)?;
        options.assert_all_used()?;
        let text = text_of(state, text)?;
        center(state, &text, width)
    });
    env.add_filter("wordcount", |state: &mut State, text: &Value| {
        let word = |part: &&str| !part.is_empty();
        text_of(state, text).map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(word).count())
    });
    env.add_filter("batch", |state: &State, items: Value, size: usize, fill: Option<Value>| {
        minijinja::filters::batch(state, items, bounded(size)?, fill)
    });
    env.add_filter("slice", |state: &State, items: Value, parts: usize, fill: Option<Value>| {
        minijinja::filters::slice(state, items, bounded(parts)?, fill)
    });
    env.add_filter("filesizeformat", minijinja_contrib::filters::filesizeformat);
    env.add_filter("striptags", |text: String| minijinja_contrib::filters::striptags(text));
    env.add_function("joiner", minijinja_contrib::globals::joiner);
    env.add_function("cycler", |items: Rest<Value>| minijinja_contrib::globals::cycler(items.to_vec()));
}

/// As MarkupSafe escapes.
fn escape(state: &mut State, value: &Value) -> Outcome {
    let text = text_of(state, value)?;
    spend_text(state, text.len().saturating_mul(5))?;
    let quoted = text.replace('&', "&amp;").replace('"', "&#34;").replace('\'', "&#39;");
    Ok(Value::from(quoted.replace('<', "&lt;").replace('>', "&gt;")))
}

/// `text | truncate(length, killwords, end, leeway)`
fn truncate(state: &mut State, value: &Value, args: Rest<Value>, options: Kwargs) -> Outcome {
    let given = Given(&args, &options);
    let (length, leeway) = (given.number(0, "length", 255)?, given.number(3, "leeway", 5)?);
    let kill = given.flag(1, "killwords")?;
    let end = given.value(2, "end")?.map_or(Ok("...".to_owned()), |v| text_of(state, &v))?;
    options.assert_all_used()?;
    let text = text_of(state, value)?;
    if text.chars().count() as i64 <= length.saturating_add(leeway) {
        return Ok(Value::from(text));
    }
    let room = length - end.chars().count() as i64;
    let room = usize::try_from(room).map_err(|_| invalid("a text cannot be cut shorter than its end mark"))?;
    let cut: String = text.chars().take(room).collect();
    let cut = if kill { &cut } else { cut.rsplit_once(' ').map_or(&*cut, |(before, _)| before) };
    Ok(Value::from(format!("{cut}{end}")))
}

/// `text | indent(width, first, blank)`; the width may be a text.
fn indent(state: &mut State, text: &str, args: Rest<Value>, options: Kwargs) -> Outcome {
    let given = Given(&args, &options);
    let width = given.value(0, "width")?.unwrap_or_else(|| Value::from(4));
    let (first, blank) = (given.flag(1, "first")?, given.flag(2, "blank")?);
    options.assert_all_used()?;
    let margin = match (width.as_str(), width.as_usize()) {
        (Some(margin), _) => margin.to_owned(),
        (None, Some(n)) if n <= 1000 => " ".repeat(n),
        _ => return Err(invalid("a text can be indented by 1000 spaces at most")),
    };
    let lines = text.matches('\n').count() + 1;
    spend_text(state, text.len().saturating_add(lines.saturating_mul(margin.len())))?;
    let mut out = String::new();
    for (i, line) in text.split('\n').enumerate() {
        out.push_str(if i > 0 { "\n" } else { "" });
        if (i > 0 || first) && (blank || !line.is_empty()) {
            out.push_str(&margin);
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

/// As Python centres a text.
pub(super) fn center(state: &mut State, text: &str, width: i64) -> Outcome {
    let n = text.chars().count();
    let width = usize::try_from(width).unwrap_or(0);
    let room = width.saturating_sub(n);
    spend_text(state, text.len().saturating_add(room))?;
    let left = room / 2 + (room & width & 1);
    Ok(Value::from(format!("{}{text}{}", " ".repeat(left), " ".repeat(room - left))))
}

/// Into how many parts, or parts of how many, a list may be cut.
fn bounded(n: usize) -> Result<usize, Error> {
    if n <= MAX_PARTS { Ok(n) } else { Err(invalid(format!("a list is cut by {MAX_PARTS} at most"))) }
}
