//! [`Floats`]: a matrix in FP8 (4 bits of exponent, 3 of mantissa) with one scale, one for each row, or one for each block of
//! rows and columns.

use std::ops::Range;

use super::quantised::{Numbers, Settings, shape_of, wrong};
use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::error::Result;
use crate::file::safetensors::Stored;
use crate::quant::{FLOATS_OF_8, VALUES_OF_8, put_scaled};

/// A matrix of floats of 8 bits.
#[derive(Debug)]
pub(super) struct Floats {
    pub(super) rows: usize,
    pub(super) cols: usize,
    bytes: Bytes,
    scales: Numbers,
    shares: Shares,
}

/// What shares a scale.
#[derive(Debug, Clone, Copy)]
enum Shares {
    /// The whole matrix.
    All,
    /// A row.
    Row,
    /// So many rows and columns, `across` blocks beside each other.
    Block { rows: usize, cols: usize, across: usize },
}

impl Floats {
    pub(super) fn new<'a>(
        base: &str,
        tensor: &Stored,
        beside: &impl Fn(&str) -> Option<&'a Stored>,
        settings: &Settings,
    ) -> Result<Floats> {
        let [rows, cols] = shape_of(base, tensor)?;
        let scale = beside("weight_scale_inv").or_else(|| beside("weight_scale"));
        let scales = Numbers::new(base, scale)?;
        let shape = scale.map_or(&[][..], Stored::shape);
        let [high, wide] = settings.block.map(|n| n.max(1));
        let (down, across) = (rows.div_ceil(high) as u64, cols.div_ceil(wide) as u64);
        let shares = match *shape {
            _ if scales.len() == 1 => Shares::All,
            [n] | [n, 1] if n == rows as u64 => Shares::Row,
            [a, b] if (a, b) == (down, across) => Shares::Block { rows: high, cols: wide, across: b as usize },
            [a, b] if a == rows as u64 && (cols as u64).is_multiple_of(b) => {
                Shares::Block { rows: 1, cols: cols / b as usize, across: b as usize }
            }
            _ => {
                return Err(wrong(
                    base,
                    &format!("has scales of the shape {shape:?}, which fit neither rows nor blocks"),
                ));
            }
        };
        Ok(Floats { rows, cols, bytes: tensor.bytes.clone(), scales, shares })
    }

    /// The type that keeps the bytes: where they are if the scales are those of rows, else with the scales between them if
    /// these are those of whole blocks of the type.
    pub(super) fn kept(&self) -> Option<DType> {
        let [alone, scaled] = FLOATS_OF_8;
        match self.shares {
            Shares::All | Shares::Row => Some(alone),
            Shares::Block { cols, .. } => {
                let whole = |n: usize| n.is_multiple_of(scaled.block_len());
                (whole(cols) && whole(self.cols)).then_some(scaled)
            }
        }
    }

    /// All bytes, where they are.
    pub(super) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Appends rows with their scales between the bytes: of matrices whose scales are those of whole blocks.
    pub(super) fn write_scaled(&self, rows: Range<usize>, out: &mut Vec<u8>) {
        for row in rows {
            self.blocks(row, |scale, _, bytes| put_scaled(scale, bytes, out));
        }
    }

    /// Runs of a row with one scale: the scale, the first column, the bytes.
    fn blocks(&self, row: usize, mut each: impl FnMut(f32, usize, &[u8])) {
        let bytes = self.bytes.get(row * self.cols..(row + 1) * self.cols).unwrap_or_default();
        match self.shares {
            Shares::All => each(self.scales.get(0), 0, bytes),
            Shares::Row => each(self.scales.get(row), 0, bytes),
            Shares::Block { rows, cols, across } => {
                for (i, bytes) in bytes.chunks(cols).enumerate() {
                    each(self.scales.get(row / rows * across + i), i * cols, bytes);
                }
            }
        }
    }

    /// The factor of each row, if the rows lack it.
    pub(super) fn factors(&self) -> Option<Vec<f32>> {
        match self.shares {
            Shares::All => Some(vec![self.scales.get(0); self.rows]),
            Shares::Row => Some((0..self.rows).map(|row| self.scales.get(row)).collect()),
            Shares::Block { .. } => None,
        }
    }

    /// Values of a row; `whole` says if its factor is in them.
    pub(super) fn values(&self, row: usize, whole: bool, out: &mut [f32]) {
        let beside = !whole && !matches!(self.shares, Shares::Block { .. });
        self.blocks(row, |scale, first, bytes| {
            let scale = if beside { 1.0 } else { scale };
            for (out, byte) in out[first..].iter_mut().zip(bytes) {
                *out = scale * VALUES_OF_8[usize::from(*byte)];
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::quantised::{Beside, Joined, Matrix, joined};
    use super::*;
    use crate::file::safetensors::Element;
    use crate::quant;

    const BOTH: Beside = Beside { factors: true, columns: true };

    /// A matrix of ones, of 4 rows and 6 columns, with scales of this shape.
    fn ones(shape: &[u64], scales: &[f32], block: [usize; 2]) -> Result<Matrix> {
        let tensor = Stored::made("m.weight", Element::F8_E4M3, &[4, 6], Bytes::from(vec![0x38; 24]))?;
        let bytes = scales.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>();
        let scale = Stored::made("m.weight_scale", Element::F32, shape, Bytes::from(bytes))?;
        let settings = Settings { block, ..Settings::default() };
        Matrix::read(&tensor, |name| (name == scale.name).then_some(&scale), &settings)
    }

    fn values(matrix: Matrix, factors: bool) -> (Vec<f32>, Option<Vec<f32>>) {
        let joined = joined("m", vec![matrix], Beside { factors, columns: false }).unwrap();
        let mut out = vec![0.0; 24];
        quant::decode(joined.dtype, &joined.source.bytes().unwrap(), &mut out).unwrap();
        (out, joined.factors)
    }

    #[test]
    fn scales_are_of_the_matrix_its_rows_or_its_blocks() {
        let all = || ones(&[], &[0.5], [128, 128]).unwrap();
        assert_eq!(values(all(), true), (vec![1.0; 24], Some(vec![0.5; 4])));
        assert_eq!(values(all(), false), (vec![0.5; 24], None));
        let each = [1.0, 2.0, 3.0, 4.0];
        let (plain, factors) = values(ones(&[4, 1], &each, [128, 128]).unwrap(), true);
        assert_eq!((plain, factors), (vec![1.0; 24], Some(each.to_vec())));
        let (blocks, factors) = values(ones(&[2, 2], &each, [2, 4]).unwrap(), true);
        assert_eq!(
            (&blocks[..6], &blocks[18..], factors),
            (&[1., 1., 1., 1., 2., 2.][..], &[3., 3., 3., 3., 4., 4.][..], None)
        );
        let (groups, _) = values(ones(&[4, 2], &[[1.0, 2.0]; 4].concat(), [128, 128]).unwrap(), true);
        assert_eq!(groups[6..12], [1., 1., 1., 2., 2., 2.]);
    }

    /// A matrix of so many columns, whose bytes count on, with a scale for each block.
    fn counted(cols: u64, block: [usize; 2]) -> Joined {
        let bytes: Vec<u8> = (0..2 * cols).map(|i| (i % 120) as u8).collect();
        let tensor = Stored::made("m.weight", Element::F8_E4M3, &[2, cols], Bytes::from(bytes)).unwrap();
        let across = cols.div_ceil(block[1] as u64);
        let scales = (0..across).flat_map(|i| (0.5 + i as f32).to_le_bytes()).collect::<Vec<u8>>();
        let scale = Stored::made("m.weight_scale_inv", Element::F32, &[1, across], Bytes::from(scales)).unwrap();
        let settings = Settings { block, ..Settings::default() };
        let matrix = Matrix::read(&tensor, |name| (name == scale.name).then_some(&scale), &settings).unwrap();
        joined("m", vec![matrix], BOTH).unwrap()
    }

    #[test]
    fn bytes_stay_as_they_are_if_scales_are_those_of_rows_or_of_whole_blocks() {
        let [alone, scaled] = FLOATS_OF_8;
        for shape in [&[][..], &[4, 1]] {
            let joined = joined(
                "m",
                vec![ones(shape, &[2.0; 4][..shape.iter().product::<u64>() as usize], [128, 128]).unwrap()],
                BOTH,
            )
            .unwrap();
            assert_eq!((joined.dtype, &joined.source.bytes().unwrap()[..]), (alone, &[0x38; 24][..]));
        }
        // Two blocks of the type have the second scale.
        let made = counted(512, [2, 256]);
        assert_eq!((made.dtype, made.factors), (scaled, None));
        let bytes = made.source.bytes().unwrap();
        assert_eq!(bytes.len(), 8 * 132);
        for (i, block) in bytes.chunks(132).enumerate() {
            let scale = if i % 4 < 2 { 0.5f32 } else { 1.5 };
            assert_eq!(block[..4], scale.to_le_bytes(), "block {i}");
            assert!(block[4..].iter().zip(128 * i..).all(|(byte, at)| usize::from(*byte) == at % 120), "block {i}");
        }
        for (cols, block) in [(512, 64), (500, 128)] {
            assert_eq!(counted(cols, [2, block]).dtype, DType::F16, "{cols} in {block}");
        }
    }

    #[test]
    fn a_matrix_without_elements_is_refused() {
        for shape in [[200, 0], [0, 6]] {
            let tensor = Stored::made("m.weight", Element::F8_E4M3, &shape, Bytes::from(Vec::new())).unwrap();
            let scale = Stored::made("m.weight_scale", Element::F32, &shape, Bytes::from(Vec::new())).unwrap();
            let read = Matrix::read(&tensor, |name| (name == scale.name).then_some(&scale), &Settings::default());
            assert!(read.unwrap_err().to_string().contains("none of its elements"), "{shape:?}");
        }
    }

    #[test]
    fn scales_that_fit_nothing_are_refused() {
        let says = |shape: &[u64], scales: &[f32]| ones(shape, scales, [128, 128]).unwrap_err().to_string();
        assert!(says(&[3], &[1.0; 3]).contains("fit neither rows nor blocks"));
        assert!(says(&[2, 2], &[1.0; 4]).contains("fit neither"));
        assert!(says(&[4], &[1.0, 1.0, f32::INFINITY, 1.0]).contains("no finite number"));
    }
}
