//! `ir-web`: the engine as WebAssembly, called by `js/worker.js`; two modules. Feature `engine` is the main one:
//! [`loading`] takes a file in pieces, [`host`] answers requests, [`wire`] is the JSON that crosses, `constraint` asks what
//! a constrained answer may go on with. That is answered by the other, feature `grammar`: [`grammar`] compiles what
//! answers are held to. [`error`] are the errors of both. What a web developer sees is JavaScript: `js/index.js`.
//! Fetching, caching and workers are there too, not here.

#[cfg(target_arch = "wasm32")]
mod alloc;
#[cfg(feature = "engine")]
mod constraint;
pub mod error;
#[cfg(feature = "grammar")]
pub mod grammar;
#[cfg(feature = "engine")]
pub mod host;
#[cfg(feature = "engine")]
pub mod loading;
#[cfg(all(test, feature = "engine", feature = "grammar"))]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests;
#[cfg(feature = "engine")]
pub mod wire;

#[cfg(any(feature = "engine", target_arch = "wasm32"))]
use wasm_bindgen::prelude::wasm_bindgen;

/// Runs once, when the module starts: a panic becomes a JavaScript error with its sentence, instead of a bare trap.
#[cfg(target_arch = "wasm32")]
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|info| wasm_bindgen::throw_str(&format!("internal error: {info}"))));
}

/// Works for the CPU's pool, in a worker of its own on the same memory: `js/thread.js` calls it.
#[cfg(all(feature = "engine", target_arch = "wasm32", target_feature = "atomics"))]
#[wasm_bindgen]
pub fn work() {
    ir_engine::cpu::work();
}

/// Whether the CPU's sums are exact in this browser, whose compiler may have a fault: where not, another build is taken.
#[cfg(feature = "engine")]
#[wasm_bindgen]
pub fn exact() -> bool {
    ir_engine::cpu::simd::is_exact(ir_engine::cpu::simd::detect())
}

/// What this build of the module can do: for its name in messages.
#[cfg(feature = "engine")]
#[wasm_bindgen]
pub fn build() -> String {
    let relaxed = if cfg!(target_feature = "relaxed-simd") { "relaxed SIMD" } else { "SIMD" };
    let threads = if cfg!(target_feature = "atomics") { ", threads" } else { "" };
    format!("{relaxed}{threads}")
}

/// The browser's clock.
#[cfg(feature = "engine")]
mod clock {
    use wasm_bindgen::prelude::wasm_bindgen;

    #[wasm_bindgen]
    extern "C" {
        #[wasm_bindgen(js_namespace = performance)]
        fn now() -> f64;
    }

    /// Seconds from any start.
    pub(crate) fn seconds() -> f64 {
        now() / 1000.0
    }
}
