// Weights by units of 32 neighbouring columns: `load_unit(i)`, then `unit_vecs` or `unit_dot`. One file per type, found by
// the feature of its name.
//
// A kernel that imports this declares `w: array<vec4<u32>>` (one segment's planes, each beginning at a multiple of 16
// bytes) and the parameters plane1, plane2, plane3 (where a plane begins, in vec4s; plane 0 begins at 0, or behind the grid
// of a type that has one). Unit i is unit i % units of row i / units. The planes are written by simd/src/quant; the
// types' files say what theirs hold.
//   n4: 16 bytes per unit: byte b holds element b in its low and element b + 16 in its high four bits
//   n2: 8 bytes per unit: byte b of word h holds elements 16 h + 4 j + b in bits 2 j, j = 0..4
//   n1: 4 bytes per unit: bit e belongs to element e

#import dequant_*
