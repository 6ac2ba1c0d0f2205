// IQ4_NL: plane 0 n4; plane 1 one f16 scale per unit. w = d steps[q].
#import unit_quant
#import nibble_steps

const STEPS: vec4<u32> = vec4(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);

fn load_unit(i: u32) -> Unit {
    return step_unit(w[i], vec2(half_at(p.plane1, i)));
}
