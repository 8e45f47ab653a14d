"""What kernels tell of themselves: which cell runs, and what its code does."""
