"""Who did it: processes and their ancestry, kernels and terminals, the surface that we run on."""
