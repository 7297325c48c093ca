"""The causal diffusion transformer (DiT) and its KV caches."""
