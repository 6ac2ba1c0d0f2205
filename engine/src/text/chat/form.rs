//! [`Form`]: the forms in which a chat may be given to a template, for templates that refuse what clients send: arguments
//! as text, an empty content, and turns folded together.

use super::message::Message;

/// How a chat is given to a template. The default is what Hugging Face passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// Arguments of calls are JSON text and no object.
    pub(super) text_arguments: bool,
    /// An absent content is an empty one and not none.
    pub(super) empty_content: bool,
    pub(super) fold: Fold,
}

/// Which turns are folded together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Fold {
    /// None.
    #[default]
    No,
    /// Leading system turns become one, later ones go into the user's turn, and neighbours of one role are joined.
    Turns,
    /// The leading system turn goes into the user's turn as well.
    System,
    /// Calls and their results become words of the assistant and the user as well.
    Calls,
}

/// The forms that a chat may be given in, the best first; none twice.
pub(super) fn forms(messages: &[Message]) -> Vec<Form> {
    let calls = messages.iter().any(|m| !m.tool_calls.is_empty());
    let absent = messages.iter().any(|m| m.content.is_none());
    let mut forms = Vec::new();
    let mut last: Option<Vec<Message>> = None;
    for fold in [Fold::No, Fold::Turns, Fold::System, Fold::Calls] {
        let folded = fold.of(messages);
        if last.as_ref().is_some_and(|last| *last == folded) {
            continue;
        }
        last = Some(folded);
        for (text_arguments, empty_content) in [(false, false), (true, false), (false, true), (true, true)] {
            if (calls || !text_arguments) && (absent || !empty_content) {
                forms.push(Form { text_arguments, empty_content, fold });
            }
        }
    }
    forms
}

impl Fold {
    /// The turns folded so.
    pub(super) fn of(self, messages: &[Message]) -> Vec<Message> {
        let mut out: Vec<Message> = Vec::with_capacity(messages.len());
        let mut leading = true;
        for message in messages {
            let mut message = message.clone();
            leading &= message.role == "system";
            if message.role == "system" && (self != Fold::No && !leading || matches!(self, Fold::System | Fold::Calls))
            {
                message.role = "user".into();
            }
            if self == Fold::Calls {
                message = in_words(message);
            }
            match out.last_mut() {
                Some(last) if self != Fold::No && joins(last, &message) => join(last, message),
                _ => out.push(message),
            }
        }
        out
    }
}

fn joins(last: &Message, next: &Message) -> bool {
    last.role == next.role && last.role != "tool" && last.tool_calls.is_empty()
}

fn join(last: &mut Message, next: Message) {
    let both = |a: Option<String>, b: Option<String>| match (a, b) {
        (Some(a), Some(b)) if !a.is_empty() && !b.is_empty() => Some(format!("{a}\n\n{b}")),
        (Some(a), Some(b)) => Some(a + &b),
        (a, b) => a.or(b),
    };
    last.content = both(last.content.take(), next.content);
    last.reasoning_content = both(last.reasoning_content.take(), next.reasoning_content);
    last.tool_calls = next.tool_calls;
}

/// A call or a result as its speaker's words.
fn in_words(message: Message) -> Message {
    let mut words = message.content.unwrap_or_default();
    for call in &message.tool_calls {
        let space = if words.is_empty() { "" } else { "\n" };
        words += &format!("{space}Call of {}: {}", call.name, super::json::compact(&call.arguments));
    }
    let role = if message.role == "tool" { "user".to_owned() } else { message.role };
    let words = match (&message.tool_name, role == "user") {
        (Some(name), true) => format!("Result of {name}: {words}"),
        _ => words,
    };
    Message { content: Some(words), reasoning_content: message.reasoning_content, ..Message::new(role, "") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::chat::{ChatTemplate, RenderInput, ToolCall};

    fn chat(of: &[(&str, &str)]) -> Vec<Message> {
        of.iter().map(|(role, text)| Message::new(*role, *text)).collect()
    }

    fn rendered(template: &str, messages: &[Message]) -> Result<String, String> {
        let template = ChatTemplate::new(template, None).unwrap();
        template.render(&RenderInput { messages, ..RenderInput::default() }).map(|r| r.text).map_err(|e| e.to_string())
    }

    const STRICT: &str = "{% for m in messages %}{% if m.role == 'system' and not loop.first %}\
        {{ raise_exception('system first') }}{% elif not loop.first and m.role == loop.previtem.role %}\
        {{ raise_exception('no neighbours') }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}";

    #[test]
    fn turns_that_a_template_refuses_are_folded() {
        let cases = [
            (chat(&[("system", "a"), ("system", "b"), ("user", "c")]), "[system]a\n\nb[user]c"),
            (chat(&[("user", "a"), ("system", "b"), ("user", "c")]), "[user]a\n\nb\n\nc"),
            (chat(&[("user", "a"), ("assistant", "b"), ("system", "c")]), "[user]a[assistant]b[user]c"),
            (chat(&[("user", "a"), ("assistant", "b"), ("assistant", "c")]), "[user]a[assistant]b\n\nc"),
            (chat(&[("system", "a"), ("user", "b")]), "[system]a[user]b"),
        ];
        for (messages, want) in cases {
            assert_eq!(rendered(STRICT, &messages).as_deref(), Ok(want));
        }
        let none = "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception(m.role) }}\
            {% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}";
        assert_eq!(rendered(none, &chat(&[("system", "a"), ("user", "b")])).as_deref(), Ok("[user]a\n\nb"));
        let call = ToolCall { name: "f".into(), arguments: serde_json::json!({"a": 1}), ..ToolCall::default() };
        let called = Message { role: "assistant".into(), tool_calls: vec![call], ..Message::default() };
        let result = Message { tool_name: Some("f".into()), ..Message::new("tool", "2") };
        let all = [Message::new("user", "x"), called, result];
        assert_eq!(rendered(none, &all).as_deref(), Ok("[user]x[assistant]Call of f: {\"a\": 1}[user]Result of f: 2"));
        // What it accepts stays as it is, and what it refuses in every form is told by its own sentence.
        let lax = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";
        let two = chat(&[("user", "a"), ("user", "b")]);
        assert_eq!(rendered(lax, &two).as_deref(), Ok("[user]a[user]b"));
        let never = "{{ raise_exception('not ' ~ messages|length) }}";
        assert_eq!(rendered(never, &two), Err("chat template: not 2".into()));
    }

    #[test]
    fn an_absent_content_is_never_the_word_none() {
        let call = ToolCall { name: "f".into(), arguments: serde_json::json!({}), ..ToolCall::default() };
        let called = Message { role: "assistant".into(), tool_calls: vec![call], ..Message::default() };
        let all = [Message::new("user", "None"), called];
        let plain = "{% for m in messages %}[{{ m.content }}]{% endfor %}";
        assert_eq!(rendered(plain, &all).as_deref(), Ok("[None][]"));
        let asks = "{% for m in messages %}{% if m.content is none %}[{{ m.tool_calls[0].function.name }}]{% endif %}{% endfor %}";
        assert_eq!(rendered(asks, &all).as_deref(), Ok("[f]"));
    }
}
