// Weights by units of 32 neighbouring columns: `load_unit(i)`, then `unit_vecs` or `unit_dot`. One file per block type.
//
// A kernel that imports this declares `w: array<vec4<u32>>` (one segment's planes, each beginning at a multiple of 16
// bytes) and the parameters plane1, plane2, plane3 (where a plane begins, in vec4s; plane 0 begins at 0). Unit i is unit
// i % units of row i / units. The planes are written by engine/src/gpu/planes.rs; each file below says what its hold.
//   n4: 16 bytes per unit: byte b holds element b in its low and element b + 16 in its high four bits
//   n2: 8 bytes per unit: byte b of word h holds elements 16 h + 4 j + b in bits 2 j, j = 0..4
//   n1: 4 bytes per unit: bit e belongs to element e

#ifdef F32
#import dequant_f32
#endif
#ifdef F16W
#import dequant_f16
#endif
#ifdef BF16
#import dequant_bf16
#endif
#ifdef Q4_0
#import dequant_q4_0
#endif
#ifdef Q4_1
#import dequant_q4_1
#endif
#ifdef Q5_0
#import dequant_q5_0
#endif
#ifdef Q5_1
#import dequant_q5_1
#endif
#ifdef Q8_0
#import dequant_q8_0
#endif
#ifdef Q2_K
#import dequant_q2_k
#endif
#ifdef Q3_K
#import dequant_q3_k
#endif
#ifdef Q4_K
#import dequant_q4_k
#endif
#ifdef Q5_K
#import dequant_q5_k
#endif
#ifdef Q6_K
#import dequant_q6_k
#endif
