//! `ir embed` as its users see it.

use crate::common::{engine, ir, ir_with, npy, scratch, write};

fn numbers(line: &str) -> Vec<f64> {
    let values: serde_json::Value = serde_json::from_str(line).unwrap();
    values.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn length(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

const TEXTS: [&str; 3] = ["a fox and a drum", "a wheel", "Hana was sad and began to cry."];

#[test]
fn arguments_lines_json_and_numpy_bring_the_same_numbers() {
    let lines = ir(&[&["embed", "ir-tiny"], &TEXTS[..]].concat()).ok().text();
    let rows: Vec<Vec<f64>> = lines.lines().map(numbers).collect();
    assert_eq!(rows.len(), 3);
    for row in &rows {
        assert!((length(row) - 1.0).abs() < 1e-5, "{}", length(row));
        assert_eq!(row.len(), rows[0].len());
    }
    assert!(rows[0] != rows[1] && rows[1] != rows[2]);
    let text = TEXTS.join("\n");
    let file = write("texts.txt", text.replace('\n', "\r\n").as_bytes());
    assert_eq!(ir_with(&["embed", "ir-tiny"], &text).ok().text(), lines);
    assert_eq!(ir(&["embed", "ir-tiny", "-f", &file]).ok().text(), lines);
    assert_eq!(ir_with(&["embed", "ir-tiny", "-f", "-"], &format!("{text}\n")).ok().text(), lines);
    let json = ir(&[&["embed", "ir-tiny", "--json"], &TEXTS[..]].concat()).ok().json();
    assert_eq!((&json["model"], &json["pooling"]), (&"ir-tiny".into(), &"last".into()));
    assert_eq!(json["dimensions"], rows[0].len());
    assert!(json["prompt_tokens"].as_u64().unwrap() > 10);
    assert_eq!(json["embeddings"], serde_json::json!(rows));
    let out = scratch().join("embeddings.npy");
    let wrote = ir(&[&["embed", "ir-tiny", "-o", out.to_str().unwrap()], &TEXTS[..]].concat()).ok();
    assert_eq!(wrote.text(), "");
    let (n, cols, values) = npy(&out);
    assert_eq!((n, cols), (3, rows[0].len()));
    assert!(values.iter().zip(rows.iter().flatten()).all(|(a, b)| f64::from(*a) == f64::from(*b as f32)));
}

#[test]
fn flags_change_what_they_name() {
    let run = |flags: &[&str]| numbers(ir(&[&["embed", "ir-tiny", TEXTS[0]], flags].concat()).ok().text().trim());
    let (plain, raw, mean, cut) =
        (run(&[]), run(&["--no-normalize"]), run(&["--pooling", "mean"]), run(&["--dimensions", "8"]));
    assert_eq!(plain, run(&["--pooling", "last"]));
    assert!(plain != mean && mean != run(&["--pooling", "cls"]));
    assert!((length(&raw) - 1.0).abs() > 0.1 && (length(&cut) - 1.0).abs() < 1e-5 && cut.len() == 8);
    let scaled = |values: &[f64], by: &[f64]| values.iter().map(|x| x / length(by)).collect::<Vec<f64>>();
    assert!(scaled(&raw, &raw).iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-6));
    assert!(scaled(&plain[..8], &plain[..8]).iter().zip(&cut).all(|(a, b)| (a - b).abs() < 1e-6));
    let exact = ["--simd", "scalar", "--activations", "f32", "--kv-type", "f32", "-t", "1"];
    let error: Vec<f64> = run(&exact).iter().zip(&plain).map(|(a, b)| a - b).collect();
    assert!(length(&error) < 0.05 && length(&error) > 0.0, "{}", length(&error));
}

#[test]
fn a_table_shows_which_texts_are_close() {
    let table = ir(&["embed", "ir-tiny", "--similarity", "-v", "a red fox", "a red fox", "one wheel"]).ok();
    let rows: Vec<Vec<f64>> =
        table.text().lines().map(|l| l.split_whitespace().map(|x| x.parse().unwrap()).collect()).collect();
    assert!(rows.len() == 3 && rows.iter().all(|r| r.len() == 3), "{rows:?}");
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(row[i], 1.0);
        assert!(row.iter().enumerate().all(|(j, x)| *x == rows[j][i] && x.abs() <= 1.0), "{rows:?}");
    }
    assert!(rows[0][1] == 1.0 && rows[0][2] < 1.0, "{rows:?}");
    assert!(table.stderr.contains("3 texts") && table.stderr.contains("tokens/s"), "{}", table.stderr);
}

#[test]
fn what_does_not_fit_is_said_in_a_sentence() {
    let long = "a fox ".repeat(3000);
    for (args, code, words) in [
        (&["embed", "ir-tiny", "a", &long][..], 1, "text 2 has"),
        (&["embed", "ir-tiny", "a", "--dimensions", "100000"], 2, "ask for 1 to"),
        (&["embed", "ir-tiny", "a", "--dimensions", "0"], 2, "whole number"),
        (&["embed", "ir-tiny", "a", "-f", "x.txt"], 2, "cannot be used with"),
        (&["embed", "ir-tiny", "a", "--json", "--similarity"], 2, "cannot be used with"),
        (&["embed", "ir-tiny", "a", "--pooling", "rank"], 2, "mean, cls, last"),
        (&["embed", "ir-tiny", "a", "-o", "/nowhere/x.npy"], 1, "cannot write"),
        (&["embed", "ir-tiny", "-f", "/nowhere/x.txt"], 1, "cannot read"),
        (&["embed", "no-such-model", "a"], 2, "no-such-model"),
    ] {
        let ran = ir(args);
        assert_eq!(ran.code, Some(code), "{words}: {}", ran.stderr);
        assert!(ran.stderr.contains(words) && ran.stdout.is_empty(), "{words}: {}", ran.stderr);
    }
    let none = ir_with(&["embed", "ir-tiny"], "");
    assert!(none.code == Some(2) && none.stderr.contains("there is no text"), "{}", none.stderr);
}

/// The longest texts that fit, many at once: the cache holds some of them at a time.
#[test]
fn many_long_texts_are_computed_in_turn() {
    let folder = engine().join("tests/data/golden/qwen3/model-bf16.gguf");
    let file = folder.to_str().unwrap();
    let text = (0..40).map(|i| format!("{} {}", "x".repeat(1 + i % 7), "fox ".repeat(i % 9))).collect::<Vec<_>>();
    let together = ir_with(&["embed", file, "--pooling", "mean"], &text.join("\n")).ok().text();
    let together: Vec<Vec<f64>> = together.lines().map(numbers).collect();
    assert_eq!(together.len(), 40);
    for i in [0, 17, 39] {
        let alone = numbers(ir(&["embed", file, "--pooling", "mean", &text[i]]).ok().text().trim());
        let error: Vec<f64> = alone.iter().zip(&together[i]).map(|(a, b)| a - b).collect();
        assert!(length(&error) < 1e-5, "text {i}: {}", length(&error));
    }
}
