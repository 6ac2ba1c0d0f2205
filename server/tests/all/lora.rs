//! LoRA adapters through the server: listed and set as llama-server has it, chosen by a request, mixed among requests at once.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use ir_engine::bytes::Bytes;
use ir_engine::dtype::DType;
use ir_engine::file::{GgufWriter, ModelFile};
use ir_engine::meta::MetaBuilder;
use ir_engine::model::{Adapter, Attached};
use serde_json::{Value as Json, json};

use crate::common::{Settings, TestServer, text};

/// An adapter of ir-tiny's feed-forward parts.
fn adapter(seed: u32) -> Attached {
    const RANK: u64 = 4;
    let model = ModelFile::from_bytes(ir_engine::builtin::bytes()).unwrap();
    let meta = MetaBuilder::new()
        .str("general.architecture", model.meta().arch().unwrap())
        .str("general.type", "adapter")
        .str("adapter.type", "lora")
        .str("adapter.lora.task_name", "tales")
        .f32("adapter.lora.alpha", 8.0);
    let mut writer = GgufWriter::new(meta).unwrap();
    let (mut data, mut state) = (Vec::new(), seed);
    let mut numbers = |n: u64, size: f32| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            size * ((state >> 8) as f32 / (1u32 << 23) as f32 - 1.0)
        };
        (0..n).flat_map(|_| next().to_le_bytes()).collect()
    };
    for tensor in model.tensors().iter().filter(|t| t.name().ends_with(".ffn_down.weight")) {
        let (cols, rows) = (tensor.dims()[0], tensor.dims()[1]);
        writer.tensor(&format!("{}.lora_a", tensor.name()), &[cols, RANK], DType::F32).unwrap();
        writer.tensor(&format!("{}.lora_b", tensor.name()), &[RANK, rows], DType::F32).unwrap();
        data.extend([numbers(RANK * cols, 0.2), numbers(RANK * rows, 0.5)]);
    }
    let mut out = Vec::new();
    writer.write(&mut out, &mut |i| data[i].clone()).unwrap();
    let adapter = Arc::new(Adapter::from_bytes(Bytes::from(out)).unwrap());
    Attached { name: format!("/adapters/number-{seed}.gguf"), adapter, scale: 0.0 }
}

fn server() -> TestServer {
    TestServer::with(Settings {
        files: 1,
        parallel: 8,
        simd: "scalar",
        adapters: vec![adapter(1), adapter(2)],
        ..Settings::default()
    })
}

fn body(prompt: &str, lora: Option<Json>) -> Json {
    let mut body = json!({"model": "model-0", "prompt": prompt, "temperature": 0, "max_tokens": 24});
    lora.into_iter().for_each(|lora| body["lora"] = lora);
    body
}

async fn answer(server: &TestServer, prompt: &str, lora: Option<Json>) -> String {
    let (status, answer) = server.ask("/v1/completions", body(prompt, lora)).await;
    assert_eq!(status, 200, "{answer}");
    answer["choices"][0]["text"].as_str().unwrap().to_owned()
}

async fn listed(server: &TestServer, of: &str) -> Json {
    let request = Request::get(format!("/lora-adapters?model={of}")).header("host", "localhost").body(Body::empty());
    let (status, answer) = text(server.send(request.unwrap()).await).await;
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

const PROMPT: &str = "Once upon a time a fox";

#[tokio::test(flavor = "multi_thread")]
async fn adapters_are_listed_set_and_chosen() {
    let server = server();
    let all = listed(&server, "model-0").await;
    let path = all[1]["path"].as_str().unwrap();
    assert!(all.as_array().unwrap().len() == 2 && path.ends_with("number-2.gguf"), "{all}");
    assert_eq!((&all[0]["id"], &all[0]["scale"], &all[0]["task_name"]), (&json!(0), &json!(0.0), &json!("tales")));

    let plain =
        answer(&TestServer::with(Settings { files: 1, simd: "scalar", ..Settings::default() }), PROMPT, None).await;
    let (none, first, second) = (
        answer(&server, PROMPT, Some(json!([]))).await,
        answer(&server, PROMPT, Some(json!([{"id": 0, "scale": 1.0}]))).await,
        answer(&server, PROMPT, Some(json!([{"id": 1, "scale": 1.0}]))).await,
    );
    assert_eq!(none, plain);
    assert!(first != plain && second != plain && first != second, "{plain:?} {first:?} {second:?}");

    // What is set holds where a request says nothing.
    assert_eq!(answer(&server, PROMPT, None).await, plain);
    let set = json!([{"id": 1, "scale": 1.0}]);
    assert_eq!(server.ask("/lora-adapters?model=model-0", set).await, (200, json!({"success": true})));
    let scales: Vec<Json> =
        listed(&server, "model-0").await.as_array().unwrap().iter().map(|a| a["scale"].clone()).collect();
    assert_eq!(scales, [json!(0.0), json!(1.0)]);
    assert_eq!(answer(&server, PROMPT, None).await, second);
    assert_eq!(answer(&server, PROMPT, Some(json!([]))).await, plain);
    let chat = json!({"model": "model-0", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 16});
    let said = |lora: Option<Json>| {
        let mut chat = chat.clone();
        lora.into_iter().for_each(|lora| chat["lora"] = lora);
        async { server.ask("/v1/chat/completions", chat).await.1["choices"][0]["message"]["content"].clone() }
    };
    assert_eq!(said(None).await, said(Some(json!([{"id": 1, "scale": 1}]))).await);
    assert_eq!(server.ask("/lora-adapters?model=model-0", json!([])).await.0, 200);
    assert_eq!(answer(&server, PROMPT, None).await, plain);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_different_adapters_run_together() {
    let server = server();
    let loras = [
        json!([]),
        json!([{"id": 0, "scale": 1.0}]),
        json!([{"id": 1, "scale": 1.0}]),
        json!([{"id": 0, "scale": 0.5}, {"id": 1, "scale": 0.5}]),
    ];
    let prompts: Vec<String> = (0..8).map(|i| format!("{PROMPT} met {i} hens")).collect();
    let mut alone = Vec::new();
    for (i, prompt) in prompts.iter().enumerate() {
        alone.push(answer(&server, prompt, Some(loras[i % 4].clone())).await);
    }
    let ask = |i: usize| answer(&server, &prompts[i], Some(loras[i % 4].clone()));
    let (a, b, c, d, e, f, g, h) = tokio::join!(ask(0), ask(1), ask(2), ask(3), ask(4), ask(5), ask(6), ask(7));
    assert_eq!(vec![a, b, c, d, e, f, g, h], alone);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_model_has_is_refused() {
    let server = server();
    for (lora, word) in [
        (json!([{"id": 2, "scale": 1.0}]), "0 to 1"),
        (json!([{"id": 0, "scale": 1e30}]), "scale"),
        (json!([{"id": -1, "scale": 1.0}]), "lora"),
        (json!([{"id": 0}]), "scale"),
        (json!("0"), "lora"),
    ] {
        let (status, answer) = server.ask("/v1/completions", body(PROMPT, Some(lora.clone()))).await;
        assert!(status == 400 && answer["error"]["message"].as_str().unwrap().contains(word), "{lora}: {answer}");
    }
    let (status, answer) = server.ask("/lora-adapters?model=model-0", json!([{"id": 9, "scale": 1.0}])).await;
    assert!(status == 400 && answer["error"]["message"].as_str().unwrap().contains("0 to 1"), "{answer}");
    // A model that the server was not started with has none.
    assert_eq!(listed(&server, "ir-tiny").await, json!([]));
    let other = json!({"model": "ir-tiny", "prompt": PROMPT, "lora": [{"id": 0, "scale": 1.0}]});
    let (status, answer) = server.ask("/v1/completions", other).await;
    assert!(status == 400 && answer["error"]["message"].as_str().unwrap().contains("without adapters"), "{answer}");
}
