//! [`Door`]: goes through a folder's tensors and describes each under its name in GGUF files.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use super::config::Config;
use super::names::{BEGINNINGS, EXPERTS, IN_LAYER, LAYERS, LOG_DECAYS, OF_EXPERT, STACKED, WHOLE, is_beside};
use super::quantised::{self, Matrix, Role, Settings};
use super::rows::Row;
use super::views;
use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::file::safetensors::Stored;
use crate::file::{Described, Folder, Source};
use crate::meta::shown;

/// A folder on its way through.
pub(super) struct Door<'a> {
    pub(super) folder: &'a Folder,
    pub(super) config: Config,
    pub(super) row: &'static Row,
    /// How the weights are quantised, if they are.
    quantised: Option<Settings>,
    /// Whether factors stand beside matrices.
    pub(super) factors: bool,
    out: Vec<Described>,
    /// Parts of tensors that a folder holds apart, by the whole's name and their number.
    apart: BTreeMap<String, BTreeMap<u64, &'a Stored>>,
    /// The same of quantised matrices.
    matrices: BTreeMap<String, BTreeMap<u64, Matrix>>,
    /// Quantised matrices whose columns may stay in the order of their groups, by their names.
    ordered: BTreeMap<String, Matrix>,
    /// Whether all columns are to be in their own order.
    natural: bool,
}

/// A tensor, and what its name says.
pub(super) struct Named<'a> {
    pub(super) tensor: &'a Stored,
    pub(super) layer: Option<u32>,
    /// Without beginning and layer.
    pub(super) name: &'a str,
}

impl Named<'_> {
    /// The name in GGUF files of something in this tensor's layer.
    pub(super) fn called(&self, name: &str) -> String {
        match self.layer {
            Some(layer) => format!("blk.{layer}.{name}"),
            None => name.to_owned(),
        }
    }
}

impl<'a> Door<'a> {
    pub(super) fn new(folder: &'a Folder, config: Config, row: &'static Row, natural: bool) -> Result<Door<'a>> {
        let quantised = Settings::of(&config)?;
        let (apart, matrices, ordered) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Door { folder, config, row, quantised, factors: false, out: Vec::new(), apart, matrices, ordered, natural })
    }

    /// Describes every tensor.
    pub(super) fn translate(&mut self) -> Result<()> {
        let tied = self.config.bool(&["tie_word_embeddings"]) == Some(true);
        for tensor in self.folder.tensors() {
            let named = named(tensor);
            let is_head = matches!(quantised::parted(named.name), ("lm_head", ending) if ending != "bias");
            if is_beside(&tensor.name) || (tied && is_head) {
                continue;
            }
            match self.quantised.as_ref().map_or(Role::Plain, |_| quantised::role(self.folder, tensor)) {
                Role::Plain => self.tensor(&named)?,
                Role::Beside => {}
                Role::Matrix => self.matrix(&named)?,
            }
        }
        self.put_together()
    }

    /// Describes a tensor of plain numbers.
    fn tensor(&mut self, named: &Named<'a>) -> Result<()> {
        if (self.row.tensor)(self, named)? || self.put_apart(named)? {
            return Ok(());
        }
        if LOG_DECAYS.contains(&named.name) {
            return self.vector(named.called("ssm_a"), named.tensor, |x| -x.exp());
        }
        // What is not known keeps its name, by which it will be refused.
        let name = match lookup(self.row, named.layer, named.name) {
            Some(name) => named.called(&name),
            None => named.tensor.name.clone(),
        };
        self.whole(name, named.tensor)
    }

    /// Describes a quantised matrix.
    fn matrix(&mut self, named: &Named<'a>) -> Result<()> {
        let (folder, settings) = (self.folder, self.quantised.clone().unwrap_or_default());
        let matrix = Matrix::read(named.tensor, |name| folder.tensor(name), &settings)?;
        let ((base, _), (full, _)) = (quantised::parted(named.name), quantised::parted(&named.tensor.name));
        let (name, full) = (format!("{base}.weight"), format!("{full}.weight"));
        if self.row.taken.contains(&base) {
            let plain = matrix.plain(&full)?;
            let named = Named { tensor: &plain, layer: named.layer, name: &name };
            if (self.row.tensor)(self, &named)? {
                return Ok(());
            }
        }
        if let Some((n, ours)) = expert(&name) {
            let parts = self.matrices.entry(named.called(ours)).or_default();
            return match parts.insert(n, matrix) {
                None => Ok(()),
                Some(_) => Err(twice(&full)),
            };
        }
        let ours = lookup(self.row, named.layer, &name).map_or(full, |ours| named.called(&ours));
        if !self.natural && matrix.columns().is_some() && sharing(&ours).is_some() {
            return match self.ordered.insert(ours.clone(), matrix) {
                None => Ok(()),
                Some(_) => Err(twice(&ours)),
            };
        }
        self.put_matrices(ours, vec![matrix], false)
    }

    /// Describes quantised matrices as one tensor. Rows of the token table are looked up, so their factors are in them.
    /// `ordered` says whether the columns of one matrix may be in the order of their groups, which stands beside it then.
    fn put_matrices(&mut self, name: String, matrices: Vec<Matrix>, ordered: bool) -> Result<()> {
        if let (true, [matrix], Some(base)) = (ordered, &matrices[..], name.strip_suffix(".weight"))
            && let Some(columns) = matrix.columns()
        {
            self.numbers(&format!("{base}.columns"), columns.iter().map(|c| *c as f32).collect());
        }
        let may = quantised::Beside { factors: name != "token_embd.weight", columns: ordered };
        let joined = quantised::joined(&name, matrices, may)?;
        if let (Some(factors), Some(base)) = (joined.factors, name.strip_suffix(".weight")) {
            self.factors = true;
            self.numbers(&format!("{base}.scale"), factors);
        }
        self.put(name, joined.dims, joined.dtype, joined.source);
        Ok(())
    }

    /// Notes experts and heads that have a tensor each.
    fn put_apart(&mut self, named: &Named<'a>) -> Result<bool> {
        let found = expert(named.name).map(|(n, ours)| (n, ours.to_owned()));
        let head = named.name.split_once("_layernorm.norms.").and_then(|(start, rest)| {
            let ours = format!("attn_{}_norm.weight", start.strip_prefix("self_attn.")?);
            Some((rest.strip_suffix(".weight")?.parse().ok()?, ours))
        });
        let Some((n, ours)) = found.or(head).or_else(|| stacked(named.name)) else { return Ok(false) };
        let parts = self.apart.entry(named.called(&ours)).or_default();
        match parts.insert(n, named.tensor) {
            None => Ok(true),
            Some(_) => Err(twice(&named.tensor.name)),
        }
    }

    /// Describes the tensors of which the folder holds parts.
    fn put_together(&mut self) -> Result<()> {
        for (name, parts) in std::mem::take(&mut self.apart) {
            let parts = in_order(&name, parts)?;
            let first = parts[0];
            if !parts.iter().all(|t| t.shape() == first.shape() && t.element == first.element) {
                return Err(Error::shape(format!("the parts of {name} have different shapes or types")));
            }
            let n = parts.len() as u64;
            let dtype = views::dtype(first)?;
            let mut dims = views::dims(first);
            dims.push(n);
            let pieces: Vec<Bytes> = parts.iter().map(|t| t.bytes.clone()).collect();
            match views::is_small(first) {
                true => self.put(name, dims, DType::F32, views::vector(pieces, dtype, |x| x)),
                false => self.put(name, dims, dtype, Source::Pieces(pieces)),
            }
        }
        for (name, parts) in std::mem::take(&mut self.matrices) {
            let parts = in_order(&name, parts)?;
            self.put_matrices(name, parts, false)?;
        }
        let all = std::mem::take(&mut self.ordered);
        let names: HashSet<&str> = self.out.iter().map(|t| t.name.as_str()).collect();
        let same: HashSet<String> =
            all.iter().filter(|(n, m)| is_shared(n, m, &all, &names)).map(|(n, _)| n.clone()).collect();
        for (name, matrix) in all {
            let ordered = same.contains(&name);
            self.put_matrices(name, vec![matrix], ordered)?;
        }
        Ok(())
    }

    /// Describes a tensor.
    pub(super) fn put(&mut self, name: String, dims: Vec<u64>, dtype: DType, source: Source) {
        self.out.push(Described { name, dims, dtype, source });
    }

    /// A whole tensor: as it is, or as a vector of f32.
    pub(super) fn whole(&mut self, name: String, tensor: &Stored) -> Result<()> {
        if !views::is_small(tensor) {
            let dtype = views::dtype(tensor)?;
            self.put(name, views::dims(tensor), dtype, Source::Pieces(vec![tensor.bytes.clone()]));
            return Ok(());
        }
        let base = name.strip_suffix(".weight").unwrap_or(&name);
        let base = base.rsplit_once('.').filter(|_| base.starts_with("blk.")).map_or(base, |(_, base)| base);
        let plus = if self.row.minus_one.contains(&base) { 1.0 } else { 0.0 };
        self.vector(name, tensor, move |x| x + plus)
    }

    /// A tensor as a vector of f32, each element changed.
    pub(super) fn vector(
        &mut self,
        name: String,
        t: &Stored,
        change: impl Fn(f32) -> f32 + Send + Sync + 'static,
    ) -> Result<()> {
        let source = views::vector(vec![t.bytes.clone()], views::dtype(t)?, change);
        self.put(name, views::dims(t), DType::F32, source);
        Ok(())
    }

    /// Ranges of a tensor's rows, one after the other; of a vector, of its elements. `dims` is their shape.
    pub(super) fn rows(&mut self, name: String, tensor: &Stored, ranges: &[Range<u64>], dims: Vec<u64>) -> Result<()> {
        let dtype = views::dtype(tensor)?;
        if let [n] = *tensor.shape() {
            let bytes: Vec<Bytes> = ranges
                .iter()
                .map(|r| {
                    let size = tensor.element.size();
                    tensor.bytes.slice((r.start * size) as usize..(r.end.min(n) * size) as usize)
                })
                .collect::<Option<_>>()
                .ok_or_else(|| Error::shape(format!("tensor {} is too short", shown(tensor.name.as_bytes()))))?;
            self.put(name, dims, DType::F32, views::vector(bytes, dtype, |x| x));
            return Ok(());
        }
        let pieces = views::pieces(tensor, ranges)?;
        self.put(name, dims, dtype, Source::Pieces(pieces));
        Ok(())
    }

    /// Numbers that no file holds.
    pub(super) fn numbers(&mut self, name: &str, values: Vec<f32>) {
        let dims = vec![values.len() as u64];
        self.put(name.to_owned(), dims, DType::F32, views::numbers(values));
    }

    /// Rows of the token table.
    pub(super) fn n_vocab(&self) -> usize {
        let table = self.out.iter().find(|t| t.name == "token_embd.weight");
        table.and_then(|t| t.dims.get(1)).map_or(0, |n| usize::try_from(*n).unwrap_or(0))
    }

    /// The largest number of a layer, and one more.
    pub(super) fn n_blocks(&self) -> u32 {
        let layers =
            self.out.iter().filter_map(|t| t.name.strip_prefix("blk.")?.split_once('.')?.0.parse::<u32>().ok());
        layers.max().map_or(0, |n| n.saturating_add(1))
    }

    /// A described tensor's dimensions: the first one in any layer with this ending.
    pub(super) fn dims_of(&self, ending: &str) -> Option<&[u64]> {
        self.out.iter().find(|t| t.name.ends_with(ending)).map(|t| &t.dims[..])
    }

    /// The tensors and the files that they are in.
    pub(super) fn finish(self) -> (Vec<Described>, Vec<Bytes>) {
        (self.out, self.folder.files().to_vec())
    }
}

/// A tensor's name in GGUF files, without its layer.
pub(super) fn lookup(row: &Row, layer: Option<u32>, name: &str) -> Option<String> {
    let table = if layer.is_some() { IN_LAYER } else { WHOLE };
    let find = |name: &str| {
        let all = row.names.iter().chain(table);
        all.into_iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| (*ours).to_owned())
    };
    find(name).or_else(|| {
        let (base, ending) = name.rsplit_once('.').filter(|(_, e)| ["weight", "bias"].contains(e))?;
        Some(format!("{}.{ending}", find(base)?))
    })
}

/// Takes a name apart.
fn named(tensor: &Stored) -> Named<'_> {
    let (layer, name) = parted(&tensor.name);
    Named { tensor, layer, name }
}

/// A name's layer, and the name without beginning and layer.
pub(super) fn parted(full: &str) -> (Option<u32>, &str) {
    let name = BEGINNINGS.iter().find_map(|b| full.strip_prefix(b)).unwrap_or(full);
    let in_layers = LAYERS.iter().find_map(|b| name.strip_prefix(b)).and_then(|rest| rest.split_once('.'));
    match in_layers.and_then(|(n, rest)| Some((n.parse().ok()?, rest))) {
        Some((layer, name)) => (Some(layer), name),
        None => (None, name),
    }
}

/// The number of an expert that has a tensor of its own, and what all experts' tensors are together.
fn expert(name: &str) -> Option<(u64, &'static str)> {
    let (n, rest) = EXPERTS.iter().find_map(|start| name.strip_prefix(start))?.split_once('.')?;
    let (_, ours) = OF_EXPERT.iter().find(|(theirs, _)| *theirs == rest)?;
    Some((n.parse().ok()?, ours))
}

/// The number of a matrix that is apart, and what all of them are together.
fn stacked(name: &str) -> Option<(u64, String)> {
    STACKED.iter().find_map(|(start, ours)| {
        let n = name.strip_prefix(start)?.strip_suffix(".weight")?;
        Some((n.parse().ok()?, (*ours).to_owned()))
    })
}

/// Matrices of a layer that are multiplied with the same columns, and with others in one product.
const SHARING: [&[&str]; 4] = [
    &["attn_q", "attn_k", "attn_v", "attn_qkv", "attn_gate", "attn_q_a", "attn_kv_a_mqa"],
    &["attn_output"],
    &["ffn_gate", "ffn_up"],
    &["ffn_down"],
];

/// The layer of a matrix, and what is multiplied with the same columns.
fn sharing(name: &str) -> Option<(&str, &'static [&'static str])> {
    let (layer, base) = name.strip_suffix(".weight")?.rsplit_once('.')?;
    Some((layer, SHARING.into_iter().find(|all| all.contains(&base))?))
}

/// Whether all matrices that are multiplied with the same columns have them in one order. Layers with a state multiply others
/// with them, too.
fn is_shared(name: &str, matrix: &Matrix, all: &BTreeMap<String, Matrix>, others: &HashSet<&str>) -> bool {
    let Some((layer, names)) = sharing(name) else { return false };
    let with_state = others.iter().any(|n| n.strip_prefix(layer).is_some_and(|rest| rest.starts_with(".ssm_")));
    let same = |base: &&str| {
        let name = format!("{layer}.{base}.weight");
        all.get(&name).map_or(!others.contains(name.as_str()), |m| m.columns() == matrix.columns())
    };
    !(with_state && names[0] == "attn_q") && names.iter().all(same)
}

/// The parts of a tensor in order, of which none may be missing.
fn in_order<T>(name: &str, parts: BTreeMap<u64, T>) -> Result<Vec<T>> {
    match (0..).zip(parts.keys()).find(|(i, no)| i != *no) {
        Some((i, _)) => Err(Error::format(format!("part {i} of {name} is missing from the folder"))),
        None => Ok(parts.into_values().collect()),
    }
}

fn twice(name: &str) -> Error {
    Error::format(format!("tensor {} is there twice", shown(name.as_bytes())))
}
