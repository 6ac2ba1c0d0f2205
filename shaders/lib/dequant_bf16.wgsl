// BF16: the upper half of an f32.
#import unit_half

fn halves(v: vec2<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4(v.x << 16u, v.x & 0xffff0000u, v.y << 16u, v.y & 0xffff0000u));
}
