"""The networks: transformer, VAE and image encoder, and the GPU kernels that run them faster."""
