//! `kv_write`: keys and values into their sequences' pages; the cache's layout.

use crate::cpu::simd::Table;
use crate::cpu::zeroed::Zeroed;
use crate::dtype::DType;
use crate::error::Result;
use crate::plan::{Inputs, KvKind, KvShape, PAGE, View};

/// The cache of one layer. Keys: `[page][kv head][PAGE positions][k_dim]`; values likewise with `v_dim`.
#[derive(Debug)]
pub struct KvLayer {
    kind: KvKind,
    shape: KvShape,
    k: Zeroed<u8>,
    v: Zeroed<u8>,
}

impl KvLayer {
    /// Room for `n_pages`. The system gives the memory when a page is first written.
    ///
    /// # Errors
    /// Where the system would not give that much memory.
    pub fn new(kind: KvKind, shape: KvShape, n_pages: usize) -> Result<KvLayer> {
        let bytes = |dim: usize| n_pages * shape.n_kv_heads * PAGE * dim * kind.bytes();
        let v_dim = if shape.v_in_k { 0 } else { shape.v_dim };
        Ok(KvLayer { kind, shape, k: Zeroed::new(bytes(shape.k_dim))?, v: Zeroed::new(bytes(v_dim))? })
    }

    /// The layer's shape.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// How elements are stored.
    pub fn dtype(&self) -> DType {
        match self.kind {
            KvKind::F16 => DType::F16,
            KvKind::F32 => DType::F32,
        }
    }

    /// One head's keys in a page: `[PAGE][k_dim]`.
    pub fn keys(&self, page: u32, head: usize) -> &[u8] {
        let len = PAGE * self.shape.k_dim * self.kind.bytes();
        &self.k[(page as usize * self.shape.n_kv_heads + head) * len..][..len]
    }

    /// One head's values in a page: `[PAGE][v_dim]`.
    pub fn values(&self, page: u32, head: usize) -> &[u8] {
        let len = PAGE * self.shape.v_dim * self.kind.bytes();
        &self.v[(page as usize * self.shape.n_kv_heads + head) * len..][..len]
    }
}

/// Stores the rows' keys `k` (and behind each head's the common `tail`) and values `v` in their sequences' pages.
pub fn kv_write(
    t: &Table,
    inputs: &Inputs,
    k: Columns<'_>,
    tail: Option<Columns<'_>>,
    v: Option<Columns<'_>>,
    layer: &mut KvLayer,
) {
    let (kind, shape) = (layer.kind, layer.shape);
    let k_dim = shape.k_dim - tail.map_or(0, |tail| tail.view.cols);
    for (r, (position, seq)) in inputs.positions.iter().zip(&inputs.seqs).enumerate() {
        let (page, place) = (inputs.tables[*seq as usize][*position as usize / PAGE], *position as usize % PAGE);
        let first = |head: usize, dim: usize| ((page as usize * shape.n_kv_heads + head) * PAGE + place) * dim;
        for (head, x) in k.row(r).chunks_exact(k_dim).enumerate() {
            store(t, kind, x, &mut layer.k, first(head, shape.k_dim));
            if let Some(tail) = tail {
                store(t, kind, tail.row(r), &mut layer.k, first(head, shape.k_dim) + k_dim);
            }
        }
        if let Some(v) = v {
            for (head, x) in v.row(r).chunks_exact(shape.v_dim).enumerate() {
                store(t, kind, x, &mut layer.v, first(head, shape.v_dim));
            }
        }
    }
}

/// Stores elements from the element `first` of a cache on.
fn store(t: &Table, kind: KvKind, x: &[f32], to: &mut [u8], first: usize) {
    let out = &mut to[first * kind.bytes()..(first + x.len()) * kind.bytes()];
    match kind {
        KvKind::F16 => (t.to_f16)(x, out),
        KvKind::F32 => out.copy_from_slice(bytemuck::cast_slice(x)),
    }
}

/// Columns of a slot's data.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// The slot's rows.
    pub data: &'a [f32],
    /// Columns of a whole row.
    pub width: usize,
    /// The columns meant.
    pub view: View,
}

impl<'a> Columns<'a> {
    /// The columns of row `r`.
    pub fn row(&self, r: usize) -> &'a [f32] {
        &self.data[r * self.width + self.view.start..][..self.view.cols]
    }
}
