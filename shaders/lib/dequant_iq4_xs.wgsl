// IQ4_XS: plane 0 n4; plane 1 one signed scale byte per unit; plane 3 f16 d per 8 units. w = d scale steps[q].
#import unit_quant
#import nibble_steps

const STEPS: vec4<u32> = vec4(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);

fn load_unit(i: u32) -> Unit {
    let scale = f32(unpack4xI8(byte_at(p.plane1, i)).x);
    return step_unit(w[i], vec2(half_at(p.plane3, i >> 3u) * scale));
}
