// Floats of 8 bits with 4 of exponent and 3 of mantissa.
#import unit_plain

// Four of them. A number below the normal ones is one with the least exponent, less that one's 1: no GPU need know small floats.
fn e4m3(word: u32) -> vec4<f32> {
    let bytes = vec4(word, word >> 8u, word >> 16u, word >> 24u);
    let size = bytes & vec4(0x7fu);
    let below = size < vec4(8u);
    let normal = ((size | select(vec4(0u), vec4(8u), below)) << vec4(20u)) + vec4(0x3c000000u);
    let value = bitcast<vec4<f32>>(normal) - select(vec4(0.0), vec4(0.015625), below);
    let nan = select(vec4(0u), vec4(0x7fc00000u), size == vec4(0x7fu));
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(value) | ((bytes & vec4(0x80u)) << vec4(24u)) | nan);
}
