// Work ids on grids that go two-dimensional above 65,535 workgroups.

// The number of a workgroup, counted over x first.
fn flat_id(wid: vec3<u32>, n: vec3<u32>) -> u32 {
    return wid.x + wid.y * n.x;
}
