"""What torch.compile leaves in a trace: its regions, and the kernels that Inductor fused."""
