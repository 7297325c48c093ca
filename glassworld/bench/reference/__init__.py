"""The eager baseline: a world as the released code computes it."""
