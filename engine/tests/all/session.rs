//! Sessions with the built-in model: turns, the cache between them, stopping, saving and bringing back.

use std::sync::Arc;

use ir_engine::cpu::{Cpu, CpuOptions};
use ir_engine::device::Device;
use ir_engine::model::{Model, ModelOptions};
use ir_engine::run::{Engine, EngineOptions, FinishReason, Part, Sampling, Session, prompt_ids, wait};
use ir_engine::text::chat::Message;

fn session() -> Session {
    let model = Model::from_bytes(ir_engine::builtin::bytes(), &ModelOptions::default()).unwrap();
    let device = Device::Cpu(Arc::new(Cpu::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap()));
    let options = EngineOptions { max_sequences: 1, ..EngineOptions::default() };
    let mut session = Session::new(Engine::new(Arc::new(model), &device, &options).unwrap(), Box::new(|| 0.0));
    session.options.sampling = Sampling::greedy();
    session
}

/// The text of parts that are nothing else.
fn said(parts: Vec<Part>) -> String {
    let text = |part| if let Part::Text(text) = part { text } else { panic!("{part:?}") };
    parts.into_iter().map(text).collect()
}

fn answer(session: &mut Session) -> String {
    session.start().unwrap();
    let mut text = String::new();
    while let Some(parts) = wait(session.next()).unwrap() {
        text.push_str(&said(parts));
    }
    text
}

fn ask(session: &mut Session, text: &str) -> String {
    session.say(Message::new("user", text));
    answer(session)
}

#[test]
fn turns_find_their_past_in_the_cache() {
    let mut session = session();
    let first = ask(&mut session, "Tell me a story about a fox and a drum");
    assert!(first.contains("fox") && first.contains("drum"), "{first}");
    assert_eq!(session.usage().unwrap().0, FinishReason::Stop(None));
    let n_past = session.tokens().len();
    let second = ask(&mut session, "Thank you!");
    let (_, usage) = session.usage().unwrap();
    assert!(usage.cached_tokens + 16 >= n_past, "{} of {n_past} tokens were found", usage.cached_tokens);
    let said: Vec<_> = session.messages().iter().map(|m| (m.role.as_str(), m.content.as_deref().unwrap())).collect();
    let (tell, thanks) = ("Tell me a story about a fox and a drum", "Thank you!");
    let expected = [("user", tell), ("assistant", &first), ("user", thanks), ("assistant", &second)];
    assert_eq!(said, expected);

    session.reset();
    assert!(session.messages().is_empty() && session.tokens().is_empty() && session.usage().is_none());
    assert_eq!(ask(&mut session, tell), first, "the same again, whatever the cache holds");
}

#[test]
fn a_stopped_answer_stays_as_far_as_it_went() {
    let mut session = session();
    let whole = ask(&mut session, "Tell me a story about a fox and a drum");
    session.reset();
    session.say(Message::new("user", "Tell me a story about a fox and a drum"));
    session.start().unwrap();
    let mut part = String::new();
    while part.len() < 20 {
        part.push_str(&said(wait(session.next()).unwrap().unwrap()));
    }
    session.stop();
    assert_eq!(session.usage().unwrap().0, FinishReason::Cancelled);
    assert!(whole.starts_with(&part) && part.len() < whole.len());
    assert_eq!(session.messages()[1].content.as_deref(), Some(part.as_str()));
    assert!(wait(session.next()).unwrap().is_none(), "nothing comes after");
    ask(&mut session, "Thank you!");
    assert_eq!(session.messages().len(), 4);
}

#[test]
fn plain_text_is_continued_in_turns() {
    let mut session = session();
    session.options.max_tokens = Some(12);
    session.extend("In a village there lived");
    let bos = session.engine().model().tokenizer().bos();
    let more = answer(&mut session);
    assert!(!more.is_empty() && session.messages().is_empty());
    session.extend(" One day");
    answer(&mut session);
    let tokenizer = session.engine().model().tokenizer();
    let text = tokenizer.decode(session.tokens(), false);
    assert!(text.starts_with(&format!("In a village there lived{more} One day")), "{text}");
    if tokenizer.add_bos() {
        assert_eq!(session.tokens().iter().filter(|t| Some(**t) == bos).count(), 1);
        let (plain, with_bos) =
            (prompt_ids(tokenizer, "a"), prompt_ids(tokenizer, &format!("{}a", tokenizer.piece(bos.unwrap()))));
        assert_eq!(plain, with_bos, "one BOS, whether or not the text has it");
    }
}

#[test]
fn a_conversation_is_saved_and_brought_back() {
    let mut one = session();
    ask(&mut one, "My name is Mia.");
    let saved = one.save().unwrap();
    let mut other = session();
    other.restore(&saved).unwrap();
    assert_eq!((other.messages(), other.tokens()), (one.messages(), one.tokens()));
    assert_eq!(ask(&mut other, "What is my name?"), ask(&mut one, "What is my name?"));

    // Whatever is no session is refused, and what was there stays.
    let kept = one.messages().to_vec();
    let text = String::from_utf8(saved.clone()).unwrap();
    let vocabulary = text.split("\"vocabulary\":\"").nth(1).unwrap()[..16].to_owned();
    let bad = [
        String::new(),
        "[".repeat(100_000),
        text[..text.len() / 2].to_owned(),
        text.replace("ir-session", "other"),
        text.replace("\"version\":1", "\"version\":2"),
        text.replace(&vocabulary, "0000000000000000"),
        text.replace("\"tokens\":[", "\"tokens\":[4294967295,"),
        text.replace("\"tokens\":[", "\"tokens\":[-1,"),
        text.replace("\"role\":\"user\"", "\"role\":7"),
    ];
    for bytes in bad {
        let error = one.restore(bytes.as_bytes()).unwrap_err().to_string();
        assert!(!error.contains('\n') && error.len() < 300, "{error}");
        assert_eq!(one.messages(), kept);
    }
    // Every cut and a thousand random changes: an error or a session, never a panic.
    for n in 0..saved.len() {
        assert!(one.restore(&saved[..n]).is_err());
    }
    let mut state = 1u64;
    for _ in 0..1000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut bytes = saved.clone();
        let at = (state >> 33) as usize % bytes.len();
        bytes[at] = (state >> 24) as u8;
        let _ = one.restore(&bytes);
    }
}

#[test]
fn what_cannot_be_started_is_refused_and_can_be_taken_back() {
    let mut session = session();
    assert!(session.start().unwrap_err().to_string().contains("empty"));
    session.say(Message::new("user", "word ".repeat(100_000)));
    assert!(session.start().unwrap_err().to_string().contains("context"));
    session.unsay();
    assert_eq!(session.messages().len(), 0);
    assert!(!ask(&mut session, "Hello!").is_empty());
    session.options.sampling.temperature = f32::NAN;
    session.say(Message::new("user", "Hello!"));
    assert!(session.start().unwrap_err().to_string().contains("temperature"));
}
