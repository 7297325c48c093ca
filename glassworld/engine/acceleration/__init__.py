"""Ways to make a world faster on request."""
