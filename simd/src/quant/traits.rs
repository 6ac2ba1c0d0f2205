//! [`TypeTraits`]: what there is to know of a type, and how it is made of its row in the table.

use super::*;

/// A row of the table: what there is to know of a type. [`DType::traits`] gives it.
#[derive(Debug)]
pub struct TypeTraits {
    /// The type.
    pub dtype: DType,
    /// Its name in kernels: the feature by which they read it.
    pub feature: &'static str,
    /// Bytes that 32 elements take in planes 0 to 2 of a GPU's buffer, and a block in plane 3.
    pub plane_bytes: [usize; 4],
    /// How far products with activations in 8 bits (beside BF16 weights rounded to BF16 if asked for) may be off in the exam, relatively.
    pub q8_tolerance: f64,
    /// Decodes whole blocks; the lengths must agree.
    pub decode: fn(bytes: &[u8], out: &mut [f32]),
    /// Appends whole blocks to the planes of a GPU's buffer; elements without blocks lie one after the other.
    pub rearrange: Option<fn(bytes: &[u8], planes: &mut Planes)>,
    /// What only blocks of integers have; `None` for those of floats.
    pub groups: Option<GroupTraits>,
}

/// Encodes whole blocks of values into the bytes that they take. With `important`, which has a weight for each column, whole rows.
pub type Encoder = fn(values: &[f32], important: Option<&[f32]>, out: &mut [u8]);

/// What there is to know of a type whose blocks are small integers with scales.
#[derive(Debug)]
pub struct GroupTraits {
    /// Elements with a common scale: 16 or 32.
    pub len: usize,
    /// Reads one block.
    pub read: fn(block: &[u8], out: &mut Groups),
    /// Sets a block's scale and minimum: see [`Block::set_scale`].
    pub set_scale: fn(block: &mut [u8], scale: f32, min: f32),
    /// As [`Block::USUAL`].
    pub usual: (f32, f32),
    /// As [`Block::GRID`].
    pub grid: &'static [u32],
}

/// Decodes plain elements.
fn decode_plain<T: half::Plain>(bytes: &[u8], out: &mut [f32]) {
    for (element, out) in blocks::<T>(bytes).iter().zip(out) {
        *out = element.value();
    }
}

/// Decodes blocks of `LEN` floats.
fn decode_scaled<const LEN: usize, B: Scaled<LEN>>(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in blocks::<B>(bytes).iter().zip(out.as_chunks_mut().0) {
        block.values(out);
    }
}

/// Decodes blocks of `LEN` elements in groups of `GROUP`.
fn decode_groups<const LEN: usize, const GROUP: usize, B: Block>(bytes: &[u8], out: &mut [f32]) {
    let mut groups = Groups::ZERO;
    for (block, out) in blocks::<B>(bytes).iter().zip(out.chunks_exact_mut(LEN)) {
        block.groups(&mut groups);
        for (i, out) in out.iter_mut().enumerate() {
            *out = groups.scales[i / GROUP] * f32::from(groups.quants[i]) - groups.mins[i / GROUP];
        }
    }
}

impl GroupTraits {
    /// What the table knows of the blocks `B`.
    const fn of<B: Block>(len: usize) -> GroupTraits {
        GroupTraits {
            len,
            read: |block, out| bytemuck::from_bytes::<B>(block).groups(out),
            set_scale: |block, scale, min| bytemuck::from_bytes_mut::<B>(block).set_scale(scale, min),
            usual: B::USUAL,
            grid: B::GRID,
        }
    }
}

/// The functions of a row, by its words.
macro_rules! part {
    (decode plain, $block:ty, $len:literal) => {
        decode_plain::<$block>
    };
    (decode groups $group:literal, $block:ty, $len:literal) => {
        decode_groups::<$len, $group, $block>
    };
    (decode scaled, $block:ty, $len:literal) => {
        decode_scaled::<$len, $block>
    };
    (groups plain, $block:ty) => {
        None
    };
    (groups scaled, $block:ty) => {
        None
    };
    (rearrange plain, $block:ty) => {
        None
    };
    (rearrange $kind:ident, $block:ty) => {
        Some(|bytes, planes| blocks::<$block>(bytes).iter().for_each(|block| block.planes(planes)))
    };
    (groups groups $group:literal, $block:ty) => {
        Some(GroupTraits::of::<$block>($group))
    };
    (encode yes, $block:ty, $len:literal) => {
        Some(encode::encode_blocks::<{ encode::SIDE_BY_SIDE }, $len, $block>)
    };
    (encode no, $block:ty, $len:literal) => {
        None
    };
}

macro_rules! traits {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $block:ty, $feature:literal {
        block: $len:literal x $bytes:literal, decode: $kind:ident $($group:literal)?, encode: $encode:ident,
        simd: $simd:ident, planes: $planes:expr, q8: $q8:literal
    })*) => {
        impl DType {
            /// The type's row in the table.
            pub const fn traits(self) -> &'static TypeTraits {
                match self {
                    $(DType::$name => {
                        const { assert!(size_of::<$block>() == $bytes) };
                        const {
                            &TypeTraits {
                                dtype: DType::$name,
                                feature: $feature,
                                plane_bytes: $planes,
                                q8_tolerance: $q8,
                                decode: part!(decode $kind $($group)?, $block, $len),
                                rearrange: part!(rearrange $kind, $block),
                                groups: part!(groups $kind $($group)?, $block),
                            }
                        }
                    })*
                }
            }

            /// Encodes whole blocks, for types that can be written. Apart from the row: programs that only read models, as
            /// pages do, need not hold the encoders.
            pub const fn encoder(self) -> Option<Encoder> {
                match self {
                    $(DType::$name => part!(encode $encode, $block, $len),)*
                }
            }
        }
    };
}
block_types!(traits);
