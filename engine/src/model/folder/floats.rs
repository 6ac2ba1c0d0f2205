//! [`Floats`]: a matrix in FP8 (4 bits of exponent, 3 of mantissa) with one scale, one for each row, or one for each block of
//! rows and columns.

use super::quantised::{Numbers, Settings, shape_of, wrong};
use crate::bytes::Bytes;
use crate::error::Result;
use crate::file::safetensors::Stored;

/// A matrix of floats of 8 bits.
#[derive(Debug)]
pub(super) struct Floats {
    pub(super) rows: usize,
    pub(super) cols: usize,
    bytes: Bytes,
    scales: Numbers,
    shares: Shares,
    /// The value of each byte.
    values: Box<[f32; 256]>,
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
        let values = Box::new(std::array::from_fn(|byte| e4m3(byte as u8)));
        Ok(Floats { rows, cols, bytes: tensor.bytes.clone(), scales, shares, values })
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
        let bytes = self.bytes.get(row * self.cols..(row + 1) * self.cols).unwrap_or_default();
        let times = |out: &mut [f32], bytes: &[u8], scale: f32| {
            for (out, byte) in out.iter_mut().zip(bytes) {
                *out = scale * self.values[usize::from(*byte)];
            }
        };
        match self.shares {
            Shares::Block { rows, cols, across } => {
                for (i, (out, bytes)) in out.chunks_mut(cols).zip(bytes.chunks(cols)).enumerate() {
                    times(out, bytes, self.scales.get(row / rows * across + i));
                }
            }
            Shares::All if whole => times(out, bytes, self.scales.get(0)),
            Shares::Row if whole => times(out, bytes, self.scales.get(row)),
            Shares::All | Shares::Row => times(out, bytes, 1.0),
        }
    }
}

/// The value of a byte.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = match exponent {
        // There are no infinities, and one NaN of each sign.
        15 if byte & 7 == 7 => f32::NAN,
        0 => mantissa * 2f32.powi(-9),
        e => (1.0 + mantissa / 8.0) * 2f32.powi(e - 7),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::super::quantised::{Matrix, joined};
    use super::*;
    use crate::file::safetensors::Element;
    use crate::quant;

    #[test]
    fn bytes_have_the_values_of_the_format() {
        let cases =
            [(0x00, 0.0), (0x01, 0.001953125), (0x08, 0.015625), (0x38, 1.0), (0x3c, 1.5), (0x7e, 448.0), (0xc0, -2.0)];
        for (byte, value) in cases {
            assert_eq!(e4m3(byte), value, "{byte:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
    }

    /// A matrix of ones, of 4 rows and 6 columns, with scales of this shape.
    fn ones(shape: &[u64], scales: &[f32], block: [usize; 2]) -> Result<Matrix> {
        let tensor = Stored::made("m.weight", Element::F8_E4M3, &[4, 6], Bytes::from(vec![0x38; 24]))?;
        let bytes = scales.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>();
        let scale = Stored::made("m.weight_scale", Element::F32, shape, Bytes::from(bytes))?;
        let settings = Settings { block, ..Settings::default() };
        Matrix::read(&tensor, |name| (name == scale.name).then_some(&scale), &settings)
    }

    fn values(matrix: Matrix, factors: bool) -> (Vec<f32>, Option<Vec<f32>>) {
        let joined = joined("m", vec![matrix], factors).unwrap();
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
