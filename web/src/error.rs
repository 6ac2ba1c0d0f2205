//! Errors on their way to JavaScript: an `Error` with a `code` for programs and a sentence for people.

use ir_engine::Error;
use js_sys::Reflect;
use wasm_bindgen::JsValue;

/// The word for programs.
pub fn code(error: &Error) -> &'static str {
    match error {
        Error::Format(_) => "format",
        Error::Unsupported(_) => "unsupported",
        Error::Shape(_) | Error::Request(_) => "request",
        Error::Limit(_) => "limit",
        Error::Template(_) => "template",
        Error::Device(_) => "device",
        Error::Lost(_) | Error::Reload(_) => "lost",
        _ => "internal",
    }
}

/// The JavaScript error.
pub fn throw(error: Error) -> JsValue {
    with_code(code(&error), &error.to_string())
}

/// A JavaScript error with this code and sentence.
pub fn with_code(code: &str, message: &str) -> JsValue {
    let error = js_sys::Error::new(message);
    // Setting a property of an error that was made here does not fail; without a code the sentence still arrives.
    let _ = Reflect::set(&error, &JsValue::from("code"), &JsValue::from(code));
    error.into()
}
