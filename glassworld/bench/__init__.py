"""Benchmarks: speed, latency and memory of a world, of a GPU, and of live play."""
