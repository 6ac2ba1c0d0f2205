// Sums and maxima over a workgroup of WG invocations. Every invocation must call them, and gets the result.

#ifdef SUBGROUPS
var<workgroup> reduce_s: array<f32, WG / 4u>; // a subgroup has at least 4 invocations

struct Lane {
    lid: u32,
    lane: u32,     // within the subgroup
    subgroup: u32,
    n: u32,        // subgroups in the workgroup
}

fn reduce_sum(at: Lane, value: f32) -> f32 {
    let part = subgroupAdd(value);
    workgroupBarrier();
    if (at.lane == 0u) { reduce_s[at.subgroup] = part; }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < at.n; i++) { sum += reduce_s[i]; }
    return sum;
}

fn reduce_max(at: Lane, value: f32) -> f32 {
    let part = subgroupMax(value);
    workgroupBarrier();
    if (at.lane == 0u) { reduce_s[at.subgroup] = part; }
    workgroupBarrier();
    var top = reduce_s[0];
    for (var i = 1u; i < at.n; i++) { top = max(top, reduce_s[i]); }
    return top;
}
#else
var<workgroup> reduce_s: array<f32, WG>;

struct Lane { lid: u32 }

fn reduce_sum(at: Lane, value: f32) -> f32 {
    workgroupBarrier();
    reduce_s[at.lid] = value;
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (at.lid < half) { reduce_s[at.lid] += reduce_s[at.lid + half]; }
    }
    workgroupBarrier();
    return reduce_s[0];
}

fn reduce_max(at: Lane, value: f32) -> f32 {
    workgroupBarrier();
    reduce_s[at.lid] = value;
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (at.lid < half) { reduce_s[at.lid] = max(reduce_s[at.lid], reduce_s[at.lid + half]); }
    }
    workgroupBarrier();
    return reduce_s[0];
}
#endif
