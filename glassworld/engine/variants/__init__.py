"""The released models, one module each."""
