// What all block types share: 32 small integers, and for each half of them a scale and an offset.
#import vecs

// w = scale * q + offset; `lo` holds the first 16 integers as signed bytes in order, `hi` the others.
struct Unit {
    lo: vec4<u32>,
    hi: vec4<u32>,
    scale: vec2<f32>,
    offset: vec2<f32>,
}

fn word(plane: u32, i: u32) -> u32 {
    return w[plane + (i >> 2u)][i & 3u];
}

// Two bytes; the upper half of the result is undefined where i is even.
fn pair(plane: u32, i: u32) -> u32 {
    return word(plane, i >> 1u) >> ((i & 1u) * 16u);
}

fn half_at(plane: u32, i: u32) -> f32 {
    return unpack2x16float(pair(plane, i)).x;
}

const NIBBLES: vec4<u32> = vec4(0x0f0f0f0fu);

// The four words of 2-bit integers in a word of an n2 plane.
fn twos(word: u32) -> vec4<u32> {
    return (vec4(word) >> vec4(0u, 2u, 4u, 6u)) & vec4(0x03030303u);
}

// Bits 0 to 15 as 16 bytes of 0 or 1. The factor copies bit k of four to bit 8 k.
fn ones(bits: u32) -> vec4<u32> {
    return (((vec4(bits) >> vec4(0u, 4u, 8u, 12u)) & vec4(15u)) * 0x00204081u) & vec4(0x01010101u);
}

// Four signed bytes as floats. Put into the last bits of 2^23, which is exact: many GPUs convert integers slowly.
fn ints(word: u32) -> vec4<f32> {
    let bytes = (vec4(word ^ 0x80808080u) >> vec4(0u, 8u, 16u, 24u)) & vec4(0xffu);
    return bitcast<vec4<f32>>(bytes | vec4(0x4b000000u)) - 8388736.0;
}

fn unit_vecs(u: Unit) -> Vecs {
    let s = u.scale;
    let o = u.offset;
    return Vecs(
        ints(u.lo.x) * s.x + o.x, ints(u.lo.y) * s.x + o.x, ints(u.lo.z) * s.x + o.x, ints(u.lo.w) * s.x + o.x,
        ints(u.hi.x) * s.y + o.y, ints(u.hi.y) * s.y + o.y, ints(u.hi.z) * s.y + o.y, ints(u.hi.w) * s.y + o.y,
    );
}

// A unit whose integers are floats already, for several rows of x.
struct Floats {
    v: Vecs,
    scale: vec2<f32>,
    offset: vec2<f32>,
}

fn unit_floats(u: Unit) -> Floats {
    let v = Vecs(
        ints(u.lo.x), ints(u.lo.y), ints(u.lo.z), ints(u.lo.w), ints(u.hi.x), ints(u.hi.y), ints(u.hi.z), ints(u.hi.w),
    );
    return Floats(v, u.scale, u.offset);
}

// Scales and offsets are applied once per half; `sums` are those of the halves of x.
fn floats_dot(u: Floats, x: Vecs, sums: vec2<f32>) -> f32 {
    let a = dot(u.v.v0, x.v0) + dot(u.v.v1, x.v1) + dot(u.v.v2, x.v2) + dot(u.v.v3, x.v3);
    let b = dot(u.v.v4, x.v4) + dot(u.v.v5, x.v5) + dot(u.v.v6, x.v6) + dot(u.v.v7, x.v7);
    return dot(u.scale, vec2(a, b)) + dot(u.offset, sums);
}

fn unit_dot(u: Unit, x: Vecs, sums: vec2<f32>) -> f32 {
    return floats_dot(unit_floats(u), x, sums);
}

#ifdef DOT4
// The same with x as 32 signed bytes; `s` holds their scale and the two scaled sums.
fn unit_dot_bytes(u: Unit, lo: vec4<u32>, hi: vec4<u32>, s: vec4<f32>) -> f32 {
    let a = dot4I8Packed(u.lo.x, lo.x) + dot4I8Packed(u.lo.y, lo.y)
        + dot4I8Packed(u.lo.z, lo.z) + dot4I8Packed(u.lo.w, lo.w);
    let b = dot4I8Packed(u.hi.x, hi.x) + dot4I8Packed(u.hi.y, hi.y)
        + dot4I8Packed(u.hi.z, hi.z) + dot4I8Packed(u.hi.w, hi.w);
    return s.x * dot(u.scale, vec2(f32(a), f32(b))) + dot(u.offset, s.yz);
}
#endif
