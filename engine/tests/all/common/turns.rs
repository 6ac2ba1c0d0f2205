//! Conversations that the command, the server and the page read alike.
// Conversations whose answers the command's session, the server and the page must give alike, with the events that the
// engine's own loop gives. Included by a test of each.

/// A conversation and how its answer is asked for.
struct Conversation {
    name: &'static str,
    /// A template instead of the model's.
    template: Option<&'static str>,
    messages: serde_json::Value,
    tools: Vec<serde_json::Value>,
    think: Option<bool>,
    /// What the answer must match: where all of it is given, what the model writes is known.
    regex: Option<&'static str>,
    stop: Vec<&'static str>,
    max_tokens: usize,
    /// Temperature and seed.
    sampling: (f32, u64),
    /// The answer's text, where it is given by the regex.
    text: Option<&'static str>,
}

/// What was heard of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
struct Heard {
    thinking: String,
    text: String,
    /// Identifier, name and arguments of each call.
    calls: Vec<(String, String, String)>,
    reason: &'static str,
    stop: Option<String>,
}

/// Reasoning in tags that the model writes; calls as Hermes has them.
const TAGS: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}{{ tools or '' }}\
    {% if add_generation_prompt %}[assistant]{% endif %}{# </think> <tool_call> #}";
/// Reasoning that the prompt opens.
const OPEN: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}\
    {% if add_generation_prompt %}[assistant]<think>\n{% endif %}{# </think> <tool_call> #}";
const CALL: &str = "<tool_call>\\{\"name\": \"add\", \"arguments\": \\{\"a\": 1\\}\\}</tool_call>";
const TWO_CALLS: &str = "<tool_call>\\{\"name\": \"add\", \"arguments\": \\{\"a\": 1\\}\\}</tool_call>\
    <tool_call>\\{\"name\": \"add\", \"arguments\": \\{\"a\": 2\\}\\}</tool_call>";

fn conversations() -> Vec<Conversation> {
    use serde_json::json;
    let hi = || json!([{"role": "user", "content": "Tell me about a fox."}]);
    let add = || {
        let parameters = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        vec![json!({"type": "function", "function": {"name": "add", "parameters": parameters}})]
    };
    let call = json!({"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{\"a\": 1}"}});
    let with_result = json!([
        {"role": "user", "content": "1?"}, {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "2"}]);
    let of = |name| Conversation {
        name,
        template: None,
        messages: hi(),
        tools: Vec::new(),
        think: None,
        regex: None,
        stop: Vec::new(),
        max_tokens: 64,
        sampling: (0.0, 1),
        text: None,
    };
    let tagged = |name, regex, text| Conversation {
        template: Some(TAGS),
        think: Some(false),
        regex: Some(regex),
        text: Some(text),
        ..of(name)
    };
    let turns = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Who are you?"}]);
    let begun = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Once upon"}]);
    vec![
        Conversation { max_tokens: 12, ..of("greedy") },
        Conversation { max_tokens: 12, sampling: (1.0, 7), ..of("seeded") },
        Conversation { max_tokens: 12, messages: turns, ..of("turns") },
        Conversation { max_tokens: 1, ..of("one token") },
        Conversation { max_tokens: 12, messages: begun.clone(), ..of("prefill") },
        Conversation { messages: begun.clone(), regex: Some(" a time"), text: Some(" a time"), ..of("prefill, format") },
        Conversation { regex: Some("one two three"), text: Some("one two three"), ..of("format") },
        Conversation { regex: Some("[0-9]{3}"), sampling: (1.0, 3), ..of("format, seeded") },
        Conversation { regex: Some("one two three"), stop: vec!["two"], text: Some("one "), ..of("stop") },
        Conversation { regex: Some("one two three"), stop: vec!["x", "wo t", "two t"], text: Some("one "), ..of("stops") },
        Conversation { regex: Some("aéb"), stop: vec!["éb"], text: Some("a"), ..of("stop, characters") },
        Conversation { tools: add(), regex: Some(CALL), text: Some(""), ..of("call") },
        Conversation { tools: add(), regex: Some(TWO_CALLS), text: Some(""), ..of("two calls") },
        Conversation { tools: add(), regex: Some("<tool_call>\\{\"name\": 5\\}</tool_call>"), ..of("no call") },
        Conversation { max_tokens: 8, messages: with_result, tools: add(), ..of("result") },
        tagged("reasoning", "<think>hm</think>\n\nyes", "yes"),
        tagged("reasoning alone", "<think>hm", ""),
        Conversation { stop: vec!["es"], ..tagged("reasoning, stop", "<think>hm yes no</think>yes", "") },
        Conversation { tools: add(), ..tagged("reasoning, call", "<think>hm</think><tool_call>\\{\"name\": \"add\", \
            \"arguments\": \\{\\}\\}</tool_call>", "") },
        Conversation { template: Some(OPEN), max_tokens: 10, text: Some(""), ..of("open reasoning") },
        Conversation { template: Some(OPEN), max_tokens: 10, messages: begun, ..of("open reasoning, prefill") },
        Conversation { template: Some(OPEN), max_tokens: 10, regex: Some("yes"), text: Some(""), ..of("open, format") },
    ]
}

/// ir-tiny with another template: its bytes with the template replaced by one of the same length.
fn model_bytes(template: Option<&str>) -> Vec<u8> {
    let mut bytes = ir_engine::builtin::bytes().to_vec();
    let Some(template) = template else { return bytes };
    let model = tiny(bytes.clone());
    let old = model.meta().opt_str("tokenizer.chat_template").unwrap().unwrap().to_owned();
    let room = old.len() - template.len() - 4;
    let new = format!("{template}{{#{}#}}", " ".repeat(room));
    let at = bytes.windows(old.len()).position(|w| w == old.as_bytes()).unwrap();
    bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
    bytes
}

fn tiny(bytes: Vec<u8>) -> ir_engine::model::Model {
    let bytes = ir_engine::bytes::Bytes::from(bytes);
    ir_engine::model::Model::from_bytes(bytes, &ir_engine::model::ModelOptions::default()).unwrap()
}

fn engine(template: Option<&str>) -> ir_engine::run::Engine {
    use std::sync::Arc;
    let options = ir_engine::cpu::CpuOptions { threads: Some(1), ..Default::default() };
    let device = ir_engine::device::Device::Cpu(Arc::new(ir_engine::cpu::Cpu::new(&options).unwrap()));
    let options = ir_engine::run::EngineOptions { kv_budget: 16 << 20, ..Default::default() };
    ir_engine::run::Engine::new(Arc::new(tiny(model_bytes(template))), &device, &options).unwrap()
}

impl Conversation {
    fn messages(&self) -> Vec<ir_engine::text::chat::Message> {
        serde_json::from_value(self.messages.clone()).unwrap()
    }

    fn stops(&self) -> Vec<String> {
        self.stop.iter().map(|s| (*s).to_owned()).collect()
    }

    fn grammar(&self) -> Option<ir_engine::text::constrain::Grammar> {
        self.regex.map(|regex| ir_engine::text::constrain::Grammar::Regex(regex.into()))
    }

    fn constraint(&self, model: &ir_engine::model::Model) -> Option<ir_engine::text::constrain::Constraint> {
        use ir_engine::text::constrain::{Constrainer, Vocabulary};
        let grammar = self.grammar()?;
        Some(Constrainer::new(&Vocabulary::of(model.tokenizer())).unwrap().compile(&grammar).unwrap())
    }

    /// The sampling as the file recommends it, with this conversation's temperature and seed.
    fn sampling(&self, model: &ir_engine::model::Model) -> ir_engine::run::Sampling {
        let (temperature, seed) = self.sampling;
        ir_engine::run::Sampling { temperature, seed, ..ir_engine::run::Sampling::from_meta(model.meta()) }
    }

    /// What the engine's own loop gives.
    fn reference(&self) -> Heard {
        use ir_engine::run::{ChatInput, ChatTurn, Event, Request, wait};
        let mut engine = engine(self.template);
        let model = std::sync::Arc::clone(engine.model());
        let (messages, seed) = (self.messages(), self.sampling.1);
        let input =
            ChatInput { messages: &messages, tools: &self.tools, think: self.think, seed, ..ChatInput::default() };
        let turn = ChatTurn::new(&model, &input).unwrap();
        let request = Request {
            max_tokens: Some(self.max_tokens),
            sampling: self.sampling(&model),
            stop: self.stops(),
            ..turn.request(model.tokenizer(), self.constraint(&model))
        };
        engine.add(request, 0.0).unwrap();
        let (mut reader, mut heard) = (turn.reader(), Heard::default());
        loop {
            for event in wait(engine.step(&|| 0.0)).unwrap() {
                let mut parts = Vec::new();
                match event {
                    Event::Token { text, .. } => reader.push(&text, &mut parts),
                    Event::Done { reason, .. } => {
                        reader.finish(&mut parts);
                        heard.take(parts);
                        heard.end(reason, &self.stops());
                        return heard;
                    }
                    other => panic!("{}: {other:?}", self.name),
                }
                heard.take(parts);
            }
        }
    }
}

impl Heard {
    fn take(&mut self, parts: Vec<ir_engine::run::Part>) {
        use ir_engine::run::Part;
        for part in parts {
            match part {
                Part::Text(text) => self.text.push_str(&text),
                Part::Thinking(text) => self.thinking.push_str(&text),
                Part::CallEnd { call, .. } => {
                    self.calls.push((call.id.unwrap_or_default(), call.name, call.arguments.to_string()));
                }
                Part::CallStart { .. } | Part::CallArguments { .. } | Part::CallBroken { .. } => {}
            }
        }
    }

    fn end(&mut self, reason: ir_engine::run::Finish, stops: &[String]) {
        self.reason = if matches!(reason, ir_engine::run::Finish::Stop(_)) && !self.calls.is_empty() {
            "tool_calls"
        } else {
            reason.name()
        };
        if let ir_engine::run::Finish::Stop(Some(place)) = reason {
            self.stop = Some(stops[place].clone());
        }
    }
}

/// Every conversation, as `hear` hears it, is what the engine's own loop gives.
fn all_alike(hear: impl Fn(&Conversation) -> Heard) {
    let all = conversations();
    assert!(all.len() >= 20);
    for conversation in all {
        let heard = hear(&conversation);
        assert_eq!(heard, conversation.reference(), "{}", conversation.name);
        assert!(conversation.text.is_none_or(|text| text == heard.text), "{}: {heard:?}", conversation.name);
    }
}
