//! What a block of each quantised type holds, as integers: groups of 16 or 32 small quants with a scale and a minimum.
//! An element is `scale * quant - min`. Scalar and plain; the instruction sets have their own faster forms, held to
//! this one. Layouts are those of ggml (ggml-common.h, ggml-quants.c).

use half::f16;

use crate::dtype::DType;

/// One block in integers.
pub(crate) struct Groups {
    /// The signed quants in the order of the elements.
    pub(crate) quants: [i8; 256],
    /// A scale for each group.
    pub(crate) scales: [f32; 16],
    /// A minimum for each group, subtracted.
    pub(crate) mins: [f32; 16],
}

impl Groups {
    pub(crate) const fn new() -> Groups {
        Groups { quants: [0; 256], scales: [0.0; 16], mins: [0.0; 16] }
    }
}

/// How the groups of a quantised type look; `None` for the plain types.
pub(crate) const fn group_len(dtype: DType) -> Option<usize> {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => None,
        DType::Q2_K | DType::Q3_K | DType::Q6_K => Some(16),
        _ => Some(32),
    }
}

pub(crate) fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Reads one block of a quantised type.
pub(crate) fn unpack(dtype: DType, b: &[u8], out: &mut Groups) {
    match dtype {
        DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 | DType::Q8_0 => simple(dtype, b, out),
        DType::Q2_K => q2_k(b, out),
        DType::Q3_K => q3_k(b, out),
        DType::Q4_K => q45_k(b, None, &b[16..], out),
        DType::Q5_K => q45_k(b, Some(&b[16..48]), &b[48..], out),
        DType::Q6_K => q6_k(b, out),
        DType::F32 | DType::F16 | DType::BF16 => unreachable!("plain types have no groups"),
    }
}

fn simple(dtype: DType, b: &[u8], out: &mut Groups) {
    out.scales[0] = half_at(b, 0);
    let with_min = matches!(dtype, DType::Q4_1 | DType::Q5_1);
    out.mins[0] = if with_min { -half_at(b, 2) } else { 0.0 };
    let b = &b[if with_min { 4 } else { 2 }..];
    if dtype == DType::Q8_0 {
        for (q, byte) in out.quants.iter_mut().zip(&b[..32]) {
            *q = *byte as i8;
        }
        return;
    }
    let five = matches!(dtype, DType::Q5_0 | DType::Q5_1);
    let (high, nibbles) = if five { (u32::from_le_bytes([b[0], b[1], b[2], b[3]]), &b[4..]) } else { (0, b) };
    let offset = match dtype {
        DType::Q4_0 => 8,
        DType::Q5_0 => 16,
        _ => 0,
    };
    for i in 0..32 {
        let nibble = nibbles[i % 16] >> (4 * (i / 16)) & 15;
        out.quants[i] = (nibble | ((high >> i & 1) as u8) << 4) as i8 - offset;
    }
}

/// The eight 6-bit scales and minima of Q4_K and Q5_K.
pub(crate) fn scales_mins_6bit(s: &[u8]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for j in 0..4 {
        scales[j] = s[j] & 63;
        mins[j] = s[j + 4] & 63;
        scales[j + 4] = s[j + 8] & 15 | s[j] >> 6 << 4;
        mins[j + 4] = s[j + 8] >> 4 | s[j + 4] >> 6 << 4;
    }
    (scales, mins)
}

fn q45_k(b: &[u8], high: Option<&[u8]>, nibbles: &[u8], out: &mut Groups) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    let (scales, mins) = scales_mins_6bit(&b[4..16]);
    for g in 0..8 {
        out.scales[g] = d * f32::from(scales[g]);
        out.mins[g] = dmin * f32::from(mins[g]);
        for l in 0..32 {
            let low = nibbles[g / 2 * 32 + l] >> (4 * (g % 2)) & 15;
            let bit = high.map_or(0, |h| h[l] >> g & 1);
            out.quants[g * 32 + l] = (low | bit << 4) as i8;
        }
    }
}

fn q2_k(b: &[u8], out: &mut Groups) {
    let (scales, qs) = (&b[..16], &b[16..80]);
    let (d, dmin) = (half_at(b, 80), half_at(b, 82));
    for g in 0..16 {
        out.scales[g] = d * f32::from(scales[g] & 15);
        out.mins[g] = dmin * f32::from(scales[g] >> 4);
    }
    for i in 0..256 {
        out.quants[i] = (qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3) as i8;
    }
}

/// The sixteen 6-bit scales of Q3_K, 0 to 63 (32 stands for zero).
pub(crate) fn scales_q3_k(s: &[u8]) -> [u8; 16] {
    std::array::from_fn(|g| s[g % 8] >> (4 * (g / 8)) & 15 | (s[8 + g % 4] >> (2 * (g / 4)) & 3) << 4)
}

fn q3_k(b: &[u8], out: &mut Groups) {
    let (high, qs, scales) = (&b[..32], &b[32..96], scales_q3_k(&b[96..108]));
    let d = half_at(b, 108);
    for g in 0..16 {
        out.scales[g] = d * (f32::from(scales[g]) - 32.0);
        out.mins[g] = 0.0;
    }
    for i in 0..256 {
        let low = qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        let bit = high[i % 32] >> (i / 32) & 1;
        out.quants[i] = (low | bit << 2) as i8 - 4;
    }
}

fn q6_k(b: &[u8], out: &mut Groups) {
    let (ql, qh, scales) = (&b[..128], &b[128..192], &b[192..208]);
    let d = half_at(b, 208);
    for g in 0..16 {
        out.scales[g] = d * f32::from(scales[g] as i8);
        out.mins[g] = 0.0;
    }
    for i in 0..256 {
        let (half, l) = (i / 128, i % 128);
        let low = ql[half * 64 + l % 64] >> (4 * (l / 64)) & 15;
        let high = qh[half * 32 + l % 32] >> (2 * (l / 32)) & 3;
        out.quants[i] = (low | high << 4) as i8 - 32;
    }
}
