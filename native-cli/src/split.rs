//! `ir split` and `ir merge`: a GGUF file in parts, and the parts as one file.

use ir_engine::convert::{self, PartLimit};

use crate::args::{MergeArgs, SplitArgs};
use crate::failure::Result;
use crate::models::{self, Opening as _};
use crate::quantize::watched;
use crate::term::Out;

/// Tensors of a part if nothing is said, as in llama-gguf-split.
const MAX_TENSORS: usize = 128;

/// `ir split`.
pub(crate) fn split(args: &SplitArgs) -> Result {
    let most = match args.max_size {
        Some(bytes) => PartLimit::Bytes(bytes),
        None => PartLimit::Tensors(args.max_tensors.unwrap_or(MAX_TENSORS)),
    };
    let found = models::find_in(&args.model, &args.place)?;
    let file = found.open_file(&args.place)?;
    let paths = watched(|told| convert::split(&file, &args.prefix, most, told))?;
    let mut out = Out::new();
    paths.iter().try_for_each(|path| out.line(path.display().to_string()))
}

/// `ir merge`.
pub(crate) fn merge(args: &MergeArgs) -> Result {
    let found = models::find_in(&args.model, &args.place)?;
    let file = found.open_file(&args.place)?;
    watched(|told| convert::merge(&file, &args.output, told))?;
    Out::new().line(args.output.display().to_string())
}
