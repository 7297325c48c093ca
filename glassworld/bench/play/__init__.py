"""Live play measured from outside, by clients of the server."""
