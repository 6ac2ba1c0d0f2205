//! Ollama's `options`, `keep_alive` and `think`: from JSON to a job's values, with Ollama's errors.

use std::time::Duration;

use serde_json::Value as Json;

use crate::engine::error::{ApiError, cut};
use crate::generate::job::{Job, KeepAlive, Think};
use crate::generate::sampling::{kept, limit, looked_at};

/// Puts options into a job. Unknown ones are passed over, as Ollama does.
///
/// # Errors
/// An option of the wrong type.
pub(crate) fn apply(options: &Json, job: &mut Job) -> Result<(), ApiError> {
    let Some(map) = options.as_object() else {
        return Err(ApiError::invalid("options must be an object"));
    };
    let sampling = &mut job.sampling;
    for (name, value) in map.iter().filter(|(_, v)| !v.is_null()) {
        let name = name.as_str();
        match name {
            "temperature" => sampling.temperature = Some(float(name, value)?),
            "top_p" => sampling.top_p = Some(float(name, value)?),
            "min_p" => sampling.min_p = Some(float(name, value)?),
            "typical_p" => sampling.typical_p = Some(float(name, value)?),
            "repeat_penalty" => sampling.repeat_penalty = Some(float(name, value)?),
            "presence_penalty" => sampling.presence_penalty = Some(float(name, value)?),
            "frequency_penalty" => sampling.frequency_penalty = Some(float(name, value)?),
            "top_k" => sampling.top_k = Some(kept(integer(name, value)?)),
            "repeat_last_n" => sampling.repeat_last_n = Some(looked_at(integer(name, value)?)),
            // Negative seeds mean a new one for every request.
            "seed" => sampling.seed = u64::try_from(integer(name, value)?).ok(),
            // -1 and -2: until the context is full.
            "num_predict" => job.max_tokens = limit(integer(name, value)?),
            "num_ctx" => job.model.load.context = limit(integer(name, value)?).filter(|n| *n > 0),
            "num_gpu" => job.model.load.gpu_layers = limit(integer(name, value)?),
            "stop" => job.stop = strings(name, value)?,
            "device" => {
                let text = value.as_str().ok_or_else(|| wrong(name, "string"))?;
                job.model.load.device = Some(text.to_owned());
            }
            _ => tracing::debug!(option = cut(name, 64), "an unknown option is passed over"),
        }
    }
    Ok(())
}

fn wrong(name: &str, kind: &str) -> ApiError {
    ApiError::invalid(format!("option {name:?} must be of type {kind}"))
}

fn float(name: &str, value: &Json) -> Result<f32, ApiError> {
    value.as_f64().map(|v| v as f32).ok_or_else(|| wrong(name, "float32"))
}

fn integer(name: &str, value: &Json) -> Result<i64, ApiError> {
    // Clients write whole numbers as 10.0 too.
    let whole = || value.as_f64().filter(|v| v.fract() == 0.0 && v.abs() < 9e15).map(|v| v as i64);
    value.as_i64().or_else(whole).ok_or_else(|| wrong(name, "integer"))
}

fn strings(name: &str, value: &Json) -> Result<Vec<String>, ApiError> {
    let one = |v: &Json| v.as_str().map(str::to_owned).ok_or_else(|| wrong(name, "array"));
    match value {
        Json::Array(all) => all.iter().map(one).collect(),
        other => one(other).map(|s| vec![s]),
    }
}

/// A number of seconds or a duration as Go writes it; negative is for ever.
///
/// # Errors
/// What is neither.
pub(crate) fn keep_alive(value: &Json) -> Result<KeepAlive, ApiError> {
    let wrong = || ApiError::param("keep_alive", "keep_alive must be seconds or a duration such as \"5m\"");
    let seconds = match value {
        Json::Number(n) => n.as_f64().ok_or_else(wrong)?,
        Json::String(text) => duration(text).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    if seconds < 0.0 {
        return Ok(KeepAlive::Forever);
    }
    Ok(Duration::try_from_secs_f64(seconds).map_or(KeepAlive::Forever, KeepAlive::For))
}

/// Seconds of a Go duration: `1h30m`, `-1`, `300ms`; a bare number is seconds.
pub fn duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    if let Ok(seconds) = rest.parse::<f64>() {
        return seconds.is_finite().then_some(sign * seconds);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(sign * total)
}

/// `think`: a switch or an effort.
///
/// # Errors
/// What is neither.
pub(crate) fn think(value: Option<&Json>) -> Result<Think, ApiError> {
    Ok(match value {
        None | Some(Json::Null) => Think::Default,
        Some(Json::Bool(true)) => Think::On,
        Some(Json::Bool(false)) => Think::Off,
        Some(Json::String(s)) if ["low", "medium", "high", "max"].contains(&s.as_str()) => Think::Effort(s.clone()),
        Some(_) => {
            return Err(ApiError::invalid("think must be a boolean or one of \"low\", \"medium\", \"high\", \"max\""));
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        let cases = [("5m", Some(300.0)), ("1h30m", Some(5400.0)), ("-1", Some(-1.0)), ("250ms", Some(0.25))];
        let wrong = [("", None), ("5x", None), ("m", None), ("5m3", None), ("1.2.3s", None), ("inf", None)];
        for (text, want) in cases.into_iter().chain(wrong) {
            assert_eq!(duration(text), want, "{text:?}");
        }
    }

    #[test]
    fn options_of_the_wrong_type_are_named() {
        let mut job = Job::default();
        let error = apply(&serde_json::json!({"top_k": "many"}), &mut job).unwrap_err();
        assert_eq!(error.message, "option \"top_k\" must be of type integer");
        apply(&serde_json::json!({"top_k": 10.0, "mirostat": 2, "seed": -1, "stop": "x"}), &mut job).unwrap();
        assert_eq!(
            (job.sampling.top_k, job.sampling.seed, job.stop.as_slice()),
            (Some(10), None, &["x".to_owned()][..])
        );
    }
}
