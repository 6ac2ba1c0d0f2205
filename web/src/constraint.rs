//! [`constraint`]: an answer's constraint whose rules are an object of JavaScript, `Rules` of `js/grammar.js`. The object
//! stays in a table of this thread, since a request must be able to cross threads and an object cannot.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use ir_engine::text::constrain::{Constraint, Rules};
use ir_engine::{Error, Result};
use js_sys::Reflect;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

type Answer<T> = std::result::Result<T, JsValue>;

#[wasm_bindgen]
extern "C" {
    /// `Rules` of `js/grammar.js`.
    pub type PageRules;
    #[wasm_bindgen(method, catch)]
    fn allowed(this: &PageRules) -> Answer<Vec<u32>>;
    #[wasm_bindgen(method, catch)]
    fn accept(this: &PageRules, token: u32) -> Answer<bool>;
    #[wasm_bindgen(method, catch, js_name = acceptText)]
    fn accept_text(this: &PageRules, text: &[u8]) -> Answer<bool>;
    #[wasm_bindgen(method, catch, js_name = isComplete)]
    fn is_complete(this: &PageRules) -> Answer<bool>;
    #[wasm_bindgen(method, catch)]
    fn fork(this: &PageRules) -> Answer<PageRules>;
    #[wasm_bindgen(method, catch)]
    fn free(this: &PageRules) -> Answer<()>;
}

thread_local! {
    static RULES: RefCell<HashMap<u32, PageRules>> = RefCell::default();
    static NEXT: Cell<u32> = const { Cell::new(0) };
}

/// The engine's constraint by these rules.
pub(crate) fn constraint(rules: PageRules) -> Constraint {
    Constraint::new(PageConstraint::new(Some(rules), false))
}

/// A place in the table.
struct PageConstraint {
    place: u32,
    mask: Vec<u32>,
    /// The mask is that of the text so far.
    is_fresh: bool,
    is_done: bool,
}

impl PageConstraint {
    /// `rules`: `None` where they are not to be had.
    fn new(rules: Option<PageRules>, is_done: bool) -> PageConstraint {
        let place = NEXT.replace(NEXT.get().wrapping_add(1));
        if let Some(rules) = rules {
            RULES.with_borrow_mut(|all| all.insert(place, rules));
        }
        PageConstraint { place, mask: Vec::new(), is_fresh: false, is_done }
    }

    fn ask<T>(&self, question: impl FnOnce(&PageRules) -> Answer<T>) -> Result<T> {
        RULES.with_borrow(|all| match all.get(&self.place) {
            Some(rules) => question(rules).map_err(|error| failed(&error)),
            None => Err(Error::request("the rules of this answer are gone: ask again")),
        })
    }
}

impl Drop for PageConstraint {
    fn drop(&mut self) {
        if let Some(rules) = RULES.with_borrow_mut(|all| all.remove(&self.place)) {
            // An object whose module broke has nothing to give back.
            let _ = rules.free();
        }
    }
}

impl Rules for PageConstraint {
    fn allowed(&mut self) -> Result<&[u32]> {
        if !self.is_fresh {
            self.mask = self.ask(PageRules::allowed)?;
            self.is_fresh = true;
        }
        Ok(&self.mask)
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        self.is_fresh = false;
        self.is_done = self.ask(|rules| rules.accept(token))?;
        Ok(())
    }

    fn accept_text(&mut self, text: &[u8]) -> Result<()> {
        self.is_fresh = false;
        self.is_done = self.ask(|rules| rules.accept_text(text))?;
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.is_done
    }

    fn is_complete(&mut self) -> Result<bool> {
        self.ask(PageRules::is_complete)
    }

    fn fork(&self) -> Box<dyn Rules> {
        let copy = RULES.with_borrow(|all| all.get(&self.place).and_then(|rules| rules.fork().ok()));
        Box::new(PageConstraint::new(copy, self.is_done))
    }
}

/// The engine's error for one of the other module, which has the code of its own, or for its end.
fn failed(error: &JsValue) -> Error {
    let text = |name: &str| Reflect::get(error, &JsValue::from(name)).ok().and_then(|v| v.as_string());
    match (text("code").as_deref(), text("message")) {
        (Some("limit"), Some(sentence)) => Error::limit(sentence),
        (Some("unsupported"), Some(sentence)) => Error::unsupported(sentence),
        (Some(_), Some(sentence)) => Error::request(sentence),
        _ => Error::limit("the grammar is beyond what a page can do: make it simpler"),
    }
}
