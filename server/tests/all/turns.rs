//! Turns of chat: the server gives what the engine's own loop and a session give.

use ir_server::job::{Chat, Event, Job, ModelRef, Prompt, Reason, SamplingChanges, Think};

include!("../../../engine/tests/all/common/turns.inc");

#[test]
fn the_server_gives_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = std::env::temp_dir().join(format!("ir-server-turns-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let named = [("own", None), ("tags", Some(TAGS)), ("open", Some(OPEN))].map(|(name, template)| {
        let path = folder.join(format!("{name}.gguf"));
        std::fs::write(&path, model_bytes(template)).unwrap();
        (name.to_owned(), path)
    });
    let _within = runtime.enter();
    let hub = crate::common::serving(named.to_vec());
    all_alike(|conversation| {
        let model = match conversation.template {
            None => "own",
            Some(TAGS) => "tags",
            Some(_) => "open",
        };
        let chat = Chat {
            messages: conversation.messages(),
            tools: conversation.tools.clone(),
            parallel_calls: true,
            ..Chat::default()
        };
        let (temperature, seed) = conversation.sampling;
        let job = Job {
            model: ModelRef { name: model.into(), ..ModelRef::default() },
            prompt: Prompt::Chat(Box::new(chat)),
            n: 1,
            max_tokens: Some(conversation.max_tokens),
            sampling: SamplingChanges {
                temperature: Some(temperature),
                seed: Some(seed),
                ..SamplingChanges::default()
            },
            stop: conversation.stops(),
            grammar: conversation.grammar(),
            think: conversation.think.map_or(Think::Default, |think| if think { Think::On } else { Think::Off }),
            ..Job::default()
        };
        runtime.block_on(async {
            let (mut running, mut heard) = (hub.run(job).await.unwrap(), Heard::default());
            while let Some(output) = running.next().await {
                match output.event {
                    Event::Delta(delta) => heard.take(delta.parts),
                    Event::Done(done) => {
                        heard.stop = done.stop_string;
                        heard.reason = match done.reason {
                            Reason::Stop => "stop",
                            Reason::Length => "length",
                            Reason::ToolCalls => "tool_calls",
                        };
                    }
                    Event::Failed(error) => panic!("{}: {error}", conversation.name),
                }
            }
            heard
        })
    });
    std::fs::remove_dir_all(&folder).unwrap();
}
