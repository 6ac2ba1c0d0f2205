//! What a model's cache takes, for people and as JSON.

use std::fmt::Write as _;

use ir_engine::plan::{CacheGroup, CacheLayout, PAGE};
use serde_json::{Value as Json, json};

use super::{grouped, human_bytes};

/// What a conversation takes of the cache.
pub(super) fn text(layout: &CacheLayout, context: usize) -> String {
    let mut text = format!("{} bytes per token ({})", grouped(layout.bytes_per_token()), layout.kind.name());
    for (group, window) in layout.groups.iter().filter_map(|group| Some((group, group.window?))) {
        let bytes = human_bytes(group.page_bytes * group.window_pages().unwrap_or(0) as u64);
        let _ = write!(text, ", {bytes} for a window of {} in {} layers", grouped(window.into()), group.n_layers);
    }
    if layout.state_bytes > 0 {
        let _ = write!(text, ", two states of {}", human_bytes(layout.state_bytes));
    }
    let whole = human_bytes(layout.sequence_bytes(context, 1));
    let _ = write!(text, "; {whole} held for a whole context; what is left of the budget is evictable");
    text
}

/// The same as JSON.
pub(super) fn json(layout: &CacheLayout, context: usize) -> Json {
    let group = |group: &CacheGroup| {
        json!({ "window": group.window, "layers": group.n_layers, "bytes_per_token": group.page_bytes / PAGE as u64,
            "window_bytes": group.window_pages().map(|pages| pages as u64 * group.page_bytes) })
    };
    json!({ "groups": layout.groups.iter().map(group).collect::<Vec<_>>(), "state_bytes": layout.state_bytes,
        "sequence_bytes": layout.sequence_bytes(context, 1) })
}
