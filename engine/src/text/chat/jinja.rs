//! The template engine's environment: Jinja as Hugging Face sets it up, with what hub templates call.

use minijinja::value::{Kwargs, Rest};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, Value};

use super::date::{Now, strftime};
use super::guard::{MAX_TEXT, install, spend_text};
use super::json::{Style, display};

/// Steps that a rendering may take: a long chat with many tools takes some ten thousands.
const FUEL: u64 = 5_000_000;

/// Scopes that may be open at once; a macro call takes four. Their stack must fit a small thread's.
const MAX_FRAMES: usize = 160;

/// The name under which a render passes its clock, out of a template's reach.
pub(super) const CLOCK: &str = "ir_clock";

/// An environment for one template.
pub(super) fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    let syntax =
        minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().unwrap_or_default();
    env.set_syntax(syntax);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_recursion_limit(MAX_FRAMES);
    env.set_fuel(Some(FUEL));
    env.set_formatter(|out, state, value| {
        if let Some(text) = value.as_str() {
            spend_text(state, text.len())?;
            return out.write_str(text).map_err(Error::from);
        }
        let mut text = String::new();
        display(&mut text, value, MAX_TEXT)?;
        spend_text(state, text.len())?;
        out.write_str(&text).map_err(Error::from)
    });
    install(&mut env);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", strftime_now);
    env.add_filter("tojson", tojson);
    env
}

fn invalid(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// Carries a `raise_exception` message out of the engine.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

fn raise_exception(message: Value) -> Result<Value, Error> {
    let mut text = String::new();
    display(&mut text, &message, MAX_TEXT)?;
    let text = text.chars().take(1000).collect();
    Err(invalid("the template refused").with_source(Raised(text)))
}

fn strftime_now(state: &State, format: &str) -> Result<String, Error> {
    let clock = state.lookup(CLOCK);
    let now = clock.as_ref().and_then(|v| v.downcast_object_ref::<Clock>()).map(|c| c.0).unwrap_or_default();
    Ok(strftime(format, now))
}

/// The clock as an opaque value.
#[derive(Debug)]
pub(super) struct Clock(pub(super) Now);

impl minijinja::value::Object for Clock {
    fn repr(self: &std::sync::Arc<Self>) -> minijinja::value::ObjectRepr {
        minijinja::value::ObjectRepr::Plain
    }
}

/// `json.dumps` with the options that transformers passes on.
fn tojson(value: Value, args: Rest<Value>, options: Kwargs) -> Result<String, Error> {
    let positional = args.first().cloned();
    let indent: Option<Value> = options.get::<Option<Value>>("indent")?.or(positional).filter(|v| !v.is_none());
    let separators: Option<Vec<Value>> = match options.get::<Option<Value>>("separators")? {
        Some(pair) if !pair.is_none() => Some(pair.try_iter()?.take(3).collect()),
        _ => None,
    };
    let mut style = Style {
        indent: indent.map(|v| v.as_usize().ok_or_else(|| invalid("indent must be a number"))).transpose()?,
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        limit: MAX_TEXT,
        ..Style::default()
    };
    if let Some(pair) = separators {
        let [Some(item), Some(key)] = [pair.first(), pair.get(1)].map(|v| v.and_then(|v| v.as_str())) else {
            return Err(invalid("separators must be two texts"));
        };
        (style.item_separator, style.key_separator) = (item.into(), key.into());
    }
    options.assert_all_used()?;
    let mut out = String::new();
    style.write(&mut out, &value, 0)?;
    Ok(out)
}
