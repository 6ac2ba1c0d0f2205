//! `/metrics`: what was counted, as Prometheus reads it. Our own names, llama-server's, and vLLM's, which the Gateway API's
//! inference extension asks for, so that dashboards and routers made for those work. The text format is a few lines here; a
//! library's registry would hold counts of its own beside those of models that come and go.

use std::fmt::{Display, Write};
use std::sync::Arc;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use ir_engine::plan::PAGE;
use ir_engine::run::{DiskCache, RamCache, Stats};

use super::access_log::RequestCounts;
use crate::api::common::ignored::IgnoredCounts;
use crate::engine::stats::{Counters, Histogram};
use crate::generate::hub::Hub;
use crate::models::loaded::Loaded;

pub(super) fn metrics(hub: &Hub, requests: &RequestCounts, ignored: &IgnoredCounts) -> Response {
    let mut page = Page::default();
    let loaded: Vec<(Arc<Loaded>, Stats)> = hub.loaded().into_iter().map(|l| (Arc::clone(&l), l.stats())).collect();
    let models = hub.all_counters();
    ours(&mut page, hub, requests, &loaded, &models);
    page.head("ir_ignored_total", "counter", "What requests held and was passed over, by API and field.");
    for ((api, field), n) in ignored.all() {
        page.sample("ir_ignored_total", &[("api", api), ("field", &field)], n);
    }
    llama_server(&mut page, &loaded, &models);
    vllm(&mut page, &loaded, &models);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.0).into_response()
}

type ByName = [(String, Arc<Counters>)];
type Here = [(Arc<Loaded>, Stats)];

fn prefix_caches(page: &mut Page, hub: &Hub) {
    let caches = hub.prefix_caches();
    let mut all = Vec::new();
    if let Some(ram) = caches.ram.as_ref().map(RamCache::counts) {
        all.extend([
            ("ir_ram_cache_bytes", "gauge", "Bytes of the cache of prefixes in memory.", ram.bytes),
            ("ir_ram_cache_entries", "gauge", "Pages and states in it.", ram.entries),
            ("ir_ram_cache_loaded_bytes_total", "counter", "Bytes that were found again.", ram.loaded),
            ("ir_ram_cache_saved_bytes_total", "counter", "Bytes that were kept.", ram.saved),
        ]);
    }
    if let Some(disk) = caches.disk.as_ref().map(DiskCache::counts) {
        all.extend([
            ("ir_disk_cache_bytes", "gauge", "Bytes of the cache folder.", disk.bytes),
            ("ir_disk_cache_files", "gauge", "Files in it.", disk.files),
            ("ir_disk_cache_loaded_bytes_total", "counter", "Bytes that were found again.", disk.loaded),
            ("ir_disk_cache_saved_bytes_total", "counter", "Bytes that were written.", disk.saved),
            ("ir_disk_cache_damaged_total", "counter", "Files that were damaged and removed.", disk.damaged),
            ("ir_disk_cache_failed_total", "counter", "Files that could not be written.", disk.failed),
        ]);
    }
    for (name, kind, help, value) in all {
        page.head(name, kind, help);
        page.sample(name, &[], value);
    }
}

fn ours(page: &mut Page, hub: &Hub, requests: &RequestCounts, loaded: &Here, models: &ByName) {
    page.gauges("ir_requests_waiting", "Sequences in a model's queue.", "model", loaded, |_, s| s.waiting as f64);
    page.gauges("ir_requests_running", "Sequences that a model computes.", "model", loaded, |_, s| s.running as f64);
    page.gauges("ir_kv_pages", "Pages of a model's cache.", "model", loaded, |_, s| s.pages as f64);
    page.gauges("ir_kv_pages_used", "Pages that sequences hold.", "model", loaded, |_, s| used(s) as f64);
    page.gauges("ir_cache_bytes", "Bytes that a model's cache may take.", "model", loaded, |_, s| s.cache_bytes as f64);
    page.gauges("ir_cache_bytes_held", "Bytes of it that sequences hold.", "model", loaded, |_, s| s.held_bytes as f64);
    let help = "Bytes of it that hold prefixes, to be used again until the room is needed.";
    page.gauges("ir_cache_bytes_evictable", help, "model", loaded, |_, s| s.evictable_bytes as f64);
    page.gauges("ir_model_bytes", "Bytes of a model's file and its cache at its largest.", "model", loaded, |l, _| {
        l.size as f64
    });
    prefix_caches(page, hub);
    page.head("ir_device_memory_bytes", "gauge", "Memory of a GPU that a model takes: weights, cache and buffers.");
    for (model, _) in loaded {
        for (device, bytes) in &model.device_bytes {
            page.sample("ir_device_memory_bytes", &[("model", model.name.as_str()), ("device", device)], bytes);
        }
    }
    page.head("ir_places_used", "gauge", "Requests that wait or run, and loads.");
    page.sample("ir_places_used", &[], hub.in_flight());
    page.head("ir_requests_rejected_total", "counter", "Requests that found the queue full.");
    page.sample("ir_requests_rejected_total", &[], hub.rejected());
    let counters: [(&str, &str, fn(&Counters) -> u64); 6] = [
        ("ir_prompt_tokens_total", "Tokens of prompts.", |m| m.prompt_tokens.get()),
        ("ir_cached_tokens_total", "Tokens of prompts that were in the cache.", |m| m.cached_tokens.get()),
        ("ir_generated_tokens_total", "Tokens generated.", |m| m.generated_tokens.get()),
        ("ir_steps_total", "Steps of a model's engine.", |m| m.steps.get()),
        ("ir_step_sequences_total", "Sequences of all steps together.", |m| m.step_sequences.get()),
        ("ir_preemptions_total", "Times a sequence gave its pages to an older one.", |m| m.preemptions.get()),
    ];
    for (name, help, value) in counters {
        page.counters(name, help, "model", models, value);
    }
    page.head("ir_requests_total", "counter", "Requests by how they ended.");
    for (model, counters) in models {
        for (end, n) in counters.ends() {
            page.sample("ir_requests_total", &[("model", model), ("end", end)], n);
        }
    }
    let times: [(&str, &str, fn(&Counters) -> &Histogram); 4] = [
        ("ir_time_to_first_token_seconds", "From a request to its first token.", |m| &m.first_token),
        ("ir_time_per_token_seconds", "Between two tokens, mean of a request.", |m| &m.per_token),
        ("ir_request_seconds", "From a request to its end.", |m| &m.whole),
        ("ir_queue_seconds", "Waiting in a model's queue.", |m| &m.queued),
    ];
    for (name, help, value) in times {
        page.histograms(name, help, "model", models, value);
    }
    page.head("ir_http_requests_total", "counter", "Answers by address, method and status.");
    for ((path, method, status), n) in requests.all() {
        let status = status.to_string();
        page.sample("ir_http_requests_total", &[("path", &path), ("method", method), ("status", &status)], n);
    }
}

fn full(stats: &Stats) -> f64 {
    if stats.pages > 0 { used(stats) as f64 / stats.pages as f64 } else { 0.0 }
}

fn used(stats: &Stats) -> usize {
    stats.pages.saturating_sub(stats.free_pages)
}

/// Of all models together: llama-server has one.
fn llama_server(page: &mut Page, loaded: &Here, models: &ByName) {
    let sum = |value: fn(&Counters) -> u64| models.iter().map(|(_, m)| value(m)).sum::<u64>() as f64;
    let time = |value: fn(&Counters) -> f64| models.iter().map(|(_, m)| value(m)).sum::<f64>();
    let count = |value: fn(&Stats) -> usize| loaded.iter().map(|(_, s)| value(s)).sum::<usize>() as f64;
    let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    let computed = |m: &Counters| m.prompt_tokens.get().saturating_sub(m.cached_tokens.get());
    let (prompt, prompt_time) = (sum(computed), time(|m| m.prompt_time.seconds()));
    let (predicted, predicted_time) = (sum(|m| m.generated_tokens.get()), time(|m| m.generation_time.seconds()));
    let (steps, sequences) = (sum(|m| m.steps.get()), sum(|m| m.step_sequences.get()));
    let longest = models.iter().map(|(_, m)| m.longest.get()).max().unwrap_or(0) as f64;
    let all = [
        ("prompt_tokens_total", "counter", "Number of prompt tokens processed.", prompt),
        ("prompt_seconds_total", "counter", "Prompt process time.", prompt_time),
        ("tokens_predicted_total", "counter", "Number of generation tokens processed.", predicted),
        ("tokens_predicted_seconds_total", "counter", "Predict process time.", predicted_time),
        ("n_decode_total", "counter", "Number of steps.", steps),
        ("n_tokens_max", "counter", "Largest observed number of tokens of a sequence.", longest),
        ("n_busy_slots_per_decode", "gauge", "Sequences per step, mean.", ratio(sequences, steps)),
        ("prompt_tokens_seconds", "gauge", "Prompt throughput in tokens/s, mean.", ratio(prompt, prompt_time)),
        ("predicted_tokens_seconds", "gauge", "Generation throughput in tokens/s.", ratio(predicted, predicted_time)),
        ("requests_processing", "gauge", "Number of requests processing.", count(|s| s.running)),
        ("requests_deferred", "gauge", "Number of requests deferred.", count(|s| s.waiting)),
    ];
    for (name, kind, help, value) in all {
        let name = format!("llamacpp:{name}");
        page.head(&name, kind, help);
        page.sample(&name, &[], value);
    }
}

fn vllm(page: &mut Page, loaded: &Here, models: &ByName) {
    const MODEL: &str = "model_name";
    page.gauges("vllm:num_requests_running", "Sequences that are computed.", MODEL, loaded, |_, s| s.running as f64);
    page.gauges("vllm:num_requests_waiting", "Sequences in the queue.", MODEL, loaded, |_, s| s.waiting as f64);
    for name in ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"] {
        page.gauges(name, "Share of the cache that sequences hold: 1 is all.", MODEL, loaded, |_, s| full(s));
    }
    page.head("vllm:cache_config_info", "gauge", "Size of the cache in its labels.");
    for (model, stats) in loaded {
        let (block, blocks) = (PAGE.to_string(), stats.pages.to_string());
        let labels = [(MODEL, model.name.as_str()), ("block_size", &block), ("num_gpu_blocks", &blocks)];
        page.sample("vllm:cache_config_info", &labels, 1);
    }
    let counters: [(&str, &str, fn(&Counters) -> u64); 5] = [
        ("vllm:prompt_tokens_total", "Tokens of prompts.", |m| m.prompt_tokens.get()),
        ("vllm:generation_tokens_total", "Tokens generated.", |m| m.generated_tokens.get()),
        ("vllm:num_preemptions_total", "Preemptions.", |m| m.preemptions.get()),
        ("vllm:prefix_cache_queries_total", "Tokens looked for in the cache.", |m| m.prompt_tokens.get()),
        ("vllm:prefix_cache_hits_total", "Tokens found in the cache.", |m| m.cached_tokens.get()),
    ];
    for (name, help, value) in counters {
        page.counters(name, help, MODEL, models, value);
    }
    page.head("vllm:request_success_total", "counter", "Requests by why they ended.");
    for (model, counters) in models {
        for (end, n) in counters.ends().filter(|(end, _)| ["stop", "length", "tool_calls"].contains(end)) {
            page.sample("vllm:request_success_total", &[(MODEL, model), ("finished_reason", end)], n);
        }
    }
    let times: [(&str, fn(&Counters) -> &Histogram); 4] = [
        ("vllm:time_to_first_token_seconds", |m| &m.first_token),
        ("vllm:time_per_output_token_seconds", |m| &m.per_token),
        ("vllm:e2e_request_latency_seconds", |m| &m.whole),
        ("vllm:request_queue_time_seconds", |m| &m.queued),
    ];
    for (name, value) in times {
        page.histograms(name, "As the name says.", MODEL, models, value);
    }
}

/// The text format, version 0.0.4.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn gauges(&mut self, name: &str, help: &str, label: &str, loaded: &Here, value: fn(&Loaded, &Stats) -> f64) {
        self.head(name, "gauge", help);
        for (model, stats) in loaded {
            self.sample(name, &[(label, &model.name)], value(model, stats));
        }
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, models: &ByName, value: fn(&Counters) -> u64) {
        self.head(name, "counter", help);
        for (model, counters) in models {
            self.sample(name, &[(label, model)], value(counters));
        }
    }

    fn histograms(&mut self, name: &str, help: &str, label: &str, models: &ByName, value: fn(&Counters) -> &Histogram) {
        self.head(name, "histogram", help);
        for (model, counters) in models {
            let (histogram, mut n) = (value(counters), 0);
            for (bound, count) in histogram.cumulative() {
                let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".into() };
                self.sample(&format!("{name}_bucket"), &[(label, model), ("le", &bound)], count);
                n = count;
            }
            self.sample(&format!("{name}_sum"), &[(label, model)], histogram.sum());
            self.sample(&format!("{name}_count"), &[(label, model)], n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.sample("a", &[("model", "x\"\\\n"), ("b", "c")], 1.5);
        assert_eq!(page.0, "a{model=\"x\\\"\\\\\\n\",b=\"c\"} 1.5\n");
    }
}
