// F16 weights (the feature is f16: F16 is the one of the arithmetic).
#import unit_half

fn halves(v: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
}
