//! [`ResponseStore`]: responses that clients go on from or ask for again, in memory. It holds so many bytes and no more:
//! those that nobody has asked for longest are forgotten first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use serde::Deserialize;

use super::input::{Items, id_of};
use crate::api::common::body::parse;
use crate::engine::error::{ApiError, cut};
use crate::engine::output_queue::lock;

/// Bytes of all responses together, at most.
const MAX_BYTES: usize = 64 << 20;

/// What a response takes beside its texts: its names, and places in tables.
const EXTRA: usize = 512;

/// The responses.
#[derive(Debug, Default)]
pub(crate) struct ResponseStore(Mutex<Responses>);

#[derive(Debug, Default)]
struct Responses {
    by_id: HashMap<String, Stored>,
    /// From an item's id to its response's.
    items: HashMap<String, String>,
    /// From the time of a response's last use to its id.
    by_use: BTreeMap<u64, String>,
    clock: u64,
    bytes: usize,
}

/// A response as it is kept: texts, whose size is known.
#[derive(Debug)]
struct Stored {
    kept: Arc<Kept>,
    used: u64,
}

/// What is kept of a response.
#[derive(Debug)]
pub(super) struct Kept {
    /// The one it went on from.
    pub(super) previous: Option<String>,
    /// The JSON of the items that were asked.
    pub(super) input: String,
    /// Its own JSON.
    pub(super) response: String,
    /// The ids of its items.
    pub(super) item_ids: Vec<String>,
}

#[derive(Deserialize)]
struct Output {
    output: Items,
}

impl Kept {
    fn size(&self) -> usize {
        let ids: usize = self.item_ids.iter().map(|id| 2 * id.len() + EXTRA / 4).sum();
        self.input.len() + self.response.len() + ids + EXTRA
    }

    fn output(&self) -> Result<Items, ApiError> {
        parse::<Output>(self.response.as_bytes()).map(|o| o.output)
    }
}

fn unknown(what: &str, id: &str) -> ApiError {
    let id = cut(id, 100);
    ApiError::not_found(format!(
        "{what} with id '{id}' not found: it was not stored, or has been forgotten; send the whole conversation as input"
    ))
}

impl ResponseStore {
    /// Keeps a response.
    pub(super) fn put(&self, id: String, kept: Kept) {
        let mut all = lock(&self.0);
        all.clock += 1;
        let (used, size) = (all.clock, kept.size());
        all.bytes += size;
        for item in &kept.item_ids {
            all.items.insert(item.clone(), id.clone());
        }
        all.by_use.insert(used, id.clone());
        all.by_id.insert(id, Stored { kept: Arc::new(kept), used });
        while all.bytes > MAX_BYTES {
            let Some((_, oldest)) = all.by_use.pop_first() else { break };
            all.remove(&oldest);
        }
    }

    /// A response's JSON.
    ///
    /// # Errors
    /// An id that is not known.
    pub(super) fn get(&self, id: &str) -> Result<String, ApiError> {
        let mut all = lock(&self.0);
        all.touch(id);
        all.by_id.get(id).map(|s| s.kept.response.clone()).ok_or_else(|| unknown("Response", id))
    }

    /// The JSON of what a response was asked.
    ///
    /// # Errors
    /// An id that is not known.
    pub(super) fn input(&self, id: &str) -> Result<String, ApiError> {
        lock(&self.0).by_id.get(id).map(|s| s.kept.input.clone()).ok_or_else(|| unknown("Response", id))
    }

    /// Forgets a response.
    ///
    /// # Errors
    /// An id that is not known.
    pub(super) fn delete(&self, id: &str) -> Result<(), ApiError> {
        lock(&self.0).remove(id).map(|_| ()).ok_or_else(|| unknown("Response", id))
    }

    /// All items of a conversation up to a response and with it.
    ///
    /// # Errors
    /// A response that is not known.
    pub(super) fn conversation(&self, id: &str) -> Result<Items, ApiError> {
        let mut chain = Vec::new();
        {
            let mut all = lock(&self.0);
            let mut next = Some(id.to_owned());
            while let Some(id) = next {
                let stored = all.by_id.get(&id).ok_or_else(|| unknown("Previous response", &id))?;
                next = stored.kept.previous.clone();
                chain.push((id, Arc::clone(&stored.kept)));
            }
            chain.reverse();
            chain.iter().for_each(|(id, _)| all.touch(id));
        }
        let mut items = Items::default();
        for (_, kept) in chain {
            items.extend(parse::<Items>(kept.input.as_bytes())?);
            items.extend(kept.output()?);
        }
        Ok(items)
    }

    /// The item of an answer, by its id.
    ///
    /// # Errors
    /// An id that is not known.
    pub(super) fn item(&self, id: &str) -> Result<Items, ApiError> {
        let kept = {
            let mut all = lock(&self.0);
            let response = all.items.get(id).cloned().ok_or_else(|| unknown("Item", id))?;
            all.touch(&response);
            all.by_id.get(&response).map(|s| Arc::clone(&s.kept)).ok_or_else(|| unknown("Item", id))?
        };
        let items = kept.output()?;
        Ok(items.into_iter().filter(|item| id_of(item) == Some(id)).collect())
    }
}

impl Responses {
    fn touch(&mut self, id: &str) {
        let Some(stored) = self.by_id.get_mut(id) else { return };
        self.clock += 1;
        self.by_use.remove(&stored.used);
        stored.used = self.clock;
        self.by_use.insert(self.clock, id.to_owned());
    }

    fn remove(&mut self, id: &str) -> Option<Stored> {
        let stored = self.by_id.remove(id)?;
        self.by_use.remove(&stored.used);
        for item in &stored.kept.item_ids {
            if self.items.get(item).is_some_and(|owner| owner == id) {
                self.items.remove(item);
            }
        }
        self.bytes -= stored.kept.size();
        Some(stored)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use serde_json::json;

    fn kept(previous: Option<&str>, said: &str) -> Kept {
        let item = format!("msg_{said}");
        let input = json!([{"role": "user", "content": format!("ask {said}")}]).to_string();
        let content = json!([{"type": "output_text", "text": said}]);
        let output = json!([{"type": "message", "id": item, "role": "assistant", "content": content}]);
        let response = json!({"output": output}).to_string();
        Kept { previous: previous.map(str::to_owned), input, response, item_ids: vec![item] }
    }

    #[test]
    fn conversations_items_and_responses_are_found_and_forgotten() {
        let store = ResponseStore::default();
        store.put("r1".into(), kept(None, "a"));
        store.put("r2".into(), kept(Some("r1"), "b"));
        assert_eq!(store.conversation("r2").unwrap().len(), 4);
        assert_eq!(store.item("msg_a").unwrap().len(), 1);
        assert!(store.get("r1").unwrap().contains("msg_a") && store.input("r1").unwrap().contains("ask a"));
        store.delete("r1").unwrap();
        for error in [store.conversation("r2").err(), store.item("msg_a").err(), store.get("r1").err()] {
            let error = error.unwrap();
            assert!(error.kind == crate::engine::error::Kind::NotFound, "{error}");
        }
        assert!(store.conversation("r2").unwrap_err().message.contains("'r1'"));
        assert!(store.delete("r1").is_err());
        store.delete("r2").unwrap();
        let all = lock(&store.0);
        assert_eq!((all.bytes, all.items.len(), all.by_use.len()), (0, 0, 0));
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let store = ResponseStore::default();
        let large = "x".repeat(4 << 20);
        for i in 0..40 {
            let mut one = kept(None, &i.to_string());
            one.input = json!([{"role": "user", "content": large}]).to_string();
            store.put(format!("r{i}"), one);
            // The first is asked for all the time.
            store.get("r0").unwrap();
        }
        let all = lock(&store.0);
        assert!(all.bytes <= MAX_BYTES && all.by_id.len() >= 10, "{} {}", all.bytes, all.by_id.len());
        assert!(all.by_id.contains_key("r0") && all.by_id.contains_key("r39") && !all.by_id.contains_key("r1"));
    }
}
