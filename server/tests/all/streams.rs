//! 64 streams at once: every answer equals what its request gives alone. A row's result does not depend on what is computed
//! beside it, so this holds bit for bit: for seeded samplers on the definition's kernels and for greedy ones on the fastest.

use crate::common::{Settings, TestServer};
use futures_util::future::join_all;
use serde_json::{Value as Json, json};

const N: usize = 64;

/// Prompts of different lengths, chats and raw texts, some alike at the start.
fn request(i: usize, sampling: &dyn Fn(usize) -> Json) -> (&'static str, Json) {
    let words = ["fox", "drum", "hen", "river", "moon", "bear", "song", "boat"];
    let text: String =
        (0..1 + i % 5).map(|k| format!("The {} saw the {}. ", words[(i + k) % 8], words[(i * k) % 8])).collect();
    let mut options = sampling(i);
    options["num_predict"] = json!(6 + i % 11);
    match i % 3 {
        0 => ("/api/generate", json!({"model": "ir-tiny", "prompt": text, "raw": true, "options": options})),
        1 => ("/api/generate", json!({"model": "ir-tiny", "prompt": text, "options": options, "logprobs": true})),
        _ => {
            let messages =
                json!([{"role": "system", "content": "Answer in a few words."}, {"role": "user", "content": text}]);
            let mut body = json!({"model": "ir-tiny", "messages": messages, "options": options});
            if i.is_multiple_of(2) {
                body["format"] = json!("json");
            }
            ("/api/chat", body)
        }
    }
}

/// What was generated, without times.
fn answer(lines: &[Json]) -> (String, Vec<Json>, Json) {
    let text = |l: &Json| l["response"].as_str().or(l["message"]["content"].as_str()).unwrap_or("").to_owned();
    let logprobs = lines.iter().flat_map(|l| l["logprobs"].as_array().cloned().unwrap_or_default()).collect();
    let last = lines.last().unwrap();
    assert_eq!(last["done"], true, "{last}");
    let end = json!([last["done_reason"], last["eval_count"], last["prompt_eval_count"], last["context"]]);
    (lines.iter().map(text).collect(), logprobs, end)
}

async fn alike(simd: &'static str, sampling: &dyn Fn(usize) -> Json) {
    let alone = TestServer::with(Settings { parallel: 1, simd, ..Settings::default() });
    let together = TestServer::with(Settings { parallel: 16, simd, ..Settings::default() });
    let requests: Vec<(&str, Json)> = (0..N).map(|i| request(i, sampling)).collect();
    let all = join_all(requests.iter().map(|(path, body)| together.lines(path, body.clone()))).await;
    let mut texts = std::collections::BTreeSet::new();
    for (i, ((path, body), lines)) in requests.iter().zip(&all).enumerate() {
        let expected = answer(&alone.lines(path, body.clone()).await);
        assert_eq!(answer(lines), expected, "stream {i}: {body}");
        texts.insert(expected.0);
    }
    assert!(texts.len() > N / 2, "the answers are too much alike to tell anything: {}", texts.len());
    let steps = together.hub.loaded()[0].stats();
    assert_eq!((steps.running, steps.waiting, steps.free_pages), (0, 0, steps.pages));
}

#[tokio::test(flavor = "multi_thread")]
async fn seeded_samplers_on_the_definitions_kernels() {
    let sampling = |i: usize| {
        let temperature = 0.4 + (i % 7) as f64 * 0.2;
        let (top_k, top_p, min_p) = ([0, 5, 40][i % 3], [1.0, 0.9][i % 2], [0.0, 0.05][i / 2 % 2]);
        let penalty = [1.0, 1.2][i / 4 % 2];
        json!({"seed": i, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
            "repeat_penalty": penalty})
    };
    alike("scalar", &sampling).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn greedy_ones_on_the_fastest_kernels() {
    alike("auto", &|_| json!({"temperature": 0})).await;
}
