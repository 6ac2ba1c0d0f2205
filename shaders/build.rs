//! Makes the lists of `src/lib.rs` of the WGSL files in `kernels` and `lib`: their names and texts, and the types that
//! `lib` can decode. A module for web pages
//! gets the texts without comments and indentation, which cost room there; elsewhere they stay as written, so that a
//! driver's complaint can be found in them.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let small = env::var("CARGO_CFG_TARGET_ARCH")? == "wasm32";
    for folder in ["kernels", "lib"] {
        println!("cargo::rerun-if-changed={folder}");
        let mut files: Vec<_> =
            fs::read_dir(folder)?.map(|file| Ok(file?.path())).collect::<Result<_, std::io::Error>>()?;
        files.retain(|file| file.extension().is_some_and(|e| e == "wgsl"));
        files.sort();
        let mut list = String::from("&[");
        let mut types = String::from("&[");
        for file in files {
            let text = fs::read_to_string(&file)?;
            let text = if small { without_comments(&text) } else { text };
            let name = file.file_stem().and_then(|name| name.to_str()).ok_or("a file's name is no text")?;
            list += &format!("({name:?}, {text:?}),\n");
            if let Some(name) = name.strip_prefix("dequant_") {
                types += &format!("({name:?}, {}), ", text.contains("#import unit_quant"));
            }
        }
        if folder == "lib" {
            fs::write(Path::new(&env::var("OUT_DIR")?).join("types.rs"), types + "]")?;
        }
        fs::write(Path::new(&env::var("OUT_DIR")?).join(format!("{folder}.rs")), list + "]")?;
    }
    Ok(())
}

/// WGSL has no strings: two strokes always begin a comment.
fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).fold(String::new(), |all, line| all + line + "\n")
}
