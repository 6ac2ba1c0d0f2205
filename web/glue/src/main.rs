//! `ir-web-glue MODULE.wasm OUT_DIR NAME`: writes `NAME.js` and `NAME_bg.wasm`, an ES module that loads the WASM module.
//! Optimising and packing are not done here; see `build.sh`.

use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [module, out, name] = arguments.as_slice() else {
        eprintln!("usage: ir-web-glue MODULE.wasm OUT_DIR NAME");
        return ExitCode::from(2);
    };
    match glue(module, out, name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ir-web-glue: {module}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn glue(module: &str, out: &str, name: &str) -> Result<(), String> {
    let mut bindgen = Bindgen::new();
    bindgen.input_path(module).out_name(name).typescript(false).remove_name_section(true).remove_producers_section(true);
    // A module that broke can be made anew: `__wbg_reset_state`.
    bindgen.reset_state_function(name.ends_with("grammar"));
    bindgen.web(true).map_err(|error| format!("{error:#}"))?;
    bindgen.generate(out).map_err(|error| format!("{error:#}"))
}
