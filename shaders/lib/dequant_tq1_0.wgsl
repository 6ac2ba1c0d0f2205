// TQ1_0: plane 3 has 14 words per 8 units: 48 bytes of five and 4 bytes of four digits to the base of 3, and f16 d.
// w = d (digit - 1).
#import unit_quant

// Digit n of each byte of four.
fn digits(bytes: u32, n: u32) -> u32 {
    let power = select(select(select(1u, 3u, n == 1u), select(9u, 27u, n == 3u), n >= 2u), 81u, n == 4u);
    // Fractions of 256, two at a time: times the power, less the whole part, times 3, and the whole part of that.
    let even = (((bytes & 0x00ff00ffu) * power) & 0x00ff00ffu) * 3u;
    let odd = ((((bytes >> 8u) & 0x00ff00ffu) * power) & 0x00ff00ffu) * 3u;
    return ((even >> 8u) & 0x00030003u) | (odd & 0x03000300u);
}

// Word k of a half: of the first 160 elements, a digit of 32 bytes; of the next 80, one of 16.
fn half_word(at: u32, u: u32, k: u32, upper: u32) -> u32 {
    let first = digits(word(p.plane3, at + 4u * upper + k), u);
    let second = digits(word(p.plane3, at + 8u + k), 2u * u + upper - 10u);
    return select(second, first, u < 5u);
}

fn load_unit(i: u32) -> Unit {
    let at = 14u * (i >> 3u);
    let u = i & 7u;
    let lo = vec4(half_word(at, u, 0u, 0u), half_word(at, u, 1u, 0u), half_word(at, u, 2u, 0u), half_word(at, u, 3u, 0u));
    let hi = vec4(half_word(at, u, 0u, 1u), half_word(at, u, 1u, 1u), half_word(at, u, 2u, 1u), half_word(at, u, 3u, 1u));
    // The last 16 elements: digits of 4 bytes.
    let bytes = word(p.plane3, at + 12u);
    let last = vec4(digits(bytes, 0u), digits(bytes, 1u), digits(bytes, 2u), digits(bytes, 3u));
    let d = unpack2x16float(word(p.plane3, at + 13u)).x;
    return Unit(lo, select(hi, last, u == 7u), vec2(d), vec2(-d));
}
