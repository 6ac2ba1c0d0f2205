//! A model's recipe put into a session: its parameters and its first messages.

use ir_engine::run::{Session, SessionOptions};
use ir_engine::text::chat::Message;
use ir_store::Recipe;

/// What to say if a model's texts find no place.
pub(crate) const NO_TEMPLATE: &str = "The model's file has no chat template that is known here, so its system prompt and \
    messages are left out, and the prompt is continued as it is.";

/// Puts a recipe's parameters in place of the file's recommendations.
pub(crate) fn set(recipe: &Recipe, options: &mut SessionOptions) {
    let sampling = &mut options.sampling;
    for (name, place) in [
        ("temperature", &mut sampling.temperature),
        ("top_p", &mut sampling.top_p),
        ("min_p", &mut sampling.min_p),
        ("typical_p", &mut sampling.typical_p),
        ("repeat_penalty", &mut sampling.repeat_penalty),
        ("presence_penalty", &mut sampling.presence_penalty),
        ("frequency_penalty", &mut sampling.frequency_penalty),
    ] {
        *place = recipe.number(name).map_or(*place, |n| n as f32);
    }
    sampling.top_k = recipe.count("top_k").unwrap_or(sampling.top_k);
    sampling.repeat_last_n = recipe.count("repeat_last_n").unwrap_or(sampling.repeat_last_n);
    sampling.seed = recipe.seed().unwrap_or(sampling.seed);
    options.max_tokens = recipe.count("num_predict").or(options.max_tokens);
    options.stop.extend(recipe.stop());
}

/// Says a recipe's first messages, behind the system prompt (`instead`, if that is given).
pub(crate) fn examples(recipe: &Recipe, session: &mut Session, instead: Option<&str>) {
    if recipe.messages.is_empty() {
        return;
    }
    if let Some(system) = instead.or(recipe.system.as_deref()) {
        session.say(Message::new("system", system));
    }
    for (role, text) in &recipe.messages {
        session.say(Message::new(role, text));
    }
}
