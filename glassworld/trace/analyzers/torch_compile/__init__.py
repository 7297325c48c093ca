"""Tables of compiled regions and of fused kernels."""
