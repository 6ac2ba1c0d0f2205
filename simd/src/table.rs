//! How a table is made of an implementation of `Lanes`: every kernel is instantiated inside a function that enables
//! the instruction set, behind a safe function pointer.

/// A safe function that calls the kernel `$f` with `$features` enabled.
macro_rules! entry {
    ($features:literal, ($($a:ident: $t:ty),*) $(-> $r:ty)?, $f:expr) => {{
        #[target_feature(enable = $features)]
        unsafe fn inner($($a: $t),*) $(-> $r)? {
            // SAFETY: only called where the instruction set was detected, see below.
            unsafe { $f($($a),*) }
        }
        fn entry($($a: $t),*) $(-> $r)? {
            // SAFETY: a table leaves this crate only through `available` and `exam::tables`, which hand it out only where the
            // instruction set was detected.
            unsafe { inner($($a),*) }
        }
        entry
    }};
}
pub(crate) use entry;

/// The tile of a plain type, by how it loads and how its elements are multiplied.
macro_rules! plain_tile {
    ($lanes:ty, $features:literal, $load:ty, $product:ty) => {
        $crate::TileKernels {
            lanes: 2 * <$lanes as $crate::lanes::Lanes>::LANES,
            columns: <$lanes as $crate::lanes::Lanes>::LANES * <$lanes as $crate::lanes::Lanes>::COLS_F,
            rows: <$lanes as $crate::lanes::Lanes>::ROWS_F,
            block: dots::PLAIN_BLOCK,
            layout: <$product as dots::Product>::LAYOUT,
            unpack: entry!($features, (w: &[u8], row_bytes: usize, block: usize, tile: &mut tile::Weights),
                tile::unpack_plain::<$lanes, $load, { <$lanes as $crate::lanes::Lanes>::COLS_F }, 2>),
            multiply: entry!($features, (w: &tile::Weights, x: &panels::Panels, panel: usize, ahead: &[u8], out: &mut [f32]),
                tile::multiply_plain::<
                    $lanes,
                    $product,
                    { <$lanes as $crate::lanes::Lanes>::ROWS_F },
                    { <$lanes as $crate::lanes::Lanes>::COLS_F },
                    2,
                >),
        }
    };
}
pub(crate) use plain_tile;

/// The kernels that multiply pairs of BF16 numbers. A pair lies in a row as an F32 number would.
#[cfg(target_arch = "x86_64")]
macro_rules! pairs {
    ($lanes:ty, $features:literal) => {
        $crate::PairKernels {
            dots: entry!($features, (w: &[u8], x: &[&[f32]], out: &mut [f32]),
                dots::dots_plain::<$lanes, dots::F32, dots::Pairs>),
            tile: plain_tile!($lanes, $features, dots::F32, dots::Pairs),
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(crate) use pairs;

/// The kernels of a row of the table of types, by what it says of `decode` and `simd`.
macro_rules! kernels {
    // A plain type.
    ($lanes:ty, $features:literal, $name:ident, plain, own) => {
        $crate::TypeKernels {
            dots_f32: entry!($features, (w: &[u8], x: &[&[f32]], out: &mut [f32]),
                dots::dots_plain::<$lanes, dots::$name, dots::Floats>),
            tile: Some(plain_tile!($lanes, $features, dots::$name, dots::Floats)),
            rows: if <$lanes as $crate::lanes::Lanes>::DOT_ROWS && <dots::$name as dots::Plain>::IS_HALF {
                Some(entry!($features,
                    (w: &[u8], row_bytes: usize, block: usize, x: &[&[f32]], ahead: &[u8], out: &mut [f32]),
                    dot_rows::rows_plain::<$lanes, dots::$name>))
            } else {
                None
            },
            ..scalar::TABLE.types[$crate::index(DType::$name)]
        }
    };
    ($lanes:ty, $features:literal, $name:ident, scaled, own) => {
        kernels!($lanes, $features, $name, plain, own)
    };
    // A block type with a loop of its own.
    ($lanes:ty, $features:literal, $name:ident, groups $group:literal, own) => {
        $crate::TypeKernels {
            dots_f32: entry!($features, (w: &[u8], x: &[&[f32]], out: &mut [f32]),
                dots::dots_decoded::<$lanes, formats::$name>),
            dots_q8: entry!($features, (w: &[u8], x: &[Q8Row<'_>], out: &mut [f32]),
                dots::dots_q8::<$lanes, formats::$name>),
            tile: Some($crate::TileKernels {
                lanes: <$lanes as $crate::lanes::Lanes>::LANES,
                columns: <$lanes as $crate::lanes::Lanes>::LANES * <$lanes as $crate::lanes::Lanes>::COLS_Q,
                rows: <$lanes as $crate::lanes::Lanes>::ROWS_Q,
                block: usize::MAX,
                layout: (<formats::$name as formats::Format>::GROUP, formats::offset::<$lanes, formats::$name>()),
                unpack: entry!($features, (w: &[u8], row_bytes: usize, block: usize, tile: &mut tile::Weights),
                    tile::unpack_q8::<$lanes, formats::$name>),
                multiply: entry!($features, (w: &tile::Weights, x: &panels::Panels, panel: usize, ahead: &[u8], out: &mut [f32]),
                    tile::multiply_q8::<
                        $lanes,
                        formats::$name,
                        { <$lanes as $crate::lanes::Lanes>::ROWS_Q },
                        { <$lanes as $crate::lanes::Lanes>::COLS_Q },
                    >),
            }),
            rows: None,
            pairs: None,
        }
    };
    ($lanes:ty, $features:literal, $name:ident, groups $group:literal, grid) => {
        kernels!($lanes, $features, $name, groups $group, own)
    };
    // One without: the loop that they share, which the table has once for each group length.
    ($lanes:ty, $features:literal, $name:ident, groups $group:literal, decoded) => {
        $crate::TypeKernels {
            dots_f32: |w, x, out| (TABLE.shared[$group / 16 - 1].dots_f32)(DType::$name, w, x, out),
            dots_q8: |w, x, out| (TABLE.shared[$group / 16 - 1].dots_q8)(DType::$name, w, x, out),
            tile: Some($crate::TileKernels {
                lanes: <$lanes as $crate::lanes::Lanes>::LANES,
                columns: <$lanes as $crate::lanes::Lanes>::LANES * <$lanes as $crate::lanes::Lanes>::COLS_Q,
                rows: <$lanes as $crate::lanes::Lanes>::ROWS_Q,
                block: usize::MAX,
                layout: decoded::layout::<$lanes, $group>(),
                unpack: |w, row_bytes, _block, tile| (TABLE.shared[$group / 16 - 1].unpack)(DType::$name, w, row_bytes, tile),
                multiply: |tile, x, panel, ahead, out| (TABLE.shared[$group / 16 - 1].multiply)(tile, x, panel, ahead, out),
            }),
            rows: None,
            pairs: None,
        }
    };
}
pub(crate) use kernels;

/// The kernels of types without a loop of their own, in groups of `$group`.
macro_rules! shared {
    ($lanes:ty, $features:literal, $group:literal) => {
        $crate::SharedKernels {
            dots_f32: entry!($features, (t: DType, w: &[u8], x: &[&[f32]], out: &mut [f32]),
                decoded::dots_f32::<$lanes>),
            dots_q8: entry!($features, (t: DType, w: &[u8], x: &[Q8Row<'_>], out: &mut [f32]),
                decoded::dots_q8::<$lanes, $group>),
            unpack: entry!($features, (t: DType, w: &[u8], row_bytes: usize, tile: &mut tile::Weights),
                decoded::unpack::<$lanes, $group>),
            multiply: entry!($features, (w: &tile::Weights, x: &panels::Panels, panel: usize, ahead: &[u8], out: &mut [f32]),
                decoded::multiply::<
                    $lanes,
                    $group,
                    { <$lanes as $crate::lanes::Lanes>::ROWS_Q },
                    { <$lanes as $crate::lanes::Lanes>::COLS_Q },
                >),
        }
    };
}
pub(crate) use shared;

/// The F32 keys of a page as a tile, whose columns are the page's positions.
macro_rules! keys {
    ($lanes:ty, $features:literal) => {
        $crate::TileKernels {
            lanes: L,
            columns: PAGE,
            rows: 8 * L / PAGE,
            block: dots::PLAIN_BLOCK,
            layout: (1, 0),
            unpack: entry!($features, (w: &[u8], row_bytes: usize, block: usize, tile: &mut tile::Weights),
                tile::unpack_plain::<$lanes, dots::F32, { PAGE / L }, 1>),
            multiply: entry!($features, (w: &tile::Weights, x: &panels::Panels, panel: usize, ahead: &[u8], out: &mut [f32]),
                tile::multiply_plain::<$lanes, dots::Floats, { 8 * L / PAGE }, { PAGE / L }, 1>),
        }
    };
}
pub(crate) use keys;

/// The kernels of every type, in the order of the table.
macro_rules! types {
    (($lanes:ty, $features:literal) $($(#[$doc:meta])* $name:ident = $id:literal, $block:ty, $feature:literal {
        block: $len:literal x $bytes:literal, decode: $kind:ident $($group:literal)?, encode: $encode:ident,
        simd: $simd:ident, planes: $planes:expr, q8: $q8:literal
    })*) => {
        [$(kernels!($lanes, $features, $name, $kind $($group)?, $simd)),*]
    };
}
pub(crate) use types;

/// The same, where types of a grid use other lanes and the rest those of `TABLE`.
#[cfg(target_arch = "x86_64")]
macro_rules! types_of_grids {
    (($lanes:ty, $features:literal) $($(#[$doc:meta])* $name:ident = $id:literal, $block:ty, $feature:literal {
        block: $len:literal x $bytes:literal, decode: $kind:ident $($group:literal)?, encode: $encode:ident,
        simd: $simd:ident, planes: $planes:expr, q8: $q8:literal
    })*) => {
        [$(types_of_grids!($lanes, $features, $name, $kind $($group)?, $simd)),*]
    };
    ($lanes:ty, $features:literal, $name:ident, groups $group:literal, grid) => {
        kernels!($lanes, $features, $name, groups $group, grid)
    };
    ($lanes:ty, $features:literal, $name:ident, $($other:tt)*) => {
        TABLE.types[$crate::index(DType::$name)]
    };
}
#[cfg(target_arch = "x86_64")]
pub(crate) use types_of_grids;

/// The same as if no block type had a loop of its own, for the exam.
macro_rules! types_decoded {
    (($lanes:ty, $features:literal) $($(#[$doc:meta])* $name:ident = $id:literal, $block:ty, $feature:literal {
        block: $len:literal x $bytes:literal, decode: $kind:ident $($group:literal)?, $($row:tt)*
    })*) => {
        [$(types_decoded!(kernels $lanes, $features, $name, $kind $($group)?)),*]
    };
    (kernels $lanes:ty, $features:literal, $name:ident, plain) => {
        kernels!($lanes, $features, $name, plain, own)
    };
    (kernels $lanes:ty, $features:literal, $name:ident, scaled) => {
        kernels!($lanes, $features, $name, plain, own)
    };
    (kernels $lanes:ty, $features:literal, $name:ident, groups $group:literal) => {
        kernels!($lanes, $features, $name, groups $group, decoded)
    };
}
pub(crate) use types_decoded;

/// `table!(Type, "name", "features")` defines the static `TABLE`.
macro_rules! table {
    ($lanes:ty, $name:literal, $features:literal) => {
        use $crate::q8::{Q8Row, Q8RowMut};
        use $crate::table::{entry, kernels, keys, plain_tile, shared, types, types_decoded};
        use $crate::{PAGE, Table, attend, decoded, dot_rows, dots, floats, formats, panels, scalar, tile};
        use $crate::quant::DType;
        use $crate::quant::block_types;

        /// As `TABLE`, with the shared loop for every block type.
        pub(crate) static DECODED: Table = Table {
            name: concat!($name, " by the shared loop"),
            types: block_types!(types_decoded, ($lanes, $features)),
            ..TABLE
        };

        const L: usize = <$lanes as $crate::lanes::Lanes>::LANES;

        /// The table of this instruction set. Only `available` may hand it out.
        pub(crate) static TABLE: Table = Table {
            name: $name,
            types: block_types!(types, ($lanes, $features)),
            shared: &[shared!($lanes, $features, 16), shared!($lanes, $features, 32)],
            peak_floats: entry!($features, (times: usize, x: f32) -> (u64, f32), floats::peak_floats::<$lanes>),
            peak_bytes: entry!($features, (times: usize, x: i8) -> (u64, f32), floats::peak_bytes::<$lanes>),
            quantise: entry!($features, (x: &[f32], out: Q8RowMut<'_>), floats::quantise::<$lanes>),
            dot: entry!($features, (x: &[f32], y: &[f32]) -> f32, floats::dot::<$lanes>),
            sum: entry!($features, (x: &[f32]) -> f32, floats::sum::<$lanes>),
            sum_squares: entry!($features, (x: &[f32]) -> f32, floats::sum_squares::<$lanes>),
            max: entry!($features, (x: &[f32]) -> f32, floats::max::<$lanes>),
            scale_mul: entry!($features, (x: &[f32], s: f32, w: &[f32], out: &mut [f32]), floats::scale_mul::<$lanes>),
            exp_sum: entry!($features, (x: &mut [f32], max: f32) -> f32, floats::exp_sum::<$lanes>),
            axpy: entry!($features, (y: &mut [f32], a: f32, x: &[f32]), floats::axpy::<$lanes>),
            add: entry!($features, (y: &mut [f32], x: &[f32]), floats::add::<$lanes>),
            scale: entry!($features, (y: &mut [f32], a: f32), floats::scale::<$lanes>),
            to_f16: entry!($features, (x: &[f32], out: &mut [u8]), floats::to_f16::<$lanes>),
            from_f16: entry!($features, (x: &[u8], out: &mut [f32]), floats::from_f16::<$lanes>),
            silu_mul: entry!($features, (gate: &[f32], up: &[f32], out: &mut [f32]), floats::silu_mul::<$lanes>),
            gelu_mul: entry!($features, (gate: &[f32], up: &[f32], out: &mut [f32]), floats::gelu_mul::<$lanes>),
            silu: entry!($features, (x: &mut [f32]), floats::silu::<$lanes>),
            gelu: entry!($features, (x: &mut [f32]), floats::gelu::<$lanes>),
            gelu_erf: entry!($features, (x: &mut [f32]), floats::gelu_erf::<$lanes>),
            attend_scores: entry!($features,
                (dtype: DType, q: &[f32], page: &[u8], head_dim: usize, positions: usize, out: &mut [f32]),
                attend::scores::<$lanes>),
            attend_tile: Some(keys!($lanes, $features)),
            attend_values: entry!($features,
                (dtype: DType, weights: &[f32], page: &[u8], head_dim: usize, positions: usize, acc: &mut [f32]),
                attend::values::<$lanes>),
        };
    };
}
pub(crate) use table;
