//! What a model's Modelfile says, put into a job: under what the client says, over what the model's file recommends.

use ir_engine::text::chat::Message;
use ir_store::Recipe;

use super::job::{Chat, Job, Prompt};
use super::sampling::{SamplingChanges, kept, looked_at};

/// Puts a model's recipe into a job.
pub(crate) fn apply(recipe: &Recipe, job: &mut Job) {
    if job.model.load.context.is_none() {
        job.model.load.context = recipe.context();
    }
    job.sampling = job.sampling.clone().over(sampling(recipe));
    job.max_tokens = job.max_tokens.or_else(|| recipe.count("num_predict"));
    if job.stop.is_empty() {
        job.stop = recipe.stop();
    }
    // An exchange that goes on has begun with them already.
    if let Prompt::Chat(chat) = &mut job.prompt {
        texts(recipe, chat);
    }
}

/// Puts a model's system prompt and first messages before a chat, as Ollama does: a client's own system prompt stands
/// instead of the model's.
pub(crate) fn texts(recipe: &Recipe, chat: &mut Chat) {
    if !recipe.has_texts() {
        return;
    }
    let first = recipe.messages.iter().map(|(role, text)| Message::new(role, text));
    let given = chat.messages.first().is_some_and(|m| m.role == "system");
    // Behind the client's system prompt, which is to come first.
    let at = usize::from(given);
    chat.messages.splice(at..at, first);
    if let Some(system) = recipe.system.as_deref().filter(|_| !given) {
        chat.messages.insert(0, Message::new("system", system));
    }
}

fn sampling(recipe: &Recipe) -> SamplingChanges {
    let float = |name: &str| recipe.number(name).map(|n| n as f32);
    let whole = |name: &str| recipe.number(name).map(|n| n as i64);
    SamplingChanges {
        temperature: float("temperature"),
        top_k: whole("top_k").map(kept),
        top_p: float("top_p"),
        min_p: float("min_p"),
        typical_p: float("typical_p"),
        repeat_penalty: float("repeat_penalty"),
        presence_penalty: float("presence_penalty"),
        frequency_penalty: float("frequency_penalty"),
        repeat_last_n: whole("repeat_last_n").map(looked_at),
        seed: recipe.seed(),
        logit_bias: Vec::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use serde_json::json;

    fn recipe() -> Recipe {
        let parameters =
            json!({"temperature": 0.5, "top_k": 7, "num_ctx": 64, "num_predict": 9, "stop": ["END"], "seed": 3});
        Recipe {
            system: Some("Be short.".into()),
            parameters: parameters.as_object().unwrap().clone(),
            messages: vec![("user".into(), "a".into()), ("assistant".into(), "b".into())],
            ..Recipe::default()
        }
    }

    #[test]
    fn the_client_goes_over_the_recipe() {
        let mut job = Job::default();
        apply(&recipe(), &mut job);
        assert_eq!((job.sampling.temperature, job.sampling.top_k, job.sampling.seed), (Some(0.5), Some(7), Some(3)));
        assert_eq!((job.model.load.context, job.max_tokens, job.stop), (Some(64), Some(9), vec!["END".to_owned()]));
        let mut job = Job { max_tokens: Some(2), stop: vec!["x".into()], ..Job::default() };
        (job.sampling.top_k, job.model.load.context) = (Some(1), Some(32));
        apply(&recipe(), &mut job);
        assert_eq!((job.sampling.top_k, job.model.load.context, job.max_tokens), (Some(1), Some(32), Some(2)));
        assert_eq!(job.stop, ["x"]);
    }

    #[test]
    fn a_chat_begins_with_the_recipes_texts_once() {
        let told = |messages: Vec<Message>| {
            let mut job =
                Job { prompt: Prompt::Chat(Box::new(Chat { messages, ..Chat::default() })), ..Job::default() };
            apply(&recipe(), &mut job);
            let Prompt::Chat(chat) = job.prompt else { panic!() };
            chat.messages.iter().map(|m| m.content.clone().unwrap_or_default()).collect::<Vec<_>>()
        };
        assert_eq!(told(vec![Message::new("user", "c")]), ["Be short.", "a", "b", "c"]);
        let own = vec![Message::new("system", "Be long."), Message::new("user", "c")];
        assert_eq!(told(own), ["Be long.", "a", "b", "c"]);
    }
}
