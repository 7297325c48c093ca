"""Our own GPU kernels, in Triton: everything between two matmuls or convolutions in one kernel.

They need Triton, which comes with torch for CUDA, so nothing imports this package before kernels
are asked for. Triton compiles each kernel at its first use and stores it for the next start.
"""
