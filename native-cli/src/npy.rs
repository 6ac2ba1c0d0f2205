//! Writes float32 matrices in NumPy's format, version 1, row by row:
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::fs::File;
use std::io::{BufWriter, Result, Write};
use std::path::Path;

/// A file that rows are written to.
pub(crate) struct NpyWriter {
    file: BufWriter<File>,
}

impl NpyWriter {
    /// Begins a file of `rows` rows of `cols` columns.
    pub(crate) fn create(path: &Path, rows: usize, cols: usize) -> Result<NpyWriter> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&header(rows, cols))?;
        Ok(NpyWriter { file })
    }

    /// Writes a row.
    pub(crate) fn row(&mut self, row: &[f32]) -> Result<()> {
        row.iter().try_for_each(|x| self.file.write_all(&x.to_le_bytes()))
    }

    /// Writes what is still held back.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.file.flush()
    }
}

/// Magic, version, length, and a Python dictionary padded so that the data begin at a multiple of 64.
fn header(rows: usize, cols: usize) -> Vec<u8> {
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {cols}), }}");
    let padding = 63 - (10 + text.len()) % 64;
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn data_begins_at_a_multiple_of_64() {
        for shape in [(1, 1), (26, 1024), (100_000, 128_256), (1 << 40, 1 << 40)] {
            let header = super::header(shape.0, shape.1);
            assert_eq!(header.len() % 64, 0, "{shape:?}");
            assert_eq!(header.last(), Some(&b'\n'));
        }
    }
}
