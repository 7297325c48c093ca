"""Compare the structure of two runs: which part of one is which part of the other."""
