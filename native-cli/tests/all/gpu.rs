//! What the command says of GPUs: their step costs without one, times on the first one where there is one.

use crate::common::{ir, skipped};
use serde_json::Value as Json;

/// Whether this machine has an adapter, said on stderr where it has none.
fn has_gpu() -> bool {
    let any = !ir(&["devices", "--json"]).ok().json().as_array().unwrap().is_empty();
    if !any {
        skipped("this machine has no GPU, nor a software one");
    }
    any
}

const BENCH: &[&str] = &["bench", "ir-tiny", "-p", "12", "-n", "3", "-r", "2"];

/// Kinds' seconds, calls and bytes, added up.
fn sums(profile: &Json) -> (f64, u64, u64) {
    let kinds = profile["kinds"].as_array().unwrap();
    assert!(kinds.len() > 3, "{profile}");
    let sum = |key: &str| kinds.iter().map(|k| k[key].as_u64().unwrap()).sum();
    (kinds.iter().map(|k| k["seconds"].as_f64().unwrap()).sum(), sum("calls"), sum("weight_bytes"))
}

#[test]
fn the_plan_tells_what_a_decode_step_takes_without_a_gpu() {
    let text = ir(&["info", "ir-tiny", "--plan"]).ok().text();
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("GPU: ") && last.contains("dispatches per decode step"), "{last}");
    let json = ir(&["info", "ir-tiny", "--plan", "--json"]).ok().json();
    for key in ["gpu_decode_step", "gpu_decode_step_long"] {
        let get = |name: &str| json[key][name].as_u64().unwrap();
        assert!((4..=9).contains(&get("dispatches_per_layer")), "{key}: {}", json[key]);
        // Embedding, rows taken and the head are three more.
        assert_eq!(get("dispatches"), 5 * get("dispatches_per_layer") + 3);
        // Every matrix once: the file less its metadata and the norms, give or take padding of rows.
        let (read, held) = (get("weight_bytes") as f64, json["types"]["Q4_0"]["bytes"].as_f64().unwrap());
        assert!(read > held && read < 1.2 * json["bytes"].as_f64().unwrap(), "{read} of {held}");
    }
    let get = |key: &str| json[key]["dispatches"].as_u64().unwrap();
    assert_eq!(get("gpu_decode_step_long"), get("gpu_decode_step") + 5, "one merge for each layer");
}

#[test]
fn a_profile_on_the_processor_covers_every_op() {
    let json = ir(&[BENCH, &["--profile", "--json"]].concat()).ok().json();
    for (line, rows) in json.as_array().unwrap().iter().zip([12, 1]) {
        let (seconds, calls, bytes) = sums(&line["profile"]);
        // Five ops in each of five layers; embedding, rows taken and head.
        assert_eq!(calls, 5 * 5 + 3, "{line}");
        assert!(seconds > 0.0 && bytes > 1_000_000, "{line}");
        assert_eq!(line["profile"]["rows"], rows);
        assert!(line["profile"]["copy_bytes_per_second"].is_null());
    }
    let step = &json[1]["decode_step"];
    assert!(step["noop_host_seconds"].as_f64().unwrap() > 0.0 && step["noop_dispatches"] == 28, "{step}");
    let text = ir(&[BENCH, &["--profile"]].concat()).ok().text();
    assert!(text.contains("host: ") && text.contains("per decode step of 28 dispatches"), "{text}");
    assert!(text.contains("linear Q4_0") && text.contains("attend"), "{text}");
}

#[test]
fn a_gpu_tells_host_time_device_time_and_time_by_kind() {
    if !has_gpu() {
        return;
    }
    // What does not fit on it would be computed by the processor: its flags are no mistake.
    let args = [BENCH, &["--device", "gpu", "--simd", "scalar"]].concat();
    let text = ir(&args).ok().text();
    assert!(text.contains("until submitted, ") && text.contains("host: "), "{text}");
    let json = ir(&[&args[..], &["--profile", "--json"]].concat()).ok().json();
    let [prompt, generate] = &json.as_array().unwrap()[..] else { panic!("{json}") };
    assert!(prompt["decode_step"].is_null());
    let step = &generate["decode_step"];
    assert!(step["host_seconds"].as_f64().unwrap() > 0.0 && step["dispatches"].as_u64().unwrap() >= 28, "{step}");
    for line in [prompt, generate] {
        let profile = &line["profile"];
        assert!(profile["copy_bytes_per_second"].as_f64().unwrap() > 1e6, "{profile}");
        if !profile["missing"].is_null() {
            skipped(format_args!("the first GPU has no timestamp queries: {}", profile["missing"]));
            continue;
        }
        let (seconds, calls, bytes) = sums(profile);
        assert!(seconds > 0.0 && bytes > 1_000_000 && calls >= 28, "{profile}");
    }
    if step["device_seconds"].is_number() {
        assert!(step["device_seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(sums(&generate["profile"]).1, step["dispatches"].as_u64().unwrap());
    }
}
