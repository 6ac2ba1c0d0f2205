//! `kv_write`: keys and values into their sequences' pages; the cache's layout.

use crate::cpu::simd::Table;
use crate::cpu::zeroed::Zeroed;
use crate::dtype::DType;
use crate::error::Result;
use crate::plan::{Inputs, KvKind, KvShape, PAGE, View};
use crate::quant;

/// The cache of one layer. Keys: `[page][kv head][PAGE positions][k_dim]`; values likewise with `v_dim`.
#[derive(Debug)]
pub struct KvLayer {
    kind: KvKind,
    shape: KvShape,
    group: usize,
    k: Zeroed<u8>,
    v: Zeroed<u8>,
}

impl KvLayer {
    /// Room for `n_pages` of this group of caches. The system gives the memory when a page is first written.
    ///
    /// # Errors
    /// Where the system would not give that much memory, or heads are no whole blocks of the kind.
    pub fn new(kind: KvKind, shape: KvShape, group: usize, n_pages: usize) -> Result<KvLayer> {
        let v_dim = if shape.v_in_k { 0 } else { shape.v_dim };
        shape.expect_blocks(kind)?;
        let bytes = |dim: usize| n_pages * shape.n_kv_heads * PAGE * kind.row_bytes(dim);
        Ok(KvLayer { kind, shape, group, k: Zeroed::new(bytes(shape.k_dim))?, v: Zeroed::new(bytes(v_dim))? })
    }

    /// The layer's shape.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Whether it has no pages: of a part of a model that does not write it.
    pub fn is_empty(&self) -> bool {
        self.k.is_empty()
    }

    /// The group of caches whose page tables it has.
    pub fn group(&self) -> usize {
        self.group
    }

    /// How rows are stored.
    pub fn dtype(&self) -> DType {
        self.kind.dtype()
    }

    /// A page's keys, and its values: bytes that [`KvLayer::page_mut`] takes.
    pub fn page(&self, page: u32) -> [&[u8]; 2] {
        let at = |data: &[u8], dim: usize| self.page_range(page, if data.is_empty() { 0 } else { dim });
        [&self.k[at(&self.k, self.shape.k_dim)], &self.v[at(&self.v, self.shape.v_dim)]]
    }

    /// The same, to be written.
    pub fn page_mut(&mut self, page: u32) -> [&mut [u8]; 2] {
        let v_dim = if self.v.is_empty() { 0 } else { self.shape.v_dim };
        let (k, v) = (self.page_range(page, self.shape.k_dim), self.page_range(page, v_dim));
        [&mut self.k[k], &mut self.v[v]]
    }

    fn page_range(&self, page: u32, dim: usize) -> std::ops::Range<usize> {
        let len = self.shape.n_kv_heads * PAGE * self.kind.row_bytes(dim);
        page as usize * len..(page as usize + 1) * len
    }

    /// One head's keys in a page: `[PAGE][k_dim]`.
    pub fn keys(&self, page: u32, head: usize) -> &[u8] {
        let len = PAGE * self.kind.row_bytes(self.shape.k_dim);
        &self.k[(page as usize * self.shape.n_kv_heads + head) * len..][..len]
    }

    /// One head's values in a page: `[PAGE][v_dim]`.
    pub fn values(&self, page: u32, head: usize) -> &[u8] {
        let len = PAGE * self.kind.row_bytes(self.shape.v_dim);
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
    let (k_row, v_row) = (kind.row_bytes(shape.k_dim), kind.row_bytes(shape.v_dim));
    let k_dim = shape.k_dim - tail.map_or(0, |tail| tail.view.cols);
    for (r, (position, seq)) in inputs.positions.iter().zip(&inputs.seqs).enumerate() {
        let table = inputs.table(*seq, layer.group);
        let (page, place) = (table[*position as usize / PAGE], *position as usize % PAGE);
        let first = |head: usize, row: usize| ((page as usize * shape.n_kv_heads + head) * PAGE + place) * row;
        for (head, x) in k.row(r).chunks_exact(k_dim).enumerate() {
            let at = first(head, k_row);
            match tail {
                // A block may lie across both pieces.
                Some(tail) if kind == KvKind::Blocks8 => store(t, kind, &[x, tail.row(r)].concat(), &mut layer.k[at..]),
                Some(tail) => {
                    store(t, kind, x, &mut layer.k[at..]);
                    store(t, kind, tail.row(r), &mut layer.k[at + kind.row_bytes(k_dim)..]);
                }
                None => store(t, kind, x, &mut layer.k[at..]),
            }
        }
        if let Some(v) = v {
            for (head, x) in v.row(r).chunks_exact(shape.v_dim).enumerate() {
                store(t, kind, x, &mut layer.v[first(head, v_row)..]);
            }
        }
    }
}

/// Stores elements at the start of `to`.
fn store(t: &Table, kind: KvKind, x: &[f32], to: &mut [u8]) {
    let out = &mut to[..kind.row_bytes(x.len())];
    match kind {
        KvKind::F16 => (t.to_f16)(x, out),
        KvKind::F32 => out.copy_from_slice(bytemuck::cast_slice(x)),
        KvKind::Blocks8 => quant::cache_blocks(x, out),
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
