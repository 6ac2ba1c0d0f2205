//! Answers held to schemas and to tool calls, through the server, on ir-tiny.

use crate::common::TestServer;
use ir_engine::text::chat::Message;
use ir_server::job::{Chat, Grammar, Job, ModelRef, Prompt, Reason, SamplingChanges, ToolChoice};
use serde_json::{Value as Json, json};

fn schema() -> Json {
    json!({"type": "object", "required": ["animal", "legs"], "properties": {
        "animal": {"enum": ["fox", "hen", "bear"]}, "legs": {"type": "integer", "minimum": 2, "maximum": 4}}})
}

fn fits(text: &str) -> bool {
    let value: Json = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let animal = ["fox", "hen", "bear"].contains(&value["animal"].as_str().unwrap());
    animal && (2..=4).contains(&value["legs"].as_i64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_holds_whole_and_streamed_chats_and_prompts() {
    let server = TestServer::tiny();
    let options = json!({"temperature": 1.5, "seed": 7, "num_predict": 200});
    let message = json!({"role": "user", "content": "Which animal do you like?"});
    let chat = |stream: bool| {
        let mut body = json!({"model": "ir-tiny", "messages": [message.clone()], "options": options.clone()});
        (body["format"], body["stream"]) = (schema(), stream.into());
        body
    };
    let (status, whole) = server.ask("/api/chat", chat(false)).await;
    assert_eq!(status, 200, "{whole}");
    let text = whole["message"]["content"].as_str().unwrap();
    assert!(fits(text), "{text}");
    let lines = server.lines("/api/chat", chat(true)).await;
    let streamed: String = lines.iter().map(|l| l["message"]["content"].as_str().unwrap()).collect();
    assert_eq!(streamed, text);
    let body = json!({"model": "ir-tiny", "prompt": "An object:", "format": "json", "raw": true, "stream": false,
        "options": {"temperature": 0, "num_predict": 300}});
    let (_, answer) = server.ask("/api/generate", body).await;
    if answer["done_reason"] == "stop" {
        let text = answer["response"].as_str().unwrap();
        assert!(serde_json::from_str::<Json>(text).unwrap().is_object(), "{text}");
    } else {
        assert!(answer["response"].as_str().unwrap().trim_start().starts_with('{'), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_formats_are_refused_by_name() {
    let server = TestServer::tiny();
    let wrong = [json!("yaml"), json!(7), json!({"type": "object", "properties": 3}), json!({"type": "nothing"})];
    for format in wrong {
        let body = json!({"model": "ir-tiny", "prompt": "x", "format": format});
        let (status, answer) = server.ask("/api/generate", body).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains("format"), "{answer}");
    }
    // What no grammar can hold to is passed over, as in Ollama.
    let mut loose = schema();
    loose["properties"]["legs"]["not"] = json!({"const": 3});
    let body = json!({"model": "ir-tiny", "prompt": "x", "format": loose, "stream": false});
    let (status, answer) = server.ask("/api/generate", body).await;
    assert!(status == 200 && fits(answer["response"].as_str().unwrap()), "{answer}");
}

fn tools() -> Vec<Json> {
    let tool = |name: &str, key: &str| {
        let parameters =
            json!({"type": "object", "required": [key], "properties": {key: {"type": "string", "maxLength": 8}}});
        json!({"type": "function", "function": {"name": name, "description": "x", "parameters": parameters}})
    };
    vec![tool("get_weather", "city"), tool("find_book", "title")]
}

fn job(tool_choice: ToolChoice, seed: u64) -> Job {
    let messages = vec![Message::new("user", "Tell me a story about a fox and a drum")];
    let chat = Chat { messages, tools: tools(), tool_choice, parallel_calls: true, ..Chat::default() };
    let sampling = SamplingChanges { temperature: Some(1.0), seed: Some(seed), ..SamplingChanges::default() };
    let model = ModelRef { name: "ir-tiny".into(), ..ModelRef::default() };
    Job { model, prompt: Prompt::Chat(Box::new(chat)), n: 1, max_tokens: Some(400), sampling, ..Job::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_demanded_are_made() {
    let hub = TestServer::tiny().hub;
    for seed in 0..4 {
        let answer = hub.run(job(ToolChoice::Named("find_book".into()), seed)).await.unwrap();
        let answer = answer.collect().await.unwrap().remove(0);
        assert_eq!((answer.done.reason, answer.text.as_str()), (Reason::ToolCalls, ""), "{answer:?}");
        for call in &answer.calls {
            assert_eq!(call.name, "find_book");
            assert!(call.arguments["title"].is_string(), "{call:?}");
        }
        let answer = hub.run(job(ToolChoice::Required, seed)).await.unwrap().collect().await.unwrap().remove(0);
        assert!(!answer.calls.is_empty() && answer.text.is_empty(), "{answer:?}");
    }
    let mut single = job(ToolChoice::Required, 1);
    let Prompt::Chat(chat) = &mut single.prompt else { unreachable!() };
    chat.parallel_calls = false;
    assert_eq!(hub.run(single).await.unwrap().collect().await.unwrap()[0].calls.len(), 1);
    let error = hub.run(job(ToolChoice::Named("nope".into()), 0)).await.unwrap_err();
    assert_eq!((error.kind, error.param.as_deref()), (ir_server::Kind::Invalid, Some("tool_choice")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_choice_of_a_job_is_held() {
    let hub = TestServer::tiny().hub;
    let mut job = job(ToolChoice::None, 3);
    (job.n, job.grammar) = (5, Some(Grammar::Regex("(yes|no){2,3}".into())));
    let answers = hub.run(job).await.unwrap().collect().await.unwrap();
    assert_eq!(answers.len(), 5);
    for answer in &answers {
        assert!(answer.text.replace("yes", "").replace("no", "").is_empty() && answer.text.len() >= 4, "{answer:?}");
    }
}
