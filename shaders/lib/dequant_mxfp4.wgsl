// MXFP4: plane 0 n4; plane 1 one exponent byte per unit. w = 2^(e - 128) steps[q]; the two smallest powers, which are
// subnormal, may be 0.
#import unit_quant
#import nibble_steps

const STEPS: vec4<u32> = vec4(0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu);

fn load_unit(i: u32) -> Unit {
    let e = byte_at(p.plane1, i);
    let bits = select((e - 1u) << 23u, 0x00200000u << e, e < 2u);
    return step_unit(w[i], vec2(bitcast<f32>(bits)));
}
