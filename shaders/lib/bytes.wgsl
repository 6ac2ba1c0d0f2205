// A unit of activations as 32 signed bytes.
#import vecs

struct Bytes {
    lo: vec4<u32>,
    hi: vec4<u32>,
    s: vec4<f32>, // scale, scaled sums of both halves, and what is put behind them
}

fn top(v: vec4<f32>) -> f32 {
    let a = abs(v);
    return max(max(a.x, a.y), max(a.z, a.w));
}

fn pack(v: vec4<f32>) -> u32 {
    return pack4xI8(vec4<i32>(round(v)));
}

fn bytes_of(v: Vecs, behind: f32) -> Bytes {
    let peak = max(max(max(top(v.v0), top(v.v1)), max(top(v.v2), top(v.v3))),
        max(max(top(v.v4), top(v.v5)), max(top(v.v6), top(v.v7))));
    let scale = peak / 127.0;
    let inverse = select(0.0, 127.0 / peak, peak > 0.0);
    let lo = vec4(pack(v.v0 * inverse), pack(v.v1 * inverse), pack(v.v2 * inverse), pack(v.v3 * inverse));
    let hi = vec4(pack(v.v4 * inverse), pack(v.v5 * inverse), pack(v.v6 * inverse), pack(v.v7 * inverse));
    let one = vec4(1);
    let a = unpack4xI8(lo.x) + unpack4xI8(lo.y) + unpack4xI8(lo.z) + unpack4xI8(lo.w);
    let b = unpack4xI8(hi.x) + unpack4xI8(hi.y) + unpack4xI8(hi.z) + unpack4xI8(hi.w);
    return Bytes(lo, hi, vec4(scale, scale * f32(dot(a, one)), scale * f32(dot(b, one)), behind));
}
