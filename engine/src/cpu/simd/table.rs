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
            // SAFETY: a table leaves `simd` only through `available`, which hands it out only where the instruction
            // set was detected.
            unsafe { inner($($a),*) }
        }
        entry
    }};
}
pub(crate) use entry;

/// The kernels of a quantised type.
macro_rules! blocks {
    ($lanes:ty, $features:literal, $format:ident) => {
        $crate::cpu::simd::TypeKernels {
            dots_f32: entry!($features, (w: &[u8], x: &[&[f32]], out: &mut [f32]),
                dots::dots_decoded::<$lanes, formats::$format>),
            dots_q8: entry!($features, (w: &[u8], x: &[Q8Row<'_>], out: &mut [f32]),
                dots::dots_q8::<$lanes, formats::$format>),
            tile: Some($crate::cpu::simd::TileKernels {
                lanes: <$lanes as $crate::cpu::simd::lanes::Lanes>::LANES,
                rows: <$lanes as $crate::cpu::simd::lanes::Lanes>::ROWS_Q,
                layout: (<formats::$format as formats::Format>::GROUP, formats::offset::<$lanes, formats::$format>()),
                unpack: entry!($features, (w: &[u8], row_bytes: usize, tile: &mut tile::Weights),
                    tile::unpack_q8::<$lanes, formats::$format>),
                multiply: entry!($features, (w: &tile::Weights, x: &panels::Panels, panel: usize, ahead: &[u8], out: &mut [f32]),
                    tile::multiply_q8::<$lanes, formats::$format, { <$lanes as $crate::cpu::simd::lanes::Lanes>::ROWS_Q }>),
            }),
        }
    };
}
pub(crate) use blocks;

/// The kernels of a plain type.
macro_rules! plain {
    ($lanes:ty, $features:literal, $format:ident) => {
        $crate::cpu::simd::TypeKernels {
            dots_f32: entry!($features, (w: &[u8], x: &[&[f32]], out: &mut [f32]),
                dots::dots_plain::<$lanes, dots::$format>),
            tile: Some($crate::cpu::simd::TileKernels {
                lanes: <$lanes as $crate::cpu::simd::lanes::Lanes>::LANES,
                rows: <$lanes as $crate::cpu::simd::lanes::Lanes>::ROWS_F,
                layout: (1, 0),
                unpack: entry!($features, (w: &[u8], row_bytes: usize, tile: &mut tile::Weights),
                    tile::unpack_plain::<$lanes, dots::$format>),
                multiply: entry!($features, (w: &tile::Weights, x: &panels::Panels, panel: usize, ahead: &[u8], out: &mut [f32]),
                    tile::multiply_f32::<$lanes, { <$lanes as $crate::cpu::simd::lanes::Lanes>::ROWS_F }>),
            }),
            ..scalar::TABLE.types[$crate::cpu::simd::index(DType::$format)]
        }
    };
}
pub(crate) use plain;

/// `table!(Type, "name", "features")` defines the static `TABLE`.
macro_rules! table {
    ($lanes:ty, $name:literal, $features:literal) => {
        use $crate::cpu::simd::q8::{Q8Row, Q8RowMut};
        use $crate::cpu::simd::table::{blocks, entry, plain};
        use $crate::cpu::simd::{Table, attend, dots, floats, formats, panels, scalar, tile};
        use $crate::dtype::DType;

        /// The table of this instruction set. Only `available` may hand it out.
        pub(crate) static TABLE: Table = Table {
            name: $name,
            types: [
                plain!($lanes, $features, F32),
                plain!($lanes, $features, F16),
                blocks!($lanes, $features, Q4_0),
                blocks!($lanes, $features, Q4_1),
                blocks!($lanes, $features, Q5_0),
                blocks!($lanes, $features, Q5_1),
                blocks!($lanes, $features, Q8_0),
                blocks!($lanes, $features, Q2_K),
                blocks!($lanes, $features, Q3_K),
                blocks!($lanes, $features, Q4_K),
                blocks!($lanes, $features, Q5_K),
                blocks!($lanes, $features, Q6_K),
                plain!($lanes, $features, BF16),
            ],
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
            attend_scores: entry!($features,
                (dtype: DType, q: &[f32], page: &[u8], head_dim: usize, positions: usize, out: &mut [f32]),
                attend::scores::<$lanes>),
            attend_values: entry!($features,
                (dtype: DType, weights: &[f32], page: &[u8], head_dim: usize, positions: usize, acc: &mut [f32]),
                attend::values::<$lanes>),
        };
    };
}
pub(crate) use table;
