"""The causal video VAE (Wan 2.1) and the tiny decoder (TAEHV), chunk by chunk."""
