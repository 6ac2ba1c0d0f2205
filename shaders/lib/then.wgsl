// What happens to a product, for every kernel of linear: `finish` takes one column of a row, counted from the dispatch's
// first, or with GLU a gate and its up. Columns beyond the last are passed over.
//
// SCALE: a factor per column of the product. BIAS: a summand. Then ADD: added to out, times p.factor; ACT: activated;
// GLU: a gate with its up. The activation is a feature too: see act.
#ifdef SCALE
#import constants
#endif
#ifdef BIAS
#import constants
#endif
#ifdef ACT
#import act
#endif
#ifdef GLU
#import act
#endif

// Where the vectors of a stack's matrix begin, behind those of the stack.
#ifdef STACK
var<private> vectors_at: u32 = 0u;
#else
const vectors_at: u32 = 0u;
#endif

// The product's own value of its column `c`.
fn product(c: u32, sum: f32) -> f32 {
    var v = sum;
#ifdef SCALE
    v *= constant(p.scale_at + vectors_at + c);
#endif
#ifdef BIAS
    v += constant(p.bias_at + vectors_at + c);
#endif
    return v;
}

#ifdef GLU
fn finish(row: u32, n: u32, gate: f32, up: f32) {
    if (n >= p.n) { return; }
    let c = p.out_start + n;
    out[row * p.out_stride + c] = gated(product(c, gate), product(c + p.column_pair, up));
}
#else
fn finish(row: u32, n: u32, sum: f32) {
    if (n >= p.n) { return; }
    let c = p.out_start + n;
    let at = row * p.out_stride + c;
    let v = product(c, sum);
#ifdef ADD
    out[at] += p.factor * v;
#else
#ifdef ACT
    out[at] = act(v);
#else
    out[at] = v;
#endif
#endif
}
#endif
