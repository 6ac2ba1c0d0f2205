// NVFP4: plane 0 n4; plane 1 an E4M3 byte per half. w = scale steps[q].
#import unit_quant
#import nibble_steps

const STEPS: vec4<u32> = vec4(0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu);

// Half of an E4M3, the sign passed over, 0x7f (a NaN) as 0.
fn e4m3(byte: u32) -> f32 {
    let exponent = (byte >> 3u) & 15u;
    let normal = bitcast<f32>(((exponent + 119u) << 23u) | ((byte & 7u) << 20u));
    return select(select(normal, f32(byte & 7u) / 1024.0, exponent == 0u), 0.0, byte == 0x7fu);
}

fn load_unit(i: u32) -> Unit {
    let d = pair(p.plane1, i);
    return step_unit(w[i], vec2(e4m3(d & 255u), e4m3((d >> 8u) & 255u)));
}
