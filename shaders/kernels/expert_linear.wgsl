// expert_linear for few rows: each row times the matrices that it picked. The matrices that nobody picked are not read.
#import stack
