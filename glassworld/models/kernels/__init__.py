"""Our own GPU kernels, in Triton: what lies between two products or convolutions, as one.

Nothing outside imports this package before kernels are asked for: it needs Triton, which comes
with torch for CUDA. Triton compiles each kernel at its first use and keeps it for the next start.
"""
