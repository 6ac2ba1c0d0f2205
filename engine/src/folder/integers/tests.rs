//! Integers in every way of packing, and what does not fit together.

use super::super::quantised::{Beside, Joined, Matrix, joined};
use super::*;
use crate::quant;

const ROWS: usize = 8;
const COLS: usize = 64;
/// Groups of 32 columns.
const N: usize = 2;

fn integer(row: usize, col: usize) -> i32 {
    ((7 * row + 3 * col) % 16) as i32
}

fn zero(row: usize, group: usize) -> i32 {
    (1 + (row + 5 * group) % 15) as i32
}

/// A number that an f16 holds.
fn scale(row: usize, group: usize) -> f32 {
    (1 + row + 10 * group) as f32 / 64.0
}

/// Words of `high` rows of `wide` columns; `at` gives the integer in each of eight slots.
fn words(name: &str, [high, wide]: [usize; 2], at: impl Fn(usize, usize, usize) -> i32) -> Stored {
    let word = |row, col| (0..8).fold(0u32, |w, slot| w | (at(row, col, slot) as u32 & 15) << (4 * slot));
    let all = (0..high).flat_map(|row| (0..wide).map(move |col| (row, col)));
    let bytes: Vec<u8> = all.flat_map(|(row, col)| word(row, col).to_le_bytes()).collect();
    Stored::made(name, Element::I32, &[high as u64, wide as u64], Bytes::from(bytes)).unwrap()
}

fn floats(name: &str, [high, wide]: [usize; 2], at: impl Fn(usize, usize) -> f32) -> Stored {
    let at = &at;
    let all = (0..high).flat_map(|row| (0..wide).map(move |col| at(row, col)));
    let bytes: Vec<u8> = all.flat_map(f32::to_le_bytes).collect();
    Stored::made(name, Element::F32, &[high as u64, wide as u64], Bytes::from(bytes)).unwrap()
}

fn numbers(name: &str, element: Element, shape: &[u64], bytes: Vec<u8>) -> Stored {
    Stored::made(name, element, shape, Bytes::from(bytes)).unwrap()
}

fn gptq() -> Vec<Stored> {
    vec![
        words("m.qweight", [COLS / 8, ROWS], |row, col, slot| integer(col, 8 * row + slot)),
        words("m.qzeros", [N, ROWS / 8], |row, col, slot| zero(8 * col + slot, row) - 1),
        floats("m.scales", [N, ROWS], |row, col| scale(col, row)),
    ]
}

fn compressed() -> Vec<Stored> {
    let shape = [ROWS as i64, COLS as i64].iter().flat_map(|n| n.to_le_bytes()).collect();
    vec![
        words("m.weight_packed", [ROWS, COLS / 8], |row, col, slot| integer(row, 8 * col + slot)),
        words("m.weight_zero_point", [ROWS / 8, N], |row, col, slot| zero(8 * row + slot, col)),
        floats("m.weight_scale", [ROWS, N], scale),
        numbers("m.weight_shape", Element::I64, &[2], shape),
    ]
}

fn read(tensors: &[Stored], settings: &Settings) -> Result<Joined> {
    let find = |name: &str| tensors.iter().find(|t| t.name == name);
    joined("m", vec![Matrix::read(&tensors[0], find, settings)?], Beside { factors: true, columns: true })
}

fn decoded(joined: &Joined) -> Vec<f32> {
    let mut out = vec![0.0; ROWS * COLS];
    quant::decode(joined.dtype, &joined.source.bytes().unwrap(), &mut out).unwrap();
    out
}

/// What a matrix is whose columns have these groups.
fn expected(group: impl Fn(usize) -> usize) -> Vec<f32> {
    let value = |row, col| scale(row, group(col)) * (integer(row, col) - zero(row, group(col))) as f32;
    (0..ROWS).flat_map(|row| (0..COLS).map(move |col| (row, col))).map(|(row, col)| value(row, col)).collect()
}

#[test]
fn every_way_of_packing_is_read() {
    let settings = Settings { zero_offset: 1, bits: Some(4), ..Settings::default() };
    let read_gptq = read(&gptq(), &settings).unwrap();
    assert_eq!((read_gptq.dtype.name(), &read_gptq.dims[..]), ("Q5_0", &[64, 8][..]));
    assert_eq!(decoded(&read_gptq), expected(|col| col / 32));
    let slot_of = |slot| AWQ.iter().position(|s| *s == slot).unwrap();
    let awq = [
        words("m.qweight", [COLS, ROWS / 8], |row, col, slot| integer(8 * col + slot_of(slot), row)),
        words("m.qzeros", [N, ROWS / 8], |row, col, slot| zero(8 * col + slot_of(slot), row)),
        floats("m.scales", [N, ROWS], |row, col| scale(col, row)),
    ];
    let settings = Settings { awq: true, bits: Some(4), ..Settings::default() };
    assert_eq!(decoded(&read(&awq, &settings).unwrap()), expected(|col| col / 32));
    let settings = Settings { bits: Some(4), ..Settings::default() };
    assert_eq!(decoded(&read(&compressed(), &settings).unwrap()), expected(|col| col / 32));
}

/// A matrix whose columns are of these groups.
fn ordered(of: fn(usize) -> usize, columns: bool) -> Joined {
    let indices = (0..COLS).flat_map(|col| (of(col) as i32).to_le_bytes()).collect();
    let mut tensors = gptq();
    tensors.push(numbers("m.g_idx", Element::I32, &[COLS as u64], indices));
    let settings = Settings { zero_offset: 1, bits: Some(4), ..Settings::default() };
    let find = |name: &str| tensors.iter().find(|t| t.name == name);
    let matrix = Matrix::read(&tensors[0], find, &settings).unwrap();
    assert_eq!(matrix.columns().is_some(), of(1) == 1);
    joined("m", vec![matrix], Beside { factors: true, columns }).unwrap()
}

#[test]
fn columns_of_whole_blocks_lie_beside_their_group() {
    let of = |col: usize| col % N;
    let blocks = ordered(of, true);
    let columns: Vec<usize> = (0..COLS).map(|place| place % 32 * N + place / 32).collect();
    let own = expected(of);
    let sorted = (0..ROWS * COLS).map(|i| own[i / COLS * COLS + columns[i % COLS]]).collect::<Vec<f32>>();
    assert_eq!((blocks.dtype.name(), decoded(&blocks)), ("Q5_0", sorted));
    // Where nothing says so beside the matrix, they are in their own order.
    let plain = ordered(of, false);
    assert_eq!((plain.dtype, decoded(&plain)), (DType::F16, own));
}

#[test]
fn columns_of_a_group_that_is_no_whole_blocks_are_f16() {
    let of = |col: usize| usize::from(col >= 20);
    let plain = ordered(of, true);
    assert_eq!((plain.dtype, decoded(&plain)), (DType::F16, expected(of)));
}

#[test]
fn integers_of_8_bits_have_scales_of_rows() {
    let bytes = (0..ROWS * COLS).map(|i| (i * 37 % 256) as u8).collect::<Vec<u8>>();
    let weight = numbers("m.weight", Element::I8, &[ROWS as u64, COLS as u64], bytes.clone());
    // No f16 holds a third.
    let scales = floats("m.weight_scale", [ROWS, 1], |row, _| (1 + row) as f32 / 3.0);
    let read = read(&[weight, scales], &Settings::default()).unwrap();
    assert_eq!(read.dtype.name(), "Q8_0");
    assert_eq!(decoded(&read), bytes.iter().map(|b| f32::from(*b as i8)).collect::<Vec<f32>>());
    assert_eq!(read.factors, Some((0..ROWS).map(|row| (1 + row) as f32 / 3.0).collect()));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let settings = Settings { zero_offset: 1, bits: Some(4), ..Settings::default() };
    let says = |tensors: &[Stored]| read(tensors, &settings).unwrap_err().to_string();
    let without = |mut all: Vec<Stored>, i: usize| {
        all.remove(i);
        says(&all)
    };
    let with = |mut all: Vec<Stored>, i: usize, other: Stored| {
        all[i] = other;
        says(&all)
    };
    assert!(without(gptq(), 1).contains("no zero points"));
    assert!(without(gptq(), 2).contains("no scales"));
    assert!(without(compressed(), 3).contains("no shape"));
    let few = |name: &str| floats(name, [1, 3], |_, _| 1.0);
    assert!(with(gptq(), 2, few("m.scales")).contains("fit its shape"));
    assert!(with(compressed(), 2, few("m.weight_scale")).contains("3 scales for 8 rows"));
    let huge = [i64::MAX, i64::MAX].iter().flat_map(|n| n.to_le_bytes()).collect();
    let huge = numbers("m.weight_shape", Element::I64, &[2], huge);
    assert!(with(compressed(), 3, huge).contains("not of 2, 4 or 8 bits"));
    let infinite = floats("m.scales", [N, ROWS], |_, _| f32::NAN);
    assert!(with(gptq(), 2, infinite).contains("no finite number"));
    let mut out_of_range = gptq();
    let indices = (0..COLS).flat_map(|_| 7i32.to_le_bytes()).collect();
    out_of_range.push(numbers("m.g_idx", Element::I32, &[COLS as u64], indices));
    assert!(says(&out_of_range).contains("a group that it does not have"));
    let turned = words("m.qweight", [ROWS, COLS / 8], |_, _, _| 0);
    assert!(says(&[turned]).contains("no scales"));
}
