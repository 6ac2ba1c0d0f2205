//! Filters of Jinja that minijinja lacks, or has with another outcome.

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Rest, ValueKind};
use minijinja::{Environment, Error, State, Value};
use std::fmt::Write;
use std::sync::Arc;

use super::super::json::display;
use super::ops::{MAX_TEXT, invalid, spend_text};

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
    env.add_filter("center", |state: &mut State, text: &Value, args: Rest<Value>, options: Kwargs| {
        let width = Given(&args, &options).number(0, "width", 80)?;
        options.assert_all_used()?;
        center(state, &shown(text)?, width)
    });
    env.add_filter("wordcount", |text: &Value| {
        let word = |part: &&str| !part.is_empty();
        shown(text).map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(word).count())
    });
    env.add_filter("batch", batch);
    env.add_filter("slice", slice);
    env.add_filter("groupby", groupby);
    env.add_filter("urlencode", urlencode);
    env.add_filter("filesizeformat", minijinja_contrib::filters::filesizeformat);
    env.add_filter("striptags", |text: String| minijinja_contrib::filters::striptags(text));
    env.add_function("joiner", minijinja_contrib::globals::joiner);
    env.add_function("cycler", |items: Rest<Value>| minijinja_contrib::globals::cycler(items.to_vec()));
}

fn shown(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    display(&mut out, value, MAX_TEXT)?;
    Ok(out)
}

/// As MarkupSafe escapes.
fn escape(state: &mut State, value: &Value) -> Outcome {
    let text = shown(value)?;
    spend_text(state, text.len().saturating_mul(5))?;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    Ok(Value::from(out))
}

/// `text | truncate(length, killwords, end, leeway)`
fn truncate(value: &Value, args: Rest<Value>, options: Kwargs) -> Outcome {
    let given = Given(&args, &options);
    let (length, leeway) = (given.number(0, "length", 255)?, given.number(3, "leeway", 5)?);
    let kill = given.value(1, "killwords")?.is_some_and(|v| v.is_true());
    let end = given.value(2, "end")?.map_or(Ok("...".to_owned()), |v| shown(&v))?;
    options.assert_all_used()?;
    let text = shown(value)?;
    if text.chars().count() as i64 <= length.saturating_add(leeway) {
        return Ok(Value::from(text));
    }
    let room = length - end.chars().count() as i64;
    let room = usize::try_from(room).map_err(|_| invalid("a text cannot be cut shorter than its end mark"))?;
    let cut: String = text.chars().take(room).collect();
    let cut = if kill { &cut } else { cut.rsplit_once(' ').map_or(&*cut, |(before, _)| before) };
    Ok(Value::from(format!("{cut}{end}")))
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

/// `items | batch(linecount, fill_with)`
fn batch(items: &Value, args: Rest<Value>, options: Kwargs) -> Outcome {
    let given = Given(&args, &options);
    let (size, fill) = (given.number(0, "linecount", 1)?, given.value(1, "fill_with")?);
    options.assert_all_used()?;
    let size = usize::try_from(size).ok().filter(|n| *n > 0).ok_or_else(|| invalid("a batch holds 1 item or more"))?;
    let items: Vec<Value> = items.try_iter()?.collect();
    let mut rows: Vec<Vec<Value>> = items.chunks(size).map(<[Value]>::to_vec).collect();
    if let (Some(fill), Some(last)) = (fill.filter(|f| !f.is_none()), rows.last_mut())
        && size <= MAX_TEXT >> 8
    {
        last.resize(size, fill);
    }
    Ok(Value::from(rows))
}

/// `items | slice(slices, fill_with)`
fn slice(items: &Value, args: Rest<Value>, options: Kwargs) -> Outcome {
    let given = Given(&args, &options);
    let (n, fill) = (given.number(0, "slices", 1)?, given.value(1, "fill_with")?);
    options.assert_all_used()?;
    let n = usize::try_from(n).ok().filter(|n| (1..=10_000).contains(n));
    let n = n.ok_or_else(|| invalid("a list is cut into 1 to 10,000 slices"))?;
    let items: Vec<Value> = items.try_iter()?.collect();
    let (each, longer) = (items.len() / n, items.len() % n);
    let mut rest = &items[..];
    let mut rows = Vec::with_capacity(n);
    for row in 0..n {
        let (head, tail) = rest.split_at(each + usize::from(row < longer));
        let mut head = head.to_vec();
        head.extend(fill.clone().filter(|f| !f.is_none() && row >= longer && longer > 0));
        rows.push(Value::from(head));
        rest = tail;
    }
    Ok(Value::from(rows))
}

/// What `groupby` gives: a pair whose parts have names too.
#[derive(Debug)]
struct Group {
    grouper: Value,
    list: Value,
}

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_str(), key.as_usize()) {
            (Some("grouper"), _) | (_, Some(0)) => Some(self.grouper.clone()),
            (Some("list"), _) | (_, Some(1)) => Some(self.list.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}

/// `items | groupby(attribute, default)`: sorted, texts without regard to case.
fn groupby(items: &Value, args: Rest<Value>, options: Kwargs) -> Outcome {
    let given = Given(&args, &options);
    let path = given.value(0, "attribute")?.ok_or_else(|| invalid("groupby needs an attribute"))?;
    let default = given.value(1, "default")?;
    let exact = given.value(2, "case_sensitive")?.is_some_and(|v| v.is_true());
    options.assert_all_used()?;
    let path = shown(&path)?;
    let of = |item: &Value| {
        let found = path.split('.').try_fold(item.clone(), |value, part| match part.parse::<usize>() {
            Ok(index) => value.get_item(&Value::from(index)),
            Err(_) => value.get_attr(part),
        });
        found.ok().filter(|v| !v.is_undefined()).or_else(|| default.clone()).unwrap_or(Value::UNDEFINED)
    };
    let key = |value: &Value| match value.as_str() {
        Some(text) if !exact => Value::from(text.to_lowercase()),
        _ => value.clone(),
    };
    let mut all: Vec<(Value, Value)> = items.try_iter()?.map(|item| (of(&item), item)).collect();
    all.sort_by_cached_key(|(grouper, _)| key(grouper));
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (grouper, item) in all {
        match groups.last_mut().filter(|(last, _)| key(last) == key(&grouper)) {
            Some((_, list)) => list.push(item),
            None => groups.push((grouper, vec![item])),
        }
    }
    let group = |(grouper, list): (Value, Vec<Value>)| Value::from_object(Group { grouper, list: Value::from(list) });
    Ok(groups.into_iter().map(group).collect())
}

/// A text, or a map's pairs, for a URL.
fn urlencode(state: &mut State, value: &Value) -> Outcome {
    let quote = |out: &mut String, value: &Value, query: bool| -> Result<(), Error> {
        for byte in shown(value)?.bytes() {
            let _ = match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.write_char(byte.into()),
                b'/' if !query => out.write_char('/'),
                b' ' if query => out.write_char('+'),
                _ => write!(out, "%{byte:02X}"),
            };
        }
        Ok(())
    };
    let mut out = String::new();
    match value.kind() {
        ValueKind::Map => {
            for (i, key) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { "&" } else { "" });
                quote(&mut out, &key, true)?;
                out.push('=');
                quote(&mut out, &value.get_item(&key)?, true)?;
            }
        }
        _ => quote(&mut out, value, false)?,
    }
    spend_text(state, out.len())?;
    Ok(Value::from(out))
}
