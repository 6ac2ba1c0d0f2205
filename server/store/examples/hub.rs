//! The tests' small hub and registry as a program, for tests in other languages: prints its address and serves until it is
//! ended. The registry has `fox` (ir-tiny with a system prompt), the hub `me/fox` with a file of type Q4_K_M.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a program of tests: what cannot go on fails"
)]

#[path = "../tests/store/hub.rs"]
mod hub;

fn main() {
    let hub = hub::Hub::start();
    let tiny = ir_engine::builtin::bytes();
    hub.model(
        "library/fox",
        "latest",
        &[("model", &tiny), ("system", b"You are a fox."), ("params", br#"{"top_k": 7}"#)],
    );
    hub.file("/me/fox/fox-Q4_K_M.gguf", &tiny);
    println!("{}", hub.url());
    loop {
        std::thread::park();
    }
}
