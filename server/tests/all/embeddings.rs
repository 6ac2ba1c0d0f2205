//! Embeddings through the server on ir-tiny: Ollama's two addresses, beside generations, refused inputs.

use crate::common::TestServer;
use serde_json::{Value as Json, json};

/// A vector of length one is so up to rounding of its 32-bit numbers.
const LENGTH: f64 = 1e-5;

fn vectors(answer: &Json) -> Vec<Vec<f64>> {
    let one = |v: &Json| v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    answer["embeddings"].as_array().unwrap_or_else(|| panic!("{answer}")).iter().map(one).collect()
}

fn length(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_input_gets_its_own_vector_in_order() {
    let server = TestServer::tiny();
    let texts: Vec<String> = (0..11).map(|i| format!("a fox with {i} drums")).collect();
    let (status, all) = server.ask("/api/embed", json!({"model": "ir-tiny", "input": texts})).await;
    assert_eq!(status, 200, "{all}");
    let all_vectors = vectors(&all);
    assert_eq!(all_vectors.len(), texts.len());
    assert!(all["prompt_eval_count"].as_u64().unwrap() > 11 && all["total_duration"].as_u64().unwrap() > 0);
    for (text, together) in texts.iter().zip(&all_vectors) {
        let (_, alone) = server.ask("/api/embed", json!({"model": "ir-tiny", "input": text})).await;
        assert_eq!(&vectors(&alone)[0], together, "{text}");
        assert!((length(together) - 1.0).abs() < LENGTH);
    }
    assert_ne!(all_vectors[0], all_vectors[1]);
    let (_, cut) = server.ask("/api/embed", json!({"model": "ir-tiny", "input": texts[0], "dimensions": 8})).await;
    let cut = &vectors(&cut)[0];
    assert!(cut.len() == 8 && (length(cut) - 1.0).abs() < LENGTH);
    let (_, old) = server.ask("/api/embeddings", json!({"model": "ir-tiny", "prompt": texts[0]})).await;
    let old: Vec<f64> = old["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let scale = length(&old);
    for (raw, unit) in old.iter().zip(&all_vectors[0]) {
        assert!((raw / scale - unit).abs() < LENGTH, "not the same direction");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_do_not_depend_on_what_runs_beside_them() {
    let server = TestServer::tiny();
    let embed = || server.ask("/api/embed", json!({"model": "ir-tiny", "input": ["one fox", "two hens"]}));
    let body = json!({"model": "ir-tiny", "prompt": "Tell me a story about a fox and a drum", "stream": false,
        "options": {"temperature": 0, "num_predict": 40}});
    let (alone, text) = (embed().await.1, server.ask("/api/generate", body.clone()).await.1);
    let generate = || server.ask("/api/generate", body.clone());
    let (a, b, c, d) = tokio::join!(generate(), embed(), embed(), generate());
    for answer in [a, d] {
        assert_eq!(answer.1["response"], text["response"]);
    }
    for answer in [b, c] {
        assert_eq!(answer.1["embeddings"], alone["embeddings"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_inputs_are_refused() {
    let server = TestServer::tiny();
    let long = "w ".repeat(20_000);
    let cases = [
        (json!({"model": "ir-tiny", "input": 7}), 400, "invalid input type"),
        (json!({"model": "ir-tiny", "input": ["a", 7]}), 400, "invalid input type"),
        (json!({"model": "ir-tiny", "input": "a", "dimensions": 100_000}), 400, "dimensions"),
        (json!({"model": "ir-tiny", "input": "a", "dimensions": -1}), 400, "dimensions"),
        (json!({"model": "ir-tiny", "input": long, "truncate": false}), 400, "exceeds the context length"),
        (json!({"model": "ir-tiny", "input": vec!["a"; 5000]}), 400, "at most"),
        (json!({"input": "a"}), 400, "model is required"),
        (json!({"model": "nope", "input": "a"}), 404, "not found"),
    ];
    for (body, status, part) in cases {
        let (got, answer) = server.ask("/api/embed", body).await;
        assert!(got == status && answer["error"].as_str().unwrap().contains(part), "{got} {answer}");
    }
    for input in [json!(""), json!([]), Json::Null] {
        let (status, answer) = server.ask("/api/embed", json!({"model": "ir-tiny", "input": input})).await;
        assert_eq!((status, &answer["embeddings"]), (200, &json!([])));
    }
    let (status, cut) = server.ask("/api/embed", json!({"model": "ir-tiny", "input": long})).await;
    assert_eq!((status, vectors(&cut).len()), (200, 1));
}
