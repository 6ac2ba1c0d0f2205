// head_linear for few rows: every head's columns times the matrix of the head, and behind them the columns that are passed
// on. Always with HEADS.
#import stack
