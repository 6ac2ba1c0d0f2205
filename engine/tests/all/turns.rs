//! Turns of chat: what the engine's own loop gives is what was asked for, and a session gives the same.

use ir_engine::run::{Session, wait};

include!("common/turns.inc");

#[test]
fn answers_that_are_given_are_read_as_they_are() {
    let all: Vec<(Conversation, Heard)> =
        conversations().into_iter().map(|c| (c.reference(), c)).map(|(h, c)| (c, h)).collect();
    let heard = |name: &str| all.iter().find(|(c, _)| c.name == name).map(|(_, h)| h.clone()).unwrap();
    assert_eq!((heard("stop").stop.as_deref(), heard("stops").stop.as_deref()), (Some("two"), Some("two t")));
    assert_eq!((heard("format").stop, heard("format").reason, heard("one token").reason), (None, "stop", "length"));
    let call = |name: &str| heard(name).calls.iter().map(|(_, name, a)| format!("{name}{a}")).collect::<Vec<_>>();
    assert_eq!(call("call"), ["add{\"a\":1}"]);
    assert_eq!((call("two calls").len(), call("no call").len(), call("reasoning, call").len()), (2, 0, 1));
    assert!(heard("no call").text.contains("<tool_call>") && heard("no call").reason == "stop");
    assert_eq!((heard("call").reason, heard("reasoning, call").thinking.as_str()), ("tool_calls", "hm"));
    assert_eq!((heard("reasoning").thinking.as_str(), heard("reasoning alone").thinking.as_str()), ("hm", "hm"));
    assert_eq!(
        (heard("reasoning, stop").thinking.as_str(), heard("reasoning, stop").stop.as_deref()),
        ("hm y", Some("es"))
    );
    for name in ["open reasoning", "open, format"] {
        assert!(!heard(name).thinking.is_empty() && heard(name).reason == "length", "{name}: {:?}", heard(name));
    }
    assert!(heard("greedy").text != heard("seeded").text);
}

#[test]
fn a_session_gives_the_same() {
    all_alike(|conversation| {
        let mut session = Session::new(engine(conversation.template), Box::new(|| 0.0));
        let model = std::sync::Arc::clone(session.engine().model());
        session.options.sampling = conversation.sampling(&model);
        session.options.constraint = conversation.constraint(&model);
        session.options.max_tokens = Some(conversation.max_tokens);
        (session.options.stop, session.options.think) = (conversation.stops(), conversation.think);
        session.options.tools.clone_from(&conversation.tools);
        conversation.messages().into_iter().for_each(|message| session.say(message));
        session.start().unwrap();
        let mut heard = Heard::default();
        while let Some(parts) = wait(session.next()).unwrap() {
            heard.take(parts);
        }
        heard.end(session.usage().unwrap().0, &conversation.stops());
        let last = session.messages().last().unwrap();
        assert!(last.role == "assistant" && last.content.as_deref().unwrap().ends_with(&heard.text));
        heard
    });
}
